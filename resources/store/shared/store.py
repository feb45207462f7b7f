"""The store in a bucket, for several machines: the same contract as the folder's, kept by other means.

    objects/<data version>/<file>  the files of one artifact
    traces/, pointers/, snapshots/ sealed files (resources/store/records.py)
    rows/<kind>/<context digest>/  segments (shared/segments.py)
    lancedb/                       vectors (resources/retrieval/shared_vectors.py)
    journal/                       what each process noted (shared/journal.py)
    quarantine/                    what was not what was written
    probe                          what an opening tries to create (shared/bucket.py)

Nothing is renamed and nothing is half-written: a thing appears whole or not at all. An artifact's files are there
before its trace, and the trace before its pointer; a kill in between leaves things that nothing names. On this machine,
below `local`, lie copies of what was read, and what is not finished yet.
"""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.store.collect import remove
from resources.store.digest import digest_file, digest_json, list_files, temporary_folder
from resources.store.manifest import CorruptArtifact, Manifest
from resources.store.recorded import RecordedStore
from resources.store.records import Records
from resources.store.shared import collect
from resources.store.shared.bucket import Bucket, Thing
from resources.store.shared.copies import Copies
from resources.store.shared.files import BucketFiles
from resources.store.shared.journal import BucketJournal
from resources.store.shared.listings import Listings
from resources.store.shared.locks import PostgresLocks
from resources.store.shared.segments import Segments
from resources.store.store import Collected, Kept


@dataclass(frozen=True)
class Place:
    """Where a shared store keeps its vectors, for whoever makes a table of them."""

    bucket: Bucket
    locks: PostgresLocks


class SharedStore(RecordedStore):
    """A Store (resources/store/store.py, which says what each method does) below the address of `bucket`.

    vector_table: makes the table of a name in a place; see LocalStore.
    """

    def __init__(self, bucket: Bucket, locks: PostgresLocks, local: Path, vector_table: Callable[[Place, str], Any]):
        self._bucket, self._local = bucket, local
        self._copies = Copies(bucket, local / "copies")
        self._listings = Listings(bucket, lambda: locks.last_taken)
        journal = BucketJournal(bucket, self._copies)
        super().__init__(Records(BucketFiles(bucket, self._copies, self._listings), journal), journal)
        self.locks = locks
        self._vector_table = vector_table

    # -- artifacts -------------------------------------------------------------------------------

    def complete(self, manifest: Manifest) -> bool:
        there = self._listings.folder("objects")
        return all(f"{objects(manifest)}/{name}" in there for name in manifest.files)

    def open(self, manifest: Manifest) -> Path:
        things = self._things(manifest)
        if len(things) < len(manifest.files):
            raise FileNotFoundError(self._bucket.where(objects(manifest)))
        return self._copies.folder(objects(manifest), things)

    def verify(self, manifest: Manifest) -> Path:
        things = self._things(manifest)
        there = {thing.name.removeprefix(f"{objects(manifest)}/") for thing in things}
        wrong = min(manifest.files.keys() - there, default=None)
        for _ in range(2 if wrong is None else 0):
            folder = self._copies.folder(objects(manifest), things)
            wrong = next((name for name, said in manifest.files.items() if not is_file_of(folder / name, said)), None)
            if wrong is None:
                return folder
            self._copies.drop_folder(objects(manifest), things)  # it may be the copy that is damaged: fetch it anew
        where = self._bucket.where(f"{objects(manifest)}/{wrong}")
        raise CorruptArtifact(f"{manifest.stage}: {where} does not match its manifest")

    def workspace(self) -> AbstractContextManager[Path]:
        return temporary_folder(self._local / "temporary")

    def commit(self, workspace: Path, **known: Any) -> Manifest:
        files = {str(p.relative_to(workspace)): digest_file(p) for p in list_files(workspace)}
        manifest = Manifest(files=files, data_version=digest_json(files), **known)
        if not self._is_there(manifest):
            name = objects(manifest)
            things = [self._bucket.write(f"{name}/{file}", workspace / file) for file in sorted(files)]
            for thing in things:
                self._listings.put(thing)
            self._copies.keep_folder(name, things, workspace)
        self._trace(manifest)
        shutil.rmtree(self.unfinished(manifest.fingerprint), ignore_errors=True)
        return manifest

    def _is_there(self, manifest: Manifest) -> bool:
        """Whether the artifact's files are there and as they should be; damaged ones are set aside. Some of them are
        what a killed commit left: they are written again."""
        if len(self._things(manifest)) < len(manifest.files):
            return False
        try:
            self.verify(manifest)
        except CorruptArtifact as error:
            self.quarantine(manifest, str(error))
            return False
        return True

    def unfinished(self, fingerprint: str) -> Path:
        return self._local / "unfinished" / fingerprint

    def _things(self, manifest: Manifest) -> list[Thing]:
        """Those of an artifact's files that are there."""
        names = {f"{objects(manifest)}/{name}" for name in manifest.files}
        return [thing for thing in self._bucket.things(objects(manifest)) if thing.name in names]

    # -- rows and vectors, and what nothing needs --------------------------------------------------

    def rows(self, kind: str, context: dict[str, Any]) -> Segments:
        return Segments(self._bucket, self._copies, self.locks.writing, kind, context)

    def vectors(self, name: str) -> Any:
        return self._vector_table(Place(self._bucket, self.locks), name)

    def remove_unneeded(self, kept: Kept, *, really: bool) -> Collected:
        collected = collect.remove_unneeded(self._bucket, self._records, self.vectors, kept, really=really)
        for kind in ("temporary", "unfinished"):
            for path in sorted((self._local / kind).glob("*")):
                if path.name not in kept.unfinished:
                    remove(path, kind, collected, really=really)
        if really:
            collect.join_rows(self._bucket, self._copies)
            collect.remove_copies(self._bucket, self._copies)
            self._listings.expire()
        return collected


def objects(manifest: Manifest) -> str:
    return f"objects/{manifest.data_version}"


def is_file_of(path: Path, digest: str) -> bool:
    return path.is_file() and digest_file(path) == digest
