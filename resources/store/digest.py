"""Content digests: the only notion of identity in the project. A path or a time is never one."""

import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROWS_AT_ONCE = 1 << 16  # bounds the memory that their JSON takes


def digest_json(value: Any) -> str:
    """sha256 (64 hex) of a JSON value, independent of key order. Raises TypeError for anything else."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def digest_rows(*columns: Sequence[str | None], optional: Sequence[str | None] | None = None, digits: int) -> list[str]:
    """The first `digits` of `digest_json([a, b, ...])` of every row (a, b, ...) of columns of text or None.

    The same digests without a call per row. optional: one more column, which is a value of those rows only in which
    it is not None. Raises ValueError for columns of different lengths.
    """
    found: list[str] = []
    for start in range(0, len(columns[0]), ROWS_AT_ONCE):
        # A new line never stands inside JSON text, so it tells one encoded value from the next.
        texts = (
            json.dumps(column[start : start + ROWS_AT_ONCE], ensure_ascii=False, separators=("\n", ":"))
            for column in columns
        )
        rows: Iterator[str] = map(",".join, zip(*(text[1:-1].split("\n") for text in texts), strict=True))
        if optional is not None:
            more = optional[start : start + ROWS_AT_ONCE]
            rows = (with_optional(row, value) for row, value in zip(rows, more, strict=True))
        found += [hashlib.sha256(f"[{row}]".encode()).hexdigest()[:digits] for row in rows]
    return found


def with_optional(row: str, value: str | None) -> str:
    return row if value is None else f"{row},{json.dumps(value, ensure_ascii=False)}"


def digest_file(path: Path) -> str:
    """sha256 (64 hex) of the bytes of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seen(stat: os.stat_result) -> tuple[int, ...]:
    """What stays as it is for as long as a file does. No program can put the last of it back."""
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


MOST_LINKS = 3  # of folders, one inside the other: some that link to each other have a path for each order of them


def list_files(folder: Path) -> list[Path]:
    """All regular files below `folder`, sorted by their path relative to it; [] if there is no such folder. Folders
    that are links are gone into, as far as they do not lead back; left out is what leads nowhere or may not be read."""
    found: list[str] = []
    waiting: list[tuple[str, tuple[str, ...]]]
    waiting = [(str(folder), (os.path.realpath(folder),))]  # with where the links that led there lead
    while waiting:
        inside, links = waiting.pop()
        for entry in entries_of(inside):
            if is_kind(entry.is_file):
                found.append(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, links))
            elif is_kind(entry.is_dir) and len(links) <= MOST_LINKS:
                target = os.path.realpath(entry.path)
                if target not in links and not Path(os.path.realpath(inside)).is_relative_to(target):
                    waiting.append((entry.path, (*links, target)))
    return sorted(map(Path, found))


def entries_of(folder: str) -> list["os.DirEntry[str]"]:
    """[] if there are none that this user may see."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def is_kind(asked: Callable[[], bool]) -> bool:
    """What a DirEntry says of itself; not where it is a link that leads through a file, or to itself."""
    try:
        return asked()
    except OSError:
        return False


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text`: a reader, or a restart after a power cut, sees the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """An empty folder in `parent`, removed on the way out if it is still there."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync(path: Path) -> None:
    """Return once what was written to a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
