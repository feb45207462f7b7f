"""What was read from files and need not be read again."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """Reads a file, and again only once it changed: by inode, size, mtime and ctime in ns, as FileDigests does.

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
        if known is None or known[0] != seen:
            known = self._known[path] = (seen, self._read(path))
        return known[1]
