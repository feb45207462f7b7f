"""The artifact store: content-addressed, verified on read, never half-written.

    objects/<data version>/        the files of one artifact
    traces/<stage>/<fingerprint>.json   manifest: this fingerprint gave that artifact
    pointers/<experiment>/<iteration>/<stage>.json   what is there now, for `status` and for causes
    snapshots/<experiment>/<iteration>.json          the landed files an iteration uses
    quarantine/                    artifacts that no longer matched their manifest
    locks/, temporary/, journal.jsonl

A commit writes to temporary/, syncs, renames into objects/, and only then writes the trace, then
the pointer: a kill in between leaves an unreferenced folder, never a wrong reference.
"""

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from resources.digest import digest_file, digest_json, list_files, write_atomically

SNAPSHOT_VERSION = 1
DAGSTER_LOCK = "dagster-instance"  # held while Dagster's event log is brought in line with the store
GC_LOCK = "gc"
IN_USE = "in-use"  # shared by whoever computes something; gc takes it for itself
REMEMBERED: dict[str, tuple[tuple[int, ...], "Manifest | None"]] = {}
CODES: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
HELD: dict[Path, dict[str, IO[str]]] = {}  # store -> what `hold` took in this process


class CorruptArtifact(Exception):
    """An artifact's files do not match its manifest; the message names the file."""


@dataclass(frozen=True)
class Manifest:
    """What is known of one artifact.

    files: name -> sha256, all of the artifact's files, verified on read.
    data_version: digest of `files`; equal content has an equal data version.
    code: definition -> digest, of all the code that could run (engine/code.py).
    facts: counts and scores for people; they are not part of the identity.
    work: answers, grades, embeddings, scores -> {"reused": rows, "computed": rows}; steps -> number.
    row_tables: files of the row store that it read or wrote; `gc` keeps them.
    iteration: which one computed it; others may have reused it since.
    collected: gc removed the files; what is known of them stays, so nothing below is stale.
    seconds: wall-clock time of the computation that made it.
    """

    stage: str
    fingerprint: str
    data_version: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    identities: dict[str, str]
    libraries: dict[str, str]
    code: dict[str, str]
    files: dict[str, str]
    facts: dict[str, Any]
    work: dict[str, Any]
    row_tables: list[str]
    iteration: str
    seconds: float
    run_id: str
    created: str
    collected: bool = False


class ArtifactStore:
    """One folder on one file system. Safe for several processes: see `lock`."""

    def __init__(self, root: Path):
        self.root = root

    # -- reading ---------------------------------------------------------------------------------

    def lookup(self, stage: str, fingerprint: str) -> Manifest | None:
        """The manifest that this fingerprint gave, if its files are there; content is not read."""
        manifest = remembered(self.root / "traces" / stage / f"{fingerprint}.json")
        if manifest is None or manifest.fingerprint != fingerprint:
            return None
        return manifest if manifest.collected or self.complete(manifest) else None

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
        return read_manifest(self._pointer(experiment, iteration, stage))

    def iterations(self, experiment: str) -> list[str]:
        """Keys of the iterations that were opened, in order."""
        return sorted(path.stem for path in (self.root / "snapshots" / experiment).glob("*.json"))

    def experiments(self) -> list[str]:
        """Names of the experiments that have opened an iteration in this store."""
        folder = self.root / "snapshots"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def snapshot(self, experiment: str, iteration: str) -> list[str] | None:
        """Names of the landed files that the iteration uses; None if it was not opened yet."""
        path = self.root / "snapshots" / experiment / f"{iteration}.json"
        return json.loads(path.read_text())["files"] if path.is_file() else None

    # -- writing ---------------------------------------------------------------------------------

    def take_snapshot(self, experiment: str, iteration: str, files: list[str]) -> None:
        content = {"version": SNAPSHOT_VERSION, "files": sorted(files)}
        write_json(self.root / "snapshots" / experiment / f"{iteration}.json", content)

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
            workspace.replace(target)
            sync(target.parent)
        write_json(self.root / "traces" / manifest.stage / f"{manifest.fingerprint}.json", asdict(manifest))
        return manifest

    def point(self, experiment: str, iteration: str, manifest: Manifest) -> None:
        """Record that `manifest` is what its stage of this iteration is now."""
        write_json(self._pointer(experiment, iteration, manifest.stage), asdict(manifest))

    def forget(self, manifest: Manifest) -> None:
        """Drop the trace: its stage is computed again when next asked for."""
        (self.root / "traces" / manifest.stage / f"{manifest.fingerprint}.json").unlink(missing_ok=True)

    def mark_collected(self, manifest: Manifest) -> None:
        """Note, in the trace and in every pointer, that the files of an artifact were removed."""
        gone = asdict(replace(manifest, collected=True))
        write_json(self.root / "traces" / manifest.stage / f"{manifest.fingerprint}.json", gone)
        for path in (self.root / "pointers").glob(f"*/*/{manifest.stage}.json"):
            pointed = read_manifest(path)
            if pointed is not None and pointed.fingerprint == manifest.fingerprint:
                write_json(path, gone)

    def quarantine(self, manifest: Manifest, reason: str) -> None:
        """Move a damaged artifact out of the way, so that it is recomputed and can be looked at."""
        target = self.root / "quarantine" / f"{manifest.data_version}-{time.time_ns()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.folder(manifest).replace(target)
        except FileNotFoundError:
            self.journal("lost", stage=manifest.stage, reason=[reason])
        else:
            self.journal("quarantined", stage=manifest.stage, reason=[reason], moved_to=target.name)

    def journal(self, event: str, **fields: Any) -> None:
        """Append one line; a line is one write, so writers do not mix."""
        line = json.dumps({"time": now(), "event": event, **fields}, ensure_ascii=False) + "\n"
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "journal.jsonl").open("a", encoding="utf-8") as file:
            file.write(line)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """One holder at a time; others wait. The kernel lets go of it when the holder dies."""
        with ExitStack() as held:
            if name not in (GC_LOCK, DAGSTER_LOCK):
                held.enter_context(self._take(IN_USE, fcntl.LOCK_SH))
            held.enter_context(self._take(name, fcntl.LOCK_EX))
            yield

    def hold(self, name: str) -> None:
        """Hold a lock until this process ends or holds another one here."""
        held = HELD.setdefault(self.root, {})
        if name not in held:
            taken = {name: self._take(name, fcntl.LOCK_EX)}
            taken[IN_USE] = held.pop(IN_USE) if IN_USE in held else self._take(IN_USE, fcntl.LOCK_SH)
            for file in held.values():
                file.close()
            HELD[self.root] = taken

    def held(self, name: str) -> bool:
        """Whether some process holds the lock."""
        path = self.root / "locks" / name
        if not path.exists():
            return False
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _take(self, name: str, how: int) -> IO[str]:
        """The open file of a lock that this process now has. Raises BlockingIOError with LOCK_NB in `how`."""
        path = self.root / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = path.open("w")
            try:
                fcntl.flock(file, how)
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()  # gc removed it while we waited: whoever comes next would lock another file

    def started(self, experiment: str, iteration: str) -> bool:
        """Whether anything of the iteration was ever computed or reused."""
        return any((self.root / "pointers" / experiment / iteration).glob("*.json"))

    @contextmanager
    def all_stages_idle(self) -> Iterator[None]:
        """Keep every stage from beginning. Raises RuntimeError if a run is going on. Files of locks that
        nobody holds are removed: there is one for each stage of each iteration."""
        try:
            idle = self._take(IN_USE, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            names = sorted(path.name for path in (self.root / "locks").glob("*"))
            busy = next((n for n in names if n not in (GC_LOCK, DAGSTER_LOCK, IN_USE) and self.held(n)), "a stage")
            raise RuntimeError(f"a run is going on ({busy} is being computed): try again when it has ended") from None
        with idle:
            for path in (self.root / "locks").glob("*"):
                if path.name not in (GC_LOCK, DAGSTER_LOCK, IN_USE):
                    with path.open("w") as file, suppress(BlockingIOError):
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()
            yield

    def _pointer(self, experiment: str, iteration: str, stage: str) -> Path:
        return self.root / "pointers" / experiment / iteration / f"{stage}.json"


def read_manifest(path: Path) -> Manifest | None:
    """None if there is none or it is not a manifest of this version: then it is recomputed."""
    try:
        return Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def remembered(path: Path) -> Manifest | None:
    """As `read_manifest`, and read again only if the file changed: inode, size, mtime and ctime in ns, as in
    FileDigests. A plan reads the manifests of every iteration, and a run makes many plans."""
    try:
        stat = path.stat()
    except OSError:
        return None
    seen = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    known = REMEMBERED.get(str(path))
    if known is None or known[0] != seen:
        manifest = read_manifest(path)
        if manifest is not None:
            # The largest part by far, and the same in every iteration.
            manifest = replace(manifest, code=CODES.setdefault(tuple(manifest.code.items()), manifest.code))
        known = REMEMBERED[str(path)] = (seen, manifest)
    return known[1]


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old or the new content, also after a power cut."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False))


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
