"""What every store does in the same way, wherever its files lie: manifests, pointers, snapshots and the journal."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from resources.store.journal import Events
from resources.store.manifest import CorruptArtifact, Manifest
from resources.store.records import Records, pointer_place, snapshot_place, trace_place
from resources.store.sealed import Damaged


class RecordedStore(ABC):
    """The part of a Store (resources/store/store.py, which says what each method does) that is sealed files, and the
    journal. An artifact's files are below `objects/<data version>`."""

    def __init__(self, records: Records, journal: Events):
        self._records, self._journal = records, journal

    @abstractmethod
    def complete(self, manifest: Manifest) -> bool: ...

    # -- manifests -------------------------------------------------------------------------------

    def lookup(self, stage: str, fingerprint: str) -> Manifest | None:
        manifest = self._records.manifest(trace_place(stage, fingerprint))
        if manifest is None or manifest.fingerprint != fingerprint:
            return None
        return manifest if manifest.collected or self.complete(manifest) else None

    def pointed(self, experiment: str, iteration: str, stage: str) -> Manifest | None:
        return self._records.manifest(pointer_place(experiment, iteration, stage))

    def unreadable(self, experiment: str, iteration: str, stage: str) -> bool:
        return self._records.damage(pointer_place(experiment, iteration, stage)) is not None

    def point(self, experiment: str, iteration: str, manifest: Manifest) -> None:
        self._records.put(pointer_place(experiment, iteration, manifest.stage), asdict(manifest))

    def forget(self, manifest: Manifest) -> None:
        self._records.files.remove(trace_place(manifest.stage, manifest.fingerprint))

    def quarantine(self, manifest: Manifest, reason: str) -> None:
        place = f"objects/{manifest.data_version}"
        if not self._records.set_aside(place, stage=manifest.stage, reason=[reason]):
            self.journal("lost", stage=manifest.stage, reason=[reason])

    def _trace(self, manifest: Manifest) -> None:
        """Write the manifest under the fingerprint that gave it, once its artifact's files are there."""
        self._records.put(trace_place(manifest.stage, manifest.fingerprint), asdict(manifest))

    # -- experiments and iterations --------------------------------------------------------------

    def iterations(self, experiment: str) -> list[str]:
        names = self._records.files.names(f"snapshots/{experiment}")
        return [name.removesuffix(".json") for name in names if name.endswith(".json")]

    def experiments(self) -> list[str]:
        return sorted({name for kind in ("snapshots", "pointers") for name in self._records.files.names(kind)})

    def started(self, experiment: str, iteration: str) -> bool:
        return bool(self._records.files.names(f"pointers/{experiment}/{iteration}"))

    # -- snapshots -------------------------------------------------------------------------------

    def snapshot(self, experiment: str, iteration: str) -> list[str] | None:
        try:
            return self._records.snapshot(snapshot_place(experiment, iteration))
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
        computed = self._records.files.names(f"pointers/{experiment}")
        known = self.iterations(experiment)
        lost = sorted(set(computed) - {*known, "base"})
        if lost:
            opened = self._opened(experiment)
            for key in lost:
                if key in opened:
                    self.journal("restored", experiment=experiment, iteration=key, reason=["its snapshot was gone"])
                    self._put_snapshot(experiment, key, opened[key])
        for key in known:
            damage = self._records.damage(snapshot_place(experiment, key))
            if damage and (files := self.snapshot(experiment, key)) is not None:
                self._put_snapshot(experiment, key, files)

    def _opened(self, experiment: str) -> dict[str, list[str]]:
        """Iteration -> names of its landed files, as the journal has it."""
        events = self.events("opened")
        return {event["iteration"]: event["files"] for event in events if event.get("experiment") == experiment}

    def _put_snapshot(self, experiment: str, iteration: str, files: list[str]) -> None:
        self._records.put(snapshot_place(experiment, iteration), {"files": files})

    # -- the journal -----------------------------------------------------------------------------

    def journal(self, event: str, **fields: Any) -> None:
        self._journal.note(event, **fields)

    def events(self, *kinds: str) -> Iterator[dict[str, Any]]:
        return self._journal.events(*kinds)
