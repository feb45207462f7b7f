"""The sealed files of a store: traces, pointers and snapshots, and where each lies.

    traces/<stage>/<fingerprint>.json   manifest: this fingerprint gave that artifact
    pointers/<experiment>/<iteration>/<stage>.json   what is there now, for `status` and for causes
    snapshots/<experiment>/<iteration>.json          the landed files an iteration uses

One that was damaged, edited or put in another's place counts as absent. It stays where it is, so that reading is
free of side effects, until its successor is written: then it is kept in quarantine.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any, Protocol, TypeVar

from resources.store.journal import Events
from resources.store.manifest import Manifest
from resources.store.sealed import Damaged, seal, unseal

STORE_VERSION = 2  # 2: traces, pointers and snapshots are sealed

T = TypeVar("T")


class Changed(Exception):
    """Another process has written what was to be replaced, since it was looked at."""


class Files(Protocol):
    """Small files by their place in a store, such as `traces/gate/<fingerprint>.json`."""

    def read(self, place: str, parse: Callable[[bytes], T]) -> T:
        """What `parse` makes of a file; it may be remembered as long as the file is the same. Raises
        FileNotFoundError, and what `parse` raises."""
        ...

    def write(self, place: str, text: str) -> None:
        """Replace a file at once. May raise Changed if it is not what this process read last."""
        ...

    def move(self, place: str, target: str) -> bool:
        """Move a file, or all below a folder; False if nothing is there."""
        ...

    def remove(self, place: str) -> None:
        """Remove a file, if it is there."""
        ...

    def names(self, folder: str) -> list[str]:
        """Of the files and folders in a folder, sorted; none if there is no such folder."""
        ...

    def where(self, place: str) -> str:
        """A place as people look for it: its path, or its address."""
        ...


def trace_place(stage: str, fingerprint: str) -> str:
    return f"traces/{stage}/{fingerprint}.json"


def pointer_place(experiment: str, iteration: str, stage: str) -> str:
    return f"pointers/{experiment}/{iteration}/{stage}.json"


def snapshot_place(experiment: str, iteration: str) -> str:
    return f"snapshots/{experiment}/{iteration}.json"


class Records:
    """The sealed files of one store. What a sealed file is of is its place in the store."""

    def __init__(self, files: Files, journal: Events):
        self.files, self._journal = files, journal
        self._codes: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}

    # -- reading ---------------------------------------------------------------------------------

    def manifest(self, place: str) -> Manifest | None:
        """What a trace or pointer says; None if there is none, or none that was written as it is."""
        try:
            return self._manifest(place)
        except (OSError, Damaged):
            return None

    def snapshot(self, place: str) -> list[str]:
        """Names of the files in a snapshot. Raises FileNotFoundError, Damaged."""
        return self.files.read(place, lambda content: self._as_snapshot(place, content))

    def damage(self, place: str) -> str | None:
        """How a trace, pointer or snapshot is not what was written; None if it is, or is not there."""
        try:
            self.snapshot(place) if place.startswith("snapshots/") else self._manifest(place)
        except FileNotFoundError:
            return None
        except Damaged as error:
            return str(error)
        return None

    # -- writing ---------------------------------------------------------------------------------

    def put(self, place: str, content: dict[str, Any]) -> None:
        """Write a trace, pointer or snapshot; a damaged one that is in its place is kept in quarantine."""
        sealed = seal(place, {"version": STORE_VERSION, **content})
        while True:
            if damage := self.damage(place):
                self.set_aside(place, file=place, reason=[damage])
            try:
                return self.files.write(place, sealed)
            except Changed:
                continue  # what is there now was not looked at

    def mark_collected(self, manifests: Iterable[Manifest]) -> None:
        """Note, in their traces and in every pointer to them, that the files of artifacts were removed."""
        gone = {(m.stage, m.fingerprint): asdict(replace(m, collected=True)) for m in manifests}
        stages = {stage for stage, _ in gone}
        for experiment in self.files.names("pointers") if gone else ():
            for iteration in self.files.names(f"pointers/{experiment}"):
                for stage in stages:
                    place = pointer_place(experiment, iteration, stage)
                    pointed = self.manifest(place)
                    if pointed is not None and (stage, pointed.fingerprint) in gone:
                        self.put(place, gone[stage, pointed.fingerprint])
        # Last: who was killed before it finds them, and marks the pointers that are left.
        for (stage, fingerprint), content in gone.items():
            self.put(trace_place(stage, fingerprint), content)

    def set_aside(self, place: str, **noted: Any) -> bool:
        """Move a file or folder to quarantine and note it in the journal; False if it is not there."""
        target = f"{place.rpartition('/')[2]}-{time.time_ns()}"
        if not self.files.move(place, f"quarantine/{target}"):
            return False
        self._journal.note("quarantined", **noted, moved_to=target)
        return True

    # -- what they say ---------------------------------------------------------------------------

    def _manifest(self, place: str) -> Manifest:
        return self.files.read(place, lambda content: self._as_manifest(place, content))

    def _as_manifest(self, place: str, content: bytes) -> Manifest:
        where = self.files.where(place)
        said = unseal(content, place, where, check_since=STORE_VERSION)
        try:
            manifest = Manifest(**{key: value for key, value in said.items() if key != "version"})
            # The largest part by far, and the same in every iteration.
            return replace(manifest, code=self._codes.setdefault(tuple(manifest.code.items()), manifest.code))
        except (TypeError, AttributeError) as error:
            raise Damaged(f"{where}: not a manifest ({error})") from None

    def _as_snapshot(self, place: str, content: bytes) -> list[str]:
        where = self.files.where(place)
        files = unseal(content, place, where, check_since=STORE_VERSION).get("files")
        if not isinstance(files, list):
            raise Damaged(f"{where}: not a snapshot")
        return files
