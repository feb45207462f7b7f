"""The store in a folder of one file system: content-addressed, verified on read, never half-written.

    objects/<data version>/        the files of one artifact
    traces/<stage>/<fingerprint>.json   manifest: this fingerprint gave that artifact
    pointers/<experiment>/<iteration>/<stage>.json   what is there now, for `status` and for causes
    snapshots/<experiment>/<iteration>.json          the landed files an iteration uses
    unfinished/<fingerprint>/      what a long computation keeps until its artifact is committed
    quarantine/                    artifacts, manifests and snapshots that were not what was written
    rows/<kind>/<context digest>.jsonl   rows that were computed once (resources/store/rows.py)
    lancedb/                       vectors (resources/retrieval/vector_table.py)
    locks/, temporary/, journal.jsonl

A commit writes to temporary/, syncs, renames into objects/, and only then writes the trace, then
the pointer: a kill in between leaves an unreferenced folder, never a wrong reference. Traces, pointers
and snapshots are sealed (resources/store/records.py).
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from resources.store import collect
from resources.store.digest import digest_file, digest_json, list_files, sync
from resources.store.journal import Journal
from resources.store.locks import FileLocks
from resources.store.manifest import CorruptArtifact, Manifest
from resources.store.records import Records
from resources.store.rows import RowTable
from resources.store.sealed import Damaged
from resources.store.store import Collected, Kept


class LocalStore:
    """A Store (resources/store/store.py, which says what each method does) in the folder `root`.

    vector_table: makes the table of a name in a folder of LanceDB's. It is handed in because a table of vectors knows
    encoders, and a store does not.
    """

    def __init__(self, root: Path, vector_table: Callable[[Path, str], Any]):
        self.root = root
        self.locks = FileLocks(root / "locks")
        self._vector_table = vector_table
        self._journal = Journal(root / "journal.jsonl")
        self._records = Records(root, self._journal)

    # -- reading ---------------------------------------------------------------------------------

    def lookup(self, stage: str, fingerprint: str) -> Manifest | None:
        manifest = self._records.manifest(self._records.trace_path(stage, fingerprint))
        if manifest is None or manifest.fingerprint != fingerprint:
            return None
        return manifest if manifest.collected or self.complete(manifest) else None

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

    def pointed(self, experiment: str, iteration: str, stage: str) -> Manifest | None:
        return self._records.manifest(self._records.pointer_path(experiment, iteration, stage))

    def unreadable(self, experiment: str, iteration: str, stage: str) -> bool:
        return self._records.damage(self._records.pointer_path(experiment, iteration, stage)) is not None

    def iterations(self, experiment: str) -> list[str]:
        return sorted(path.stem for path in (self.root / "snapshots" / experiment).glob("*.json"))

    def experiments(self) -> list[str]:
        folders = [self.root / kind for kind in ("snapshots", "pointers")]
        return sorted({path.name for folder in folders if folder.is_dir() for path in folder.iterdir()})

    def started(self, experiment: str, iteration: str) -> bool:
        return any((self.root / "pointers" / experiment / iteration).glob("*.json"))

    def events(self, *kinds: str) -> Iterator[dict[str, Any]]:
        return self._journal.events(*kinds)

    # -- snapshots -------------------------------------------------------------------------------

    def snapshot(self, experiment: str, iteration: str) -> list[str] | None:
        try:
            return self._records.snapshot(self._records.snapshot_path(experiment, iteration))
        except FileNotFoundError:
            return None
        except Damaged as error:
            if (files := self._opened(experiment).get(iteration)) is None:
                raise CorruptArtifact(
                    f"{error}, and the journal does not know it: delete it, and the iteration is opened anew"
                ) from None
            return files

    def take_snapshot(self, experiment: str, iteration: str, files: list[str]) -> None:
        files = sorted(files)
        # First the journal: it is what a lost or damaged snapshot is read from.
        self.journal("opened", experiment=experiment, iteration=iteration, files=files)
        self._journal.sync()
        self._put_snapshot(experiment, iteration, files)

    def restore_snapshots(self, experiment: str) -> None:
        folder = self.root / "pointers" / experiment
        computed = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        known = self.iterations(experiment)
        lost = sorted(set(computed) - {*known, "base"})
        if lost:
            opened = self._opened(experiment)
            for key in lost:
                if key in opened:
                    self.journal("restored", experiment=experiment, iteration=key, reason=["its snapshot was gone"])
                    self._put_snapshot(experiment, key, opened[key])
        for key in known:
            damage = self._records.damage(self._records.snapshot_path(experiment, key))
            if damage and (files := self.snapshot(experiment, key)) is not None:
                self._put_snapshot(experiment, key, files)

    def _opened(self, experiment: str) -> dict[str, list[str]]:
        """Iteration -> names of its landed files, as the journal has it."""
        events = self.events("opened")
        return {event["iteration"]: event["files"] for event in events if event.get("experiment") == experiment}

    def _put_snapshot(self, experiment: str, iteration: str, files: list[str]) -> None:
        self._records.put(self._records.snapshot_path(experiment, iteration), {"files": files})

    # -- writing ---------------------------------------------------------------------------------

    def journal(self, event: str, **fields: Any) -> None:
        self._journal.note(event, **fields)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        parent = self.root / "temporary"
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

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
        self._records.put(self._records.trace_path(manifest.stage, manifest.fingerprint), asdict(manifest))
        shutil.rmtree(self.unfinished(manifest.fingerprint), ignore_errors=True)
        return manifest

    def unfinished(self, fingerprint: str) -> Path:
        return self.root / "unfinished" / fingerprint

    def point(self, experiment: str, iteration: str, manifest: Manifest) -> None:
        self._records.put(self._records.pointer_path(experiment, iteration, manifest.stage), asdict(manifest))

    def forget(self, manifest: Manifest) -> None:
        self._records.trace_path(manifest.stage, manifest.fingerprint).unlink(missing_ok=True)

    def quarantine(self, manifest: Manifest, reason: str) -> None:
        if not self._records.set_aside(self.open(manifest), stage=manifest.stage, reason=[reason]):
            self.journal("lost", stage=manifest.stage, reason=[reason])

    # -- rows and vectors, and what nothing needs --------------------------------------------------

    def rows(self, kind: str, context: dict[str, Any]) -> RowTable:
        return RowTable(self.root / "rows", kind, context)

    def vectors(self, name: str) -> Any:
        return self._vector_table(self.root / "lancedb", name)

    def remove_unneeded(self, kept: Kept, *, really: bool) -> Collected:
        return collect.remove_unneeded(self._records, self.vectors, kept, really=really)
