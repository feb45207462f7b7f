"""Local copies of what lies in a bucket: for libraries and people that open files, and to read nothing twice.

A copy's name has the tag of what it is of: of a thing that was written anew, a new copy is made. Nothing is lost with
them.
"""

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from resources.store.digest import digest_json, list_files, temporary_folder
from resources.store.shared.bucket import Bucket, Thing

AT_ONCE = 8  # downloads
YOUNG_SECONDS = 3600


class Copies:
    """The copies of one bucket in the folder `root`."""

    def __init__(self, bucket: Bucket, root: Path):
        self._bucket, self._root = bucket, root

    def of(self, things: Sequence[Thing]) -> list[Path]:
        """A file for each thing, downloaded if need be. Raises FileNotFoundError for one that is gone from the bucket
        or was written anew."""
        paths = [self._path(thing) for thing in things]
        wanted = [pair for pair in zip(things, paths, strict=True) if not is_copy(*pair)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda pair: self._download(*pair), wanted))
        return paths

    def keep(self, thing: Thing, content: bytes) -> None:
        """Keep the copy of what was just written."""
        with self._temporary() as folder:
            (folder / "copy").write_bytes(content)
            put_in_place(folder / "copy", self._path(thing))

    def drop(self, thing: Thing) -> None:
        self._path(thing).unlink(missing_ok=True)

    def folder(self, name: str, things: Sequence[Thing]) -> Path:
        """A folder with the things below the bucket's folder `name` under their names; see `of`."""
        target = self._folder(name, things)
        if not target.is_dir():
            with self._temporary() as made:
                paths = [made / thing.name.removeprefix(f"{name}/") for thing in things]
                with ThreadPoolExecutor(AT_ONCE) as pool:
                    list(pool.map(lambda pair: self._fetch(*pair), zip(things, paths, strict=True)))
                put_in_place(made, target)
        return target

    def keep_folder(self, name: str, things: Sequence[Thing], made: Path) -> None:
        """Keep as the copy of a folder what it was just written from, which moves there."""
        put_in_place(made, self._folder(name, things))

    def drop_folder(self, name: str, things: Sequence[Thing]) -> None:
        shutil.rmtree(self._folder(name, things), ignore_errors=True)

    def keep_only(self, things: Sequence[Thing], folders: Sequence[tuple[str, Sequence[Thing]]]) -> None:
        """Remove the copies of all but these things and folders, and what downloads left that were killed; but nothing
        young, which somebody may be reading or making."""
        files = {self._path(thing) for thing in things}
        whole = {self._folder(name, its) for name, its in folders}
        for path in list_files(self._root):
            with suppress(FileNotFoundError):
                old = time.time() - path.stat().st_mtime > YOUNG_SECONDS
                if old and path not in files and not whole & set(path.parents):
                    path.unlink()

    def _temporary(self) -> AbstractContextManager[Path]:
        return temporary_folder(self._root / "temporary")

    def _path(self, thing: Thing) -> Path:
        return self._root / f"{thing.name}.{mark(thing.tag)}"

    def _folder(self, name: str, things: Sequence[Thing]) -> Path:
        return self._root / f"{name}.{mark([[thing.name, thing.tag] for thing in things])}"

    def _download(self, thing: Thing, path: Path) -> None:
        with self._temporary() as folder:
            self._bucket.download(thing, folder / "copy")
            put_in_place(folder / "copy", path)

    def _fetch(self, thing: Thing, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._bucket.download(thing, path)


def is_copy(thing: Thing, path: Path) -> bool:
    """Whether a copy is there, and not one that a power cut left short."""
    return path.is_file() and path.stat().st_size == thing.size


def put_in_place(made: Path, target: Path) -> None:
    """Rename a file or folder, unless another process was faster."""
    target.parent.mkdir(parents=True, exist_ok=True)
    made.chmod(0o755 if made.is_dir() else 0o644)
    try:
        made.replace(target)
    except OSError:
        if not target.is_dir():
            raise


def mark(tags: object) -> str:
    return digest_json(tags)[:16]
