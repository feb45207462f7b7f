"""Content digests: the only notion of identity in the project. A path or a time is never one."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROWS_AT_ONCE = 1 << 16  # bounds the memory that their JSON takes


def digest_json(value: Any) -> str:
    """sha256 (64 hex) of a JSON value, independent of key order. Raises TypeError for anything else."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def digest_rows(*columns: Sequence[str | None], digits: int) -> list[str]:
    """The first `digits` of `digest_json([a, b, ...])` of every row (a, b, ...) of columns of text or None.

    The same digests without a call per row. Raises ValueError for columns of different lengths.
    """
    found: list[str] = []
    for start in range(0, len(columns[0]), ROWS_AT_ONCE):
        # A new line never stands inside JSON text, so it tells one encoded value from the next.
        texts = (
            json.dumps(column[start : start + ROWS_AT_ONCE], ensure_ascii=False, separators=("\n", ":"))
            for column in columns
        )
        rows = zip(*(text[1:-1].split("\n") for text in texts), strict=True)
        found += [hashlib.sha256(f"[{row}]".encode()).hexdigest()[:digits] for row in map(",".join, rows)]
    return found


def digest_file(path: Path) -> str:
    """sha256 (64 hex) of the bytes of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path) -> list[Path]:
    """All regular files below `folder`, sorted by their path relative to it."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


class FileDigests:
    """File digests remembered between processes by (inode, size, mtime, ctime), all in nanoseconds.

    ctime cannot be set by a program, so an overwrite in place is noticed even if its size and mtime
    are put back. Without this, `plan` would hash every model file at every call.
    """

    def __init__(self, memory: Path):
        self._memory = memory
        try:
            self._known: dict[str, Any] = json.loads(memory.read_text())
        except (OSError, ValueError):
            self._known = {}

    def file(self, path: Path) -> str:
        """Digest of one file; read only if it changed since it was last digested."""
        return self.files([path])[0]

    def files(self, paths: Sequence[Path]) -> list[str]:
        """Digests of files; what is new is remembered with one write."""
        digests, changed = [], False
        for path in paths:
            stat = path.stat()
            seen = [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            known = self._known.get(str(path))
            if known is None or known[:4] != seen:
                known, changed = [*seen, digest_file(path)], True
                self._known[str(path)] = known
            digests.append(known[4])
        if changed:
            self._save()
        return digests

    def derived(self, path: Path, what: str, work_out: Callable[[Path], str]) -> str:
        """Another digest of the file's content, `what` naming it; worked out once per content."""
        key = f"{what}:{self.file(path)}"
        if key not in self._known:
            self._known[key] = work_out(path)
            self._save()
        return self._known[key]

    def folder(self, folder: Path) -> str:
        """Digest of a folder: names and contents of all its files. Raises OSError if it is missing."""
        if not folder.is_dir():
            raise FileNotFoundError(f"no such folder: {folder}")
        return digest_json({str(p.relative_to(folder)): self.file(p) for p in list_files(folder)})

    def _save(self) -> None:
        write_atomically(self._memory, json.dumps(self._known))


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text`: a reader, or a restart after a power cut, sees the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
