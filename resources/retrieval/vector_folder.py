"""A table of vectors in a folder, which may hold others. `<name>.lock` is of its writer."""

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.retrieval.vector_table import VectorTable
from resources.store.digest import list_files
from resources.store.sealed import read_sealed, write_sealed

if TYPE_CHECKING:
    import lancedb

Digests = Callable[[Sequence[Path]], list[str]]


class VectorFolder(VectorTable):
    """A VectorTable in the folder `database`. digests: sha256 of files; it may remember those of unchanged ones."""

    def __init__(self, database: Path, name: str, digests: Digests):
        super().__init__(name, str(database))
        self.database, self._digests = database, digests
        self.folder = database / f"{name}.lance"
        self._note = database / f"{name}.checked.json"

    def _connect(self) -> "lancedb.DBConnection":
        import lancedb

        return lancedb.connect(self.database)

    def _files(self, below: str) -> set[str]:
        return {path.relative_to(self.folder).as_posix() for path in list_files(self.folder / below)}

    def _digest(self, names: Sequence[str]) -> list[str]:
        return self._digests([self.folder / name for name in names])

    def _size(self) -> int:
        return sum(path.stat().st_size for path in list_files(self.folder))

    def _set_aside(self, name: str) -> None:
        if self.folder.exists():
            self.folder.rename(self.database / name)

    def _read_note(self) -> dict[str, Any]:
        return read_sealed(self._note, self.name)

    def _write_note(self, content: dict[str, Any]) -> None:
        write_sealed(self._note, self.name, content)

    def _forget_note(self) -> None:
        self._note.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer per table; the kernel lets go of it when the writer dies."""
        self.database.mkdir(parents=True, exist_ok=True)
        with (self.database / f"{self.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
