"""The sealed files of a local store: traces, pointers and snapshots, and where each lies.

One that was damaged, edited or put in another's place counts as absent. It stays where it is, so that reading is
free of side effects, until its successor is written: then it is kept in quarantine.
"""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from resources.store.journal import Journal
from resources.store.manifest import Manifest
from resources.store.sealed import Damaged, read_sealed, write_sealed
from resources.store.stat_cache import Remembered

STORE_VERSION = 2  # 2: traces, pointers and snapshots are sealed


class Records:
    """The sealed files below the root of one store."""

    def __init__(self, root: Path, journal: Journal):
        self.root, self._journal = root, journal
        # A plan asks for those of every iteration, and a run makes many plans.
        self._manifests = Remembered(self._read_manifest)
        self._snapshots = Remembered(self._read_snapshot)
        self._codes: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}

    # -- where they lie --------------------------------------------------------------------------

    def trace_path(self, stage: str, fingerprint: str) -> Path:
        return self.root / "traces" / stage / f"{fingerprint}.json"

    def pointer_path(self, experiment: str, iteration: str, stage: str) -> Path:
        return self.root / "pointers" / experiment / iteration / f"{stage}.json"

    def snapshot_path(self, experiment: str, iteration: str) -> Path:
        return self.root / "snapshots" / experiment / f"{iteration}.json"

    def place(self, path: Path) -> str:
        """What a sealed file is of: its place in the store."""
        return path.relative_to(self.root).as_posix()

    # -- reading ---------------------------------------------------------------------------------

    def manifest(self, path: Path) -> Manifest | None:
        """What a trace or pointer says; None if there is none, or none that was written as it is."""
        try:
            return self._manifests(path)
        except (OSError, Damaged):
            return None

    def snapshot(self, path: Path) -> list[str]:
        """Names of the files in a snapshot. Raises FileNotFoundError, Damaged."""
        return self._snapshots(path)

    def damage(self, path: Path) -> str | None:
        """How a trace, pointer or snapshot is not what was written; None if it is, or is not there."""
        read = self._snapshots if self.place(path).startswith("snapshots/") else self._manifests
        try:
            read(path)
        except FileNotFoundError:
            return None
        except Damaged as error:
            return str(error)
        return None

    # -- writing ---------------------------------------------------------------------------------

    def put(self, path: Path, content: dict[str, Any]) -> None:
        """Write a trace, pointer or snapshot; a damaged one that is in its place is kept in quarantine."""
        if damage := self.damage(path):
            self.set_aside(path, file=self.place(path), reason=[damage])
        write_sealed(path, self.place(path), {"version": STORE_VERSION, **content})

    def mark_collected(self, manifest: Manifest) -> None:
        """Note, in the trace and in every pointer, that the files of an artifact were removed."""
        gone = asdict(replace(manifest, collected=True))
        self.put(self.trace_path(manifest.stage, manifest.fingerprint), gone)
        for path in (self.root / "pointers").glob(f"*/*/{manifest.stage}.json"):
            pointed = self.manifest(path)
            if pointed is not None and pointed.fingerprint == manifest.fingerprint:
                self.put(path, gone)

    def set_aside(self, path: Path, **noted: Any) -> bool:
        """Move a file or folder to quarantine and note it in the journal; False if it is not there."""
        target = self.root / "quarantine" / f"{path.name}-{time.time_ns()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.replace(target)
        except FileNotFoundError:
            return False
        self._journal.note("quarantined", **noted, moved_to=target.name)
        return True

    # -- what they say ---------------------------------------------------------------------------

    def _read_manifest(self, path: Path) -> Manifest:
        content = read_sealed(path, self.place(path), check_since=STORE_VERSION)
        try:
            manifest = Manifest(**{key: value for key, value in content.items() if key != "version"})
            # The largest part by far, and the same in every iteration.
            return replace(manifest, code=self._codes.setdefault(tuple(manifest.code.items()), manifest.code))
        except (TypeError, AttributeError) as error:
            raise Damaged(f"{path}: not a manifest ({error})") from None

    def _read_snapshot(self, path: Path) -> list[str]:
        files = read_sealed(path, self.place(path), check_since=STORE_VERSION).get("files")
        if not isinstance(files, list):
            raise Damaged(f"{path}: not a snapshot")
        return files
