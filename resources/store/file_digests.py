"""Digests of files that were read before and have not changed since."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from resources.store.digest import digest_file, digest_json, list_files, seen
from resources.store.sealed import Damaged, read_sealed, remember

SETTLED = 2_000_000_000  # ns: the coarsest clock of file times, that of FAT, ticks in two seconds


class FileDigests:
    """File digests remembered between processes by (inode, size, mtime, ctime), all in nanoseconds.

    ctime cannot be set by a program, so an overwrite in place is noticed even if its size and mtime
    are put back; a file that changed a moment ago could change within the same tick of that clock, and is
    read again. Without this, `plan` would hash every model file at every call. A damaged memory is
    forgotten.
    """

    def __init__(self, memory: Path):
        self._memory = memory
        try:
            self._known: dict[str, Any] = read_sealed(memory, memory.name)
        except (OSError, Damaged):
            self._known = {}

    def file(self, path: Path) -> str:
        """Digest of one file; read only if it changed since it was last digested."""
        return self.files([path])[0]

    def files(self, paths: Sequence[Path]) -> list[str]:
        """Digests of files; what is new is remembered with one write."""
        digests, changed = [], False
        for path in paths:
            now = list(seen(path.stat()))
            known = self._known.get(str(path))
            if known is None or known[:4] != now:
                settled = abs(time.time_ns() - now[3]) > SETTLED  # before it is read, which may take long
                known = [*now, digest_file(path)]
                if settled:
                    self._known[str(path)], changed = known, True
            digests.append(known[4])
        if changed:
            self._save()
        return digests

    def derived(self, path: Path, what: str, work_out: Callable[[Path], str]) -> str:
        """Another digest of the file's content, `what` naming it; worked out once per content."""
        return self.once(f"{what}:{self.file(path)}", lambda: work_out(path))

    def once(self, key: str, work_out: Callable[[], str]) -> str:
        """What was worked out under a key that holds all that decides it; nothing is remembered if that raises."""
        if key not in self._known:
            self._known[key] = work_out()
            self._save()
        return self._known[key]

    def folder(self, folder: Path) -> str:
        """Digest of a folder: names and contents of all its files. Raises OSError if it is missing."""
        if not folder.is_dir():
            raise FileNotFoundError(f"no such folder: {folder}")
        return digest_json({str(p.relative_to(folder)): self.file(p) for p in list_files(folder)})

    def _save(self) -> None:
        remember(self._memory, self._known)
