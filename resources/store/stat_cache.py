"""What was read from files and need not be read again."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from resources.store.digest import seen

T = TypeVar("T")
SETTLED = 50_000_000  # ns: the clock of file times ticks in up to ten milliseconds


class Remembered(Generic[T]):
    """Reads a file, and again only once it changed: by inode, size, mtime and ctime in ns, as FileDigests does.

    One that changed a moment ago is read again, since it could change within the same tick of that clock.
    For this process only. A file is always read in the same way; what is made of it must not be changed.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, ...], T]] = {}

    def __call__(self, path: str, read: Callable[[Path], T]) -> T:
        """What the file says. Raises OSError if there is none, and what `read` raises, which is not remembered."""
        stat = os.stat(path)  # noqa: PTH116  a Path of each takes longer than to look at it
        now = seen(stat)
        known = self._known.get(path)
        if known is not None and known[0] == now:
            return known[1]
        self._known.pop(path, None)
        settled = time.time_ns() - stat.st_ctime_ns > SETTLED
        found = read(Path(path))
        if settled:
            self._known[path] = (now, found)
        return found
