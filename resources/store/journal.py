"""What happened in a store, one JSON object a line: every hit and miss with its reason, and what was set aside."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from resources.store.digest import sync
from resources.store.manifest import now


class Events(Protocol):
    """The journal of a store, for several processes at once."""

    def note(self, event: str, **fields: Any) -> None:
        """Append an event with its time."""
        ...

    def sync(self) -> None:
        """Return once what was noted outlives a power cut."""
        ...

    def events(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """The events, or those of these kinds, oldest first; torn ones are passed over."""
        ...


class Journal:
    """One file that is only ever appended to, by several processes."""

    def __init__(self, path: Path):
        self._path = path

    def note(self, event: str, **fields: Any) -> None:
        """Append one line; a line is one write, so writers do not mix."""
        line = json.dumps({"time": now(), "event": event, **fields}, ensure_ascii=False) + "\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                # After a line that a full disk or a power cut left torn, a new one begins.
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode("utf-8", "backslashreplace"))

    def sync(self) -> None:
        """Return once what was noted is on the disk."""
        sync(self._path)

    def events(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """The events, or those of these kinds, oldest first; torn lines are passed over."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            yield from events_in(file, kinds)


def events_in(lines: Iterable[bytes], kinds: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The events, or those of these kinds, in lines of JSON; torn lines are passed over."""
    wanted = [f'"event": "{kind}"'.encode() for kind in kinds]
    for line in lines:
        if not wanted or any(kind in line for kind in wanted):
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                yield event
