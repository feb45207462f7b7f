"""A store in a folder, with what a test needs to damage what it holds; one in a bucket is in tests/cluster.py."""

from functools import partial
from pathlib import Path

from resources.retrieval.vector_folder import VectorFolder
from resources.store.digest import list_files
from resources.store.file_digests import FileDigests
from resources.store.local import LocalStore


def local_store(root: Path) -> LocalStore:
    return LocalStore(root, partial(VectorFolder, digests=FileDigests(root.with_suffix(".digests.json")).files))


class Local:
    """A store in a folder; the things it holds are its files."""

    def __init__(self, folder: Path):
        self.root = folder / "store"

    def open(self) -> LocalStore:
        """The store, as another process would open it."""
        return local_store(self.root)

    def things(self) -> dict[str, bytes]:
        """Name -> content of everything that is kept."""
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in list_files(self.root)}

    def overwrite(self, name: str, content: bytes) -> None:
        (self.root / name).write_bytes(content)

    def lose(self, name: str) -> None:
        (self.root / name).unlink()
