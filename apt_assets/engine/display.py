"""What the command line shows of a run: bars in a terminal, JSON lines, or lines only.

In Dagster the same numbers are log lines of the step (apt_assets/orchestration/assets.py).
"""

import json
import sys
from dataclasses import asdict
from typing import Any

from apt_assets.engine.progress import Progress


class Display:
    """Shows nothing; what Dagster's own processes use."""

    def line(self, text: str) -> None:
        """A line for people: a stage that begins or ends, or what is to be done about something."""

    def progress(self, at: Progress) -> None:
        """How far a part of a stage is."""

    def close(self) -> None:
        """Nothing more comes."""


class Lines(Display):
    """Lines to stderr, no progress: for files, pipes and CI."""

    def line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Events(Display):
    """One JSON object a line to stderr: {"event": "line", "text"} or {"event": "progress", ...}."""

    def line(self, text: str) -> None:
        self._write({"event": "line", "text": text})

    def progress(self, at: Progress) -> None:
        left = None if at.seconds_left is None else round(at.seconds_left, 1)
        numbers = {"seconds": round(at.seconds, 1), "rate": round(at.rate, 2), "seconds_left": left}
        self._write({"event": "progress", **asdict(at), **numbers})

    def _write(self, event: dict[str, Any]) -> None:
        print(json.dumps(event), file=sys.stderr, flush=True)


class Bars(Display):
    """Lines, and below them a bar for the part that is under way, with rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True, highlight=False)
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._part: tuple[str, str, str] | None = None
        self._task: Any = None

    def line(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def progress(self, at: Progress) -> None:
        part = (at.iteration, at.stage, at.what)
        if part != self._part:
            self.close()
            self._part = part
            self._task = self._bars.add_task(f"{at.stage} of {at.iteration}", numbers="", total=at.total)
            self._bars.start()
        self._bars.update(self._task, completed=at.done, total=at.total, numbers=str(at))
        if at.done >= at.total:
            self.close()

    def close(self) -> None:
        if self._part is not None:
            self._bars.stop()
            self._bars.remove_task(self._task)
            self._part = None


def display(*, as_json: bool) -> Display:
    """JSON lines if asked for, bars in a terminal, else lines."""
    if as_json:
        return Events()
    return Bars() if sys.stderr.isatty() else Lines()
