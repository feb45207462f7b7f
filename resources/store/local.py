"""The artifact store: content-addressed, verified on read, never half-written.

    objects/<data version>/        the files of one artifact
    traces/<stage>/<fingerprint>.json   manifest: this fingerprint gave that artifact
    pointers/<experiment>/<iteration>/<stage>.json   what is there now, for `status` and for causes
    snapshots/<experiment>/<iteration>.json          the landed files an iteration uses
    unfinished/<fingerprint>/      what a long computation keeps until its artifact is committed
    quarantine/                    artifacts, manifests and snapshots that were not what was written
    locks/, temporary/, journal.jsonl

A commit writes to temporary/, syncs, renames into objects/, and only then writes the trace, then
the pointer: a kill in between leaves an unreferenced folder, never a wrong reference. Traces, pointers
and snapshots are sealed (resources/store/sealed.py): one that was damaged, edited or put in another's place
counts as absent, and is set aside when the file is next written.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from resources.store.digest import digest_file, digest_json, list_files, sync
from resources.store.locks import Locks
from resources.store.manifest import CorruptArtifact, Manifest, now
from resources.store.sealed import Damaged, read_sealed, write_sealed
from resources.store.stat_cache import Remembered

STORE_VERSION = 2  # 2: traces, pointers and snapshots are sealed


class LocalStore:
    """One folder on one file system. Safe for several processes: see `locks`."""

    def __init__(self, root: Path):
        self.root = root
        self.locks = Locks(root / "locks")
        # A plan asks for those of every iteration, and a run makes many plans.
        self._manifests = Remembered(self._read_manifest)
        self._snapshots = Remembered(self._read_snapshot)
        self._codes: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}

    # -- reading ---------------------------------------------------------------------------------

    def lookup(self, stage: str, fingerprint: str) -> Manifest | None:
        """The manifest that this fingerprint gave, if its files are there; content is not read."""
        manifest = self.manifest(self._trace(stage, fingerprint))
        if manifest is None or manifest.fingerprint != fingerprint:
            return None
        return manifest if manifest.collected or self.complete(manifest) else None

    def manifest(self, path: Path) -> Manifest | None:
        """What a trace or pointer says; None if there is none, or none that was written as it is."""
        try:
            return self._manifests(path)
        except (OSError, Damaged):
            return None

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
        return self.manifest(self._pointer(experiment, iteration, stage))

    def unreadable(self, experiment: str, iteration: str, stage: str) -> bool:
        """Whether something is pointed at that `pointed` cannot tell: a damaged manifest, or one of a store of
        another version."""
        return self._damage(self._pointer(experiment, iteration, stage)) is not None

    def iterations(self, experiment: str) -> list[str]:
        """Keys of the iterations that were opened, in order."""
        return sorted(path.stem for path in (self.root / "snapshots" / experiment).glob("*.json"))

    def experiments(self) -> list[str]:
        """Names of the experiments that have opened an iteration or run a stage in this store."""
        folders = [self.root / kind for kind in ("snapshots", "pointers")]
        return sorted({path.name for folder in folders if folder.is_dir() for path in folder.iterdir()})

    def snapshot(self, experiment: str, iteration: str) -> list[str] | None:
        """Names of the landed files that the iteration uses; None if it was not opened yet.

        A damaged snapshot is read from the journal. Raises CorruptArtifact if it is not there either.
        """
        path = self._snapshot(experiment, iteration)
        try:
            return self._snapshots(path)
        except FileNotFoundError:
            return None
        except Damaged as error:
            if (files := self.opened(experiment).get(iteration)) is None:
                raise CorruptArtifact(
                    f"{error}, and the journal does not know it: delete it, and the iteration is opened anew"
                ) from None
            return files

    def opened(self, experiment: str) -> dict[str, list[str]]:
        """Iteration -> names of its landed files, as the journal has it."""
        events = self.events("opened")
        return {event["iteration"]: event["files"] for event in events if event.get("experiment") == experiment}

    def events(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """The journal's events, or those of these kinds, oldest first; torn lines are passed over."""
        try:
            file = (self.root / "journal.jsonl").open("rb")
        except FileNotFoundError:
            return
        wanted = [f'"event": "{kind}"'.encode() for kind in kinds]
        with file:
            for line in file:
                if not wanted or any(kind in line for kind in wanted):
                    try:
                        event = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(event, dict) and "event" in event:
                        yield event

    # -- writing ---------------------------------------------------------------------------------

    def take_snapshot(self, experiment: str, iteration: str, files: list[str]) -> None:
        files = sorted(files)
        # First the journal: it is what a lost or damaged snapshot is read from.
        self.journal("opened", experiment=experiment, iteration=iteration, files=files)
        sync(self.root / "journal.jsonl")
        self._put(self._snapshot(experiment, iteration), {"files": files})

    def restore_snapshots(self, experiment: str) -> None:
        """Write again, from the journal, the snapshots that are damaged, and those that are gone although
        something was computed for their iteration. Raises CorruptArtifact for one that it does not know."""
        folder = self.root / "pointers" / experiment
        computed = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        known = self.iterations(experiment)
        lost = sorted(set(computed) - {*known, "base"})
        if lost:
            opened = self.opened(experiment)
            for key in lost:
                if key in opened:
                    self.journal("restored", experiment=experiment, iteration=key, reason=["its snapshot was gone"])
                    self._put(self._snapshot(experiment, key), {"files": opened[key]})
        for key in known:
            path = self._snapshot(experiment, key)
            if self._damage(path) and (files := self.snapshot(experiment, key)) is not None:
                self._put(path, {"files": files})

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
        self._put(self._trace(manifest.stage, manifest.fingerprint), asdict(manifest))
        shutil.rmtree(self.unfinished(manifest.fingerprint), ignore_errors=True)
        return manifest

    def unfinished(self, fingerprint: str) -> Path:
        return self.root / "unfinished" / fingerprint

    def point(self, experiment: str, iteration: str, manifest: Manifest) -> None:
        """Record that `manifest` is what its stage of this iteration is now."""
        self._put(self._pointer(experiment, iteration, manifest.stage), asdict(manifest))

    def forget(self, manifest: Manifest) -> None:
        """Drop the trace: its stage is computed again when next asked for."""
        self._trace(manifest.stage, manifest.fingerprint).unlink(missing_ok=True)

    def mark_collected(self, manifest: Manifest) -> None:
        """Note, in the trace and in every pointer, that the files of an artifact were removed."""
        gone = asdict(replace(manifest, collected=True))
        self._put(self._trace(manifest.stage, manifest.fingerprint), gone)
        for path in (self.root / "pointers").glob(f"*/*/{manifest.stage}.json"):
            pointed = self.manifest(path)
            if pointed is not None and pointed.fingerprint == manifest.fingerprint:
                self._put(path, gone)

    def quarantine(self, manifest: Manifest, reason: str) -> None:
        """Move a damaged artifact out of the way, so that it is recomputed and can be looked at."""
        if not self._set_aside(self.folder(manifest), stage=manifest.stage, reason=[reason]):
            self.journal("lost", stage=manifest.stage, reason=[reason])

    def _set_aside(self, path: Path, **noted: Any) -> bool:
        """Move a file or folder to quarantine and note it in the journal; False if it is not there."""
        target = self.root / "quarantine" / f"{path.name}-{time.time_ns()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.replace(target)
        except FileNotFoundError:
            return False
        self.journal("quarantined", **noted, moved_to=target.name)
        return True

    def _put(self, path: Path, content: dict[str, Any]) -> None:
        """Write a trace, pointer or snapshot; a damaged one that is in its place is kept in quarantine."""
        if damage := self._damage(path):
            self._set_aside(path, file=self._about(path), reason=[damage])
        write_sealed(path, self._about(path), {"version": STORE_VERSION, **content})

    def _damage(self, path: Path) -> str | None:
        """How a trace, pointer or snapshot is not what was written; None if it is, or is not there."""
        read = self._snapshots if self._about(path).startswith("snapshots/") else self._manifests
        try:
            read(path)
        except FileNotFoundError:
            return None
        except Damaged as error:
            return str(error)
        return None

    def _read_manifest(self, path: Path) -> Manifest:
        content = read_sealed(path, self._about(path), check_since=STORE_VERSION)
        try:
            manifest = Manifest(**{key: value for key, value in content.items() if key != "version"})
            # The largest part by far, and the same in every iteration.
            return replace(manifest, code=self._codes.setdefault(tuple(manifest.code.items()), manifest.code))
        except (TypeError, AttributeError) as error:
            raise Damaged(f"{path}: not a manifest ({error})") from None

    def _read_snapshot(self, path: Path) -> list[str]:
        files = read_sealed(path, self._about(path), check_since=STORE_VERSION).get("files")
        if not isinstance(files, list):
            raise Damaged(f"{path}: not a snapshot")
        return files

    def journal(self, event: str, **fields: Any) -> None:
        """Append one line; a line is one write, so writers do not mix."""
        line = json.dumps({"time": now(), "event": event, **fields}, ensure_ascii=False) + "\n"
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "journal.jsonl").open("ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                # After a line that a full disk or a power cut left torn, a new one begins.
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode("utf-8", "backslashreplace"))

    def started(self, experiment: str, iteration: str) -> bool:
        """Whether anything of the iteration was ever computed or reused."""
        return any((self.root / "pointers" / experiment / iteration).glob("*.json"))

    def _trace(self, stage: str, fingerprint: str) -> Path:
        return self.root / "traces" / stage / f"{fingerprint}.json"

    def _pointer(self, experiment: str, iteration: str, stage: str) -> Path:
        return self.root / "pointers" / experiment / iteration / f"{stage}.json"

    def _snapshot(self, experiment: str, iteration: str) -> Path:
        return self.root / "snapshots" / experiment / f"{iteration}.json"

    def _about(self, path: Path) -> str:
        """What a sealed file is of: its place in the store."""
        return path.relative_to(self.root).as_posix()
