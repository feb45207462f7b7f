"""The table of vectors of a shared store: LanceDB in the bucket itself.

A server's ETag stands where a folder's table has the sha256 of a file: it is another one when the file was written
anew, and no file is downloaded to ask for it. Rows are compared with their checks as in a folder. But LanceDB opens
every file of a table in a bucket, also to leave its rows out: with one that cannot be read, all of it is set aside.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.retrieval.lance_rows import BROKEN, Checked
from resources.retrieval.vector_table import VectorTable, damaged_name
from resources.store.digest import digest_json
from resources.store.manifest import CorruptArtifact
from resources.store.sealed import seal, unseal
from resources.store.shared.bucket import Bucket
from resources.store.shared.locks import PostgresLocks
from resources.store.shared.store import Place, SharedStore

if TYPE_CHECKING:
    import lancedb

    from resources.retrieval.vector_table import Embed


def open_store(address: str, lock_server: str, local: Path) -> SharedStore:
    """The shared store at `s3://bucket/prefix`. local: a folder for what lies on this machine.
    Raises StoreError if one of the servers does not answer or cannot be used."""
    locks = PostgresLocks(lock_server, address)
    return SharedStore(Bucket(address), locks, local / digest_json(address)[:16], SharedVectors)


class Unreadable(CorruptArtifact):
    """A table of which a file cannot be read."""


class SharedVectors(VectorTable):
    """A VectorTable in a shared store."""

    def __init__(self, place: Place, name: str):
        super().__init__(name, place.bucket.where("lancedb"))
        self._bucket, self._locks = place.bucket, place.locks
        self._folder, self._note = f"lancedb/{name}.lance", f"lancedb/{name}.checked.json"

    def missing(self, texts: Sequence[str]) -> int:
        try:
            return super().missing(texts)
        except BROKEN:
            self._files("_versions")  # StoreError if it is the server
            return len(set(texts))

    def fill(self, texts: Sequence[str], embed: "Embed", check: Callable[[], None] = lambda: None) -> int:
        try:
            return super().fill(texts, embed, check)
        except Unreadable:
            self._set_aside_unreadable()
            return super().fill(texts, embed, check)
        except BROKEN:
            self._files("_versions")  # StoreError if it is the server
            raise

    def _set_aside_unreadable(self) -> None:
        with self._writing():
            try:
                self.compared()  # another writer may have been here
            except Unreadable:
                self._set_aside(damaged_name(self.name))
                self._forget_note()

    def compared(self) -> "tuple[lancedb.table.Table | None, Checked]":
        """Raises Unreadable if one of the table's files cannot be read, although the server answers."""
        why: object = "a file cannot be read"
        for _ in range(2):
            try:
                table, known = super().compared()
            except BROKEN as error:
                why = error
            else:
                if not known.lost:
                    return table, known
            self._files("_versions")
        raise Unreadable(f"retrieval_index: {self.name} in {self.where}: {why}")

    def _connect(self) -> "lancedb.DBConnection":
        import lancedb

        endpoint = self._bucket.endpoint
        return lancedb.connect(self.where, storage_options={"endpoint": endpoint} if endpoint else None)

    def opened(self) -> "lancedb.table.Table | None":
        for _ in range(2):
            # A server that did not answer looks like a table that is damaged; listing its files then raises StoreError.
            if not self._files("_versions"):
                return None
            if (table := super().opened()) is not None:
                return table
        return None

    def _files(self, below: str) -> set[str]:
        return set(self._tags(below))

    def _digest(self, names: Sequence[str]) -> list[str]:
        tags = {
            name: tag
            for folder in {name.partition("/")[0] for name in names}
            for name, tag in self._tags(folder).items()
        }
        try:
            return [tags[name] for name in names]
        except KeyError as error:
            raise FileNotFoundError(f"{self.where}/{self.name}.lance/{error.args[0]}") from None

    def _tags(self, below: str) -> dict[str, str]:
        things = self._bucket.things(f"{self._folder}/{below}")
        return {thing.name.removeprefix(f"{self._folder}/"): thing.tag for thing in things}

    def _size(self) -> int:
        return sum(thing.size for thing in self._bucket.things(self._folder))

    def _set_aside(self, name: str) -> None:
        self._bucket.move(self._folder, f"lancedb/{name}")

    def _read_note(self) -> dict[str, Any]:
        return unseal(self._bucket.read(self._note)[0], self.name, self._bucket.where(self._note))

    def _write_note(self, content: dict[str, Any]) -> None:
        self._bucket.write(self._note, seal(self.name, content).encode())

    def _forget_note(self) -> None:
        self._bucket.remove([self._note])

    def _writing(self) -> AbstractContextManager[None]:
        return self._locks.writing(self._folder)
