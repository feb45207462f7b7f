"""The table of vectors of a shared store: LanceDB in the bucket itself.

A server's ETag stands where a folder's table has the sha256 of a file: it is another one when the file was written
anew, and no file is downloaded to ask for it. Rows are compared with their checks as in a folder.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.retrieval.vector_table import VectorTable
from resources.store.digest import digest_json
from resources.store.sealed import seal, unseal
from resources.store.shared.bucket import Bucket
from resources.store.shared.locks import PostgresLocks
from resources.store.shared.store import Place, SharedStore

if TYPE_CHECKING:
    import lancedb


def open_store(address: str, lock_server: str, local: Path) -> SharedStore:
    """The shared store at `s3://bucket/prefix`. local: a folder for what lies on this machine.
    Raises StoreError if one of the servers does not answer or cannot be used."""
    locks = PostgresLocks(lock_server, address)
    return SharedStore(Bucket(address), locks, local / digest_json(address)[:16], SharedVectors)


class SharedVectors(VectorTable):
    """A VectorTable in a shared store."""

    def __init__(self, place: Place, name: str):
        super().__init__(name, place.bucket.where("lancedb"))
        self._bucket, self._locks = place.bucket, place.locks
        self._folder, self._note = f"lancedb/{name}.lance", f"lancedb/{name}.checked.json"

    def _connect(self) -> "lancedb.DBConnection":
        import lancedb

        endpoint = self._bucket.endpoint
        return lancedb.connect(self.where, storage_options={"endpoint": endpoint} if endpoint else None)

    def _open(self) -> "lancedb.table.Table | None":
        # A server that did not answer looks like a table that is damaged. Whoever lists its files gets StoreError.
        table = super()._open() if self._files("_versions") else None
        return table or (super()._open() if self._files("_versions") else None)

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
