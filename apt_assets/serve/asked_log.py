"""The log of what was asked and answered: one line of JSON each, a file a day, as much and as long as is allowed.

It holds what people wrote: only this user may read it, and a function of one's own may change each line before it is
written, or leave it out. A line that this function fails on is not written.
"""

import errno
import importlib
import json
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from apt_assets.serve.problem import Problem
from apt_assets.settings.experiment import UsageError

Redact = Callable[[dict[str, Any]], dict[str, Any] | None]
NAME = re.compile(r"asked-(\d{4}-\d\d-\d\d)\.jsonl")


class AskedLog:
    """folder: made if it is not there; other files in it are left alone. redact: gets each line's fields and returns
    those to write; None: the line is left out. most_bytes: of all days; the oldest go first, and once today's fill it
    up alone nothing is written. most_days: that a file is kept. tell: gets why a line was not written.

    Raises UsageError if the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        redact: Redact | None,
        most_bytes: int,
        most_days: int,
        tell: Callable[[str], None] = lambda text: None,
    ):
        self.folder, self.redact, self.most_bytes, self.most_days = folder, redact, most_bytes, most_days
        self.problem = Problem("log: a line was not written", tell)  # why the last one was not
        self._lock = threading.Lock()
        self._day: date | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._clean(today())
        except OSError as error:
            raise UsageError(f"--log: {folder}: {error.strerror}") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"--log: this user may not write to {folder}")

    def write(self, fields: dict[str, Any]) -> bool:
        """Append a line; whether it was written. Never raises: `problem` says why it was not."""
        with self._lock:
            try:
                kept = fields if self.redact is None else self.redact(fields)
                if kept is None:
                    return False
                line = (json.dumps(kept, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
                self._append(today(), line)
            except Exception as error:  # of whatever the function does, or the disk
                self.problem.set(error)
                return False
            self.problem.clear()
            return True

    def _append(self, day: date, line: bytes) -> None:
        if day != self._day:
            self._clean(day)
        sizes = self._sizes()  # each time: other servers may write here too
        if sum(size for other, size in sizes.items() if other >= day) + len(line) > self.most_bytes:
            raise OSError(f"with {len(line)} more bytes today's lines exceed the {self.most_bytes} of the log")
        while sum(sizes.values()) + len(line) > self.most_bytes:
            self._path(oldest := min(sizes)).unlink(missing_ok=True)
            del sizes[oldest]
        file = os.open(self._path(day), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":  # half a line, of a disk that was full
                line = b"\n" + line
            written = os.write(file, line)  # one call, so that lines of two servers do not mix
        finally:
            os.close(file)
        if written < len(line):
            raise OSError(errno.ENOSPC, "a line was written in part only", str(self._path(day)))

    def _clean(self, day: date) -> None:
        """Remove what is too old."""
        self._day = day
        for other in days_in(self.folder):
            if (day - other).days >= self.most_days:
                self._path(other).unlink(missing_ok=True)

    def _sizes(self) -> dict[date, int]:
        """Day -> bytes of its file."""
        found = {}
        for day in days_in(self.folder):
            with suppress(FileNotFoundError):  # another server has removed it
                found[day] = self._path(day).stat().st_size
        return found

    def _path(self, day: date) -> Path:
        return self.folder / f"asked-{day}.jsonl"


def today() -> date:
    """In UTC."""
    return datetime.now(UTC).date()


def days_in(folder: Path) -> list[date]:
    """The days of which a folder has a file, in order."""
    found = []
    for path in folder.iterdir():
        if match := NAME.fullmatch(path.name):
            with suppress(ValueError):  # no day: a file of somebody else
                found.append(date.fromisoformat(match[1]))
    return sorted(found)


def function_named(named: str) -> Redact:
    """What MODULE:FUNCTION names. Raises UsageError."""
    module, _, name = named.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # of whatever the module does when it is imported
        raise UsageError(
            f"--log-redact: {named}: {error}; name MODULE:FUNCTION of a module that Python finds (PYTHONPATH)"
        ) from None
    if not callable(found):
        raise UsageError(f"--log-redact: {named} is no function")
    return found
