"""What was read from files and need not be read again."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
SETTLED = 50_000_000  # ns: the clock of file times ticks in up to ten milliseconds


class Remembered(Generic[T]):
    """Reads a file, and again only once it changed: by inode, size, mtime and ctime in ns, as FileDigests does.

    One that changed a moment ago is read again, since it could change within the same tick of that clock.
    For this process only. What `read` raises is not remembered; what it returns must not be changed.
    """

    def __init__(self, read: Callable[[Path], T]):
        self._read = read
        self._known: dict[Path, tuple[tuple[int, ...], T]] = {}

    def __call__(self, path: Path) -> T:
        """What the file says. Raises OSError if there is none, and what `read` raises."""
        stat = path.stat()
        seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        known = self._known.get(path)
        if known is not None and known[0] == seen:
            return known[1]
        self._known.pop(path, None)
        settled = time.time_ns() - stat.st_ctime_ns > SETTLED
        found = self._read(path)
        if settled:
            self._known[path] = (seen, found)
        return found
