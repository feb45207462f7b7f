"""Rows of a local store: a file that grows by one line a row.

    rows/<kind>/<context digest>.jsonl

A batch of rows is appended with one write and synced, so that a kill loses at most the batch in flight. One writer per
file (a lock); others wait and then find the rows.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resources.store.row_lines import encode_rows, is_whole, read_rows
from resources.store.rows import RowTable


class RowFile(RowTable):
    """A RowTable in a file below the folder `root`."""

    def __init__(self, root: Path, kind: str, context: dict[str, Any]):
        super().__init__(kind, context)
        self.path = root / kind / f"{self.digest}.jsonl"
        self._damaged = root / "damaged"

    def read(self, keys: Iterable[str]) -> dict[str, Any]:
        wanted = {key.encode() for key in keys}
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return {}
        with file:
            return read_rows(file, wanted) if self._is_own(file.readline()) else {}

    def _append(self, rows: dict[str, Any]) -> None:
        lines = encode_rows(rows)
        new = not self.path.exists()
        with self.path.open("ab") as file:
            # A line that a kill left torn must not swallow the next one.
            file.write(b"\n".join([self._head if new else b"", *lines]))
            file.flush()
            os.fsync(file.fileno())

    def _take_out_damaged(self) -> int:
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return 0
        with file:
            own = self._is_own(file.readline())
            bad = sum(not is_whole(line.removesuffix(b"\n")) for line in file if line != b"\n")
            if own and not bad:
                return 0
            self._damaged.mkdir(parents=True, exist_ok=True)
            aside = self._damaged / f"{self.kind}-{self.path.name}-{time.time_ns()}"
            if own:
                file.seek(0)
                whole = self.path.with_suffix(".whole")
                with whole.open("wb") as new:
                    new.write(file.readline().removesuffix(b"\n"))
                    new.writelines(b"\n" + line for raw in file if is_whole(line := raw.removesuffix(b"\n")))
                    new.flush()
                    os.fsync(new.fileno())
                shutil.copyfile(self.path, aside)  # not every file system has links
                whole.replace(self.path)
            else:
                self.path.rename(aside)
        return bad + (not own)

    @contextmanager
    def _writer(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
