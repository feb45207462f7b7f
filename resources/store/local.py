"""The store in a folder of one file system: content-addressed, verified on read, never half-written.

    objects/<data version>/        the files of one artifact
    traces/, pointers/, snapshots/ sealed files (resources/store/records.py)
    unfinished/<fingerprint>/      what a long computation keeps until its artifact is committed
    quarantine/                    artifacts, manifests and snapshots that were not what was written
    rows/<kind>/<context digest>.jsonl   rows that were computed once (resources/store/row_file.py)
    lancedb/                       vectors (resources/retrieval/vector_table.py)
    locks/, temporary/, journal.jsonl

A commit writes to temporary/, syncs, renames into objects/, and only then writes the trace, then
the pointer: a kill in between leaves an unreferenced folder, never a wrong reference.
"""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from resources.store import collect
from resources.store.digest import digest_file, digest_json, list_files, sync, temporary_folder
from resources.store.journal import Journal
from resources.store.local_files import LocalFiles
from resources.store.locks import FileLocks
from resources.store.manifest import CorruptArtifact, Manifest
from resources.store.recorded import RecordedStore
from resources.store.records import Records
from resources.store.row_file import RowFile
from resources.store.store import Collected, Kept


class LocalStore(RecordedStore):
    """A Store (resources/store/store.py, which says what each method does) in the folder `root`.

    vector_table: makes the table of a name in a folder of LanceDB's. It is handed in because a table of vectors knows
    encoders, and a store does not.
    """

    def __init__(self, root: Path, vector_table: Callable[[Path, str], Any]):
        journal = Journal(root / "journal.jsonl")
        super().__init__(Records(LocalFiles(root), journal), journal)
        self.root = root
        self.locks = FileLocks(root / "locks")
        self._vector_table = vector_table

    # -- artifacts -------------------------------------------------------------------------------

    def complete(self, manifest: Manifest) -> bool:
        folder = self.open(manifest)
        return all((folder / name).is_file() for name in manifest.files)

    def open(self, manifest: Manifest) -> Path:
        return self.root / "objects" / manifest.data_version

    def verify(self, manifest: Manifest) -> Path:
        folder = self.open(manifest)
        for name, expected in manifest.files.items():
            path = folder / name
            if not path.is_file() or digest_file(path) != expected:
                raise CorruptArtifact(f"{manifest.stage}: {path} does not match its manifest")
        return folder

    def workspace(self) -> AbstractContextManager[Path]:
        return temporary_folder(self.root / "temporary")

    def commit(self, workspace: Path, **known: Any) -> Manifest:
        files = {str(p.relative_to(workspace)): digest_file(p) for p in list_files(workspace)}
        manifest = Manifest(files=files, data_version=digest_json(files), **known)
        target = self.open(manifest)
        if target.exists():
            try:
                self.verify(manifest)
            except CorruptArtifact as error:
                self.quarantine(manifest, str(error))
        if not target.exists():
            for path in list_files(workspace):
                sync(path)
            # mkdtemp made the folder private; an artifact is as readable as any other file.
            workspace.chmod(0o755)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                workspace.replace(target)
            except OSError:
                # Another process may have committed the same content since.
                if not target.exists():
                    raise
                self.verify(manifest)
            sync(target.parent)
        self._trace(manifest)
        shutil.rmtree(self.unfinished(manifest.fingerprint), ignore_errors=True)
        return manifest

    def unfinished(self, fingerprint: str) -> Path:
        return self.root / "unfinished" / fingerprint

    # -- rows and vectors, and what nothing needs --------------------------------------------------

    def rows(self, kind: str, context: dict[str, Any]) -> RowFile:
        return RowFile(self.root / "rows", kind, context)

    def vectors(self, name: str) -> Any:
        return self._vector_table(self.root / "lancedb", name)

    def remove_unneeded(self, kept: Kept, *, really: bool) -> Collected:
        return collect.remove_unneeded(self.root, self._records, self.vectors, kept, really=really)
