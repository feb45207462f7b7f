"""What was read from files and need not be read again."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """Reads a file, and again only once it changed: by inode, size, mtime and ctime in ns, as FileDigests does.

    For this process only. A file is always read in the same way; what is made of it must not be changed.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], T]] = {}

    def __call__(self, path: Path, read: Callable[[Path], T]) -> T:
        """What the file says. Raises OSError if there is none, and what `read` raises, which is not remembered."""
        stat = path.stat()
        seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        known = self._known.get(path)
        if known is None or known[0] != seen:
            known = self._known[path] = (seen, read(path))
        return known[1]
