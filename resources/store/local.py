"""The store in a folder of one file system: content-addressed, verified on read, never half-written.

    objects/<data version>/        the files of one artifact
    traces/<stage>/<fingerprint>.json   manifest: this fingerprint gave that artifact
    pointers/<experiment>/<iteration>/<stage>.json   what is there now, for `status` and for causes
    snapshots/<experiment>/<iteration>.json          the landed files an iteration uses
    unfinished/<fingerprint>/      what a long computation keeps until its artifact is committed
    quarantine/                    artifacts, manifests and snapshots that were not what was written
    locks/, temporary/, journal.jsonl

A commit writes to temporary/, syncs, renames into objects/, and only then writes the trace, then
the pointer: a kill in between leaves an unreferenced folder, never a wrong reference. Traces, pointers
and snapshots are sealed (resources/store/records.py).
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from resources.store.digest import digest_file, digest_json, list_files, sync
from resources.store.journal import Journal
from resources.store.locks import Locks
from resources.store.manifest import CorruptArtifact, Manifest
from resources.store.records import Records
from resources.store.sealed import Damaged


class LocalStore:
    """One folder on one file system. Safe for several processes: see `locks`."""

    def __init__(self, root: Path):
        self.root = root
        self.locks = Locks(root / "locks")
        self._journal = Journal(root / "journal.jsonl")
        self._records = Records(root, self._journal)

    # -- reading ---------------------------------------------------------------------------------

    def lookup(self, stage: str, fingerprint: str) -> Manifest | None:
        """The manifest that this fingerprint gave, if its files are there; content is not read."""
        manifest = self._records.manifest(self._records.trace_path(stage, fingerprint))
        if manifest is None or manifest.fingerprint != fingerprint:
            return None
        return manifest if manifest.collected or self.complete(manifest) else None

    def manifest(self, path: Path) -> Manifest | None:
        """What a trace or pointer says; None if there is none, or none that was written as it is."""
        return self._records.manifest(path)

    def complete(self, manifest: Manifest) -> bool:
        """Whether all files of an artifact are there; their content is not read."""
        folder = self.folder(manifest)
        return all((folder / name).is_file() for name in manifest.files)

    def folder(self, manifest: Manifest) -> Path:
        return self.root / "objects" / manifest.data_version

    def verify(self, manifest: Manifest) -> Path:
        """Digest every file of the artifact; returns its folder. Raises CorruptArtifact."""
        folder = self.folder(manifest)
        for name, expected in manifest.files.items():
            path = folder / name
            if not path.is_file() or digest_file(path) != expected:
                raise CorruptArtifact(f"{manifest.stage}: {path} does not match its manifest")
        return folder

    def pointed(self, experiment: str, iteration: str, stage: str) -> Manifest | None:
        """What this stage of this iteration last was, fresh or not."""
        return self._records.manifest(self._records.pointer_path(experiment, iteration, stage))

    def unreadable(self, experiment: str, iteration: str, stage: str) -> bool:
        """Whether something is pointed at that `pointed` cannot tell: a damaged manifest, or one of a store of
        another version."""
        return self._records.damage(self._records.pointer_path(experiment, iteration, stage)) is not None

    def iterations(self, experiment: str) -> list[str]:
        """Keys of the iterations that were opened, in order."""
        return sorted(path.stem for path in (self.root / "snapshots" / experiment).glob("*.json"))

    def experiments(self) -> list[str]:
        """Names of the experiments that have opened an iteration or run a stage in this store."""
        folders = [self.root / kind for kind in ("snapshots", "pointers")]
        return sorted({path.name for folder in folders if folder.is_dir() for path in folder.iterdir()})

    def started(self, experiment: str, iteration: str) -> bool:
        """Whether anything of the iteration was ever computed or reused."""
        return any((self.root / "pointers" / experiment / iteration).glob("*.json"))

    def events(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """The journal's events, or those of these kinds, oldest first; torn lines are passed over."""
        return self._journal.events(*kinds)

    # -- snapshots -------------------------------------------------------------------------------

    def snapshot(self, experiment: str, iteration: str) -> list[str] | None:
        """Names of the landed files that the iteration uses; None if it was not opened yet.

        A damaged snapshot is read from the journal. Raises CorruptArtifact if it is not there either.
        """
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
        """Write again, from the journal, the snapshots that are damaged, and those that are gone although
        something was computed for their iteration. Raises CorruptArtifact for one that it does not know."""
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
        """Append one event."""
        self._journal.note(event, **fields)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """An empty folder on the store's file system; removed on the way out, whatever happened."""
        parent = self.root / "temporary"
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, workspace: Path, **known: Any) -> Manifest:
        """Make the files of `workspace` an artifact; `known` are the other fields of its Manifest."""
        files = {str(p.relative_to(workspace)): digest_file(p) for p in list_files(workspace)}
        manifest = Manifest(files=files, data_version=digest_json(files), **known)
        target = self.folder(manifest)
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
        """Record that `manifest` is what its stage of this iteration is now."""
        self._records.put(self._records.pointer_path(experiment, iteration, manifest.stage), asdict(manifest))

    def forget(self, manifest: Manifest) -> None:
        """Drop the trace: its stage is computed again when next asked for."""
        self._records.trace_path(manifest.stage, manifest.fingerprint).unlink(missing_ok=True)

    def mark_collected(self, manifest: Manifest) -> None:
        self._records.mark_collected(manifest)

    def quarantine(self, manifest: Manifest, reason: str) -> None:
        """Move a damaged artifact out of the way, so that it is recomputed and can be looked at."""
        if not self._records.set_aside(self.folder(manifest), stage=manifest.stage, reason=[reason]):
            self.journal("lost", stage=manifest.stage, reason=[reason])
