"""What a store is: the one way to what a project keeps, wherever that lies.

Nothing outside an implementation builds a path inside a store or takes a manifest for a file. `LocalStore`
(resources/store/local.py) is a folder, `SharedStore` (resources/store/shared/store.py) a bucket of S3;
tests/test_store_contract.py holds any implementation to what stands here.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from resources.store.locks import Locks
from resources.store.manifest import Manifest
from resources.store.rows import RowTable


class StoreError(Exception):
    """A server that a shared store needs does not answer, or not as it must; the message names it and says why."""


@dataclass(frozen=True)
class Kept:
    """What is needed of a store; `remove_unneeded` removes the rest.

    data_versions: of the artifacts whose files are needed.
    traces: (stage, fingerprint) of the manifests that are needed, with or without their artifact's files.
    row_tables: as manifests name them, `kind/digest of the context`.
    vectors: name of a table -> the checks of its needed rows; None: which ones are needed is not known.
    unfinished: fingerprints of computations that will be gone on with.
    """

    data_versions: set[str]
    traces: set[tuple[str, str]]
    row_tables: set[str]
    vectors: dict[str, set[str] | None]
    unfinished: set[str] = field(default_factory=set)


@dataclass
class Collected:
    """What was removed, or would be: how many things by kind, and their size in bytes."""

    removed: dict[str, int] = field(default_factory=dict)
    bytes: int = 0

    def add(self, kind: str, number: int, size: int) -> None:
        """Count things of a kind, of `size` bytes together."""
        self.removed[kind] = self.removed.get(kind, 0) + number
        self.bytes += size


class Store(Protocol):
    """Artifacts, rows and vectors, of one experiment or several; for several processes at once.

    An artifact is some files under the digest of their content, and never changes. A *trace* is its manifest under
    the fingerprint that gave it, a *pointer* its manifest under the place in the loop where it is used now, and a
    *snapshot* the names of the landed files of an iteration. A manifest or snapshot that is not what was written in
    its place counts as absent, and is kept aside when the next one is written there.

    Whatever dies in between, what is read is whole: an artifact's files are there before its trace, a trace
    before its pointer, and a journal entry `opened` before its snapshot.
    """

    @property
    def locks(self) -> Locks:
        """Locks between all the processes that use the store."""
        ...

    # -- artifacts -------------------------------------------------------------------------------

    def lookup(self, stage: str, fingerprint: str) -> Manifest | None:
        """The manifest that this fingerprint gave, if its files are there or gc removed them; content is not read."""
        ...

    def complete(self, manifest: Manifest) -> bool:
        """Whether all files of an artifact are there; their content is not read."""
        ...

    def open(self, manifest: Manifest) -> Path:
        """A local folder with the artifact's files, to be read only; they are not verified. Files that are gone
        raise FileNotFoundError, here or when they are read."""
        ...

    def verify(self, manifest: Manifest) -> Path:
        """The same, after digesting every file. Raises CorruptArtifact if one is gone or not as it was committed."""
        ...

    def quarantine(self, manifest: Manifest, reason: str) -> None:
        """Move a damaged artifact out of the way, so that it is recomputed and can be looked at. The journal has
        it: `quarantined`, or `lost` if there is nothing left to move."""
        ...

    def workspace(self) -> AbstractContextManager[Path]:
        """An empty local folder to write an artifact in; removed on the way out, whatever happened."""
        ...

    def commit(self, workspace: Path, **known: Any) -> Manifest:
        """Make the files of `workspace` an artifact; `known` are the other fields of its Manifest. Content that is
        there already is verified, and replaced if it is damaged. What is `unfinished` under the fingerprint goes."""
        ...

    def unfinished(self, fingerprint: str) -> Path:
        """The folder, which need not exist, for what a long computation keeps until its artifact is committed.
        Always on this machine: it is for the same computation to go on with."""
        ...

    def forget(self, manifest: Manifest) -> None:
        """Drop the trace: its stage is computed again when next asked for."""
        ...

    # -- what the loop uses now --------------------------------------------------------------------

    def experiments(self) -> list[str]:
        """Names of the experiments that have opened an iteration or run a stage in this store."""
        ...

    def started(self, experiment: str, iteration: str) -> bool:
        """Whether anything of the iteration was ever computed or reused."""
        ...

    def point(self, experiment: str, iteration: str, manifest: Manifest) -> None:
        """Record that `manifest` is what its stage of this iteration is now."""
        ...

    def pointed(self, experiment: str, iteration: str, stage: str) -> Manifest | None:
        """What this stage of this iteration last was, fresh or not."""
        ...

    def unreadable(self, experiment: str, iteration: str, stage: str) -> bool:
        """Whether something is pointed at that `pointed` cannot tell: a damaged manifest, or one of a store of
        another version."""
        ...

    # -- snapshots ---------------------------------------------------------------------------------

    def iterations(self, experiment: str) -> list[str]:
        """Keys of the iterations that were opened, in order."""
        ...

    def snapshot(self, experiment: str, iteration: str) -> list[str] | None:
        """Names of the landed files that the iteration uses, sorted; None if it was not opened yet.

        A damaged snapshot is read from the journal. Raises CorruptArtifact if it is not there either.
        """
        ...

    def take_snapshot(self, experiment: str, iteration: str, files: list[str]) -> None:
        """Fix which landed files the iteration uses. The journal is told first: it is what a lost or damaged
        snapshot is read from."""
        ...

    def restore_snapshots(self, experiment: str) -> None:
        """Write again, from the journal, the snapshots that are damaged, and those that are gone although
        something was computed for their iteration. Raises CorruptArtifact for one that it does not know."""
        ...

    # -- the journal -------------------------------------------------------------------------------

    def journal(self, event: str, **fields: Any) -> None:
        """Append an event with its time. Events of several processes do not mix."""
        ...

    def events(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """The journal's events, or those of these kinds, oldest first; torn ones are passed over."""
        ...

    # -- rows and vectors --------------------------------------------------------------------------

    def rows(self, kind: str, context: dict[str, Any]) -> RowTable:
        """The rows of a kind that were computed under a context: all that decides a value but the row."""
        ...

    def vectors(self, name: str) -> Any:
        """The vectors of one encoder, by the name of their table."""
        ...

    # -- gc ----------------------------------------------------------------------------------------

    def remove_unneeded(self, kept: Kept, *, really: bool) -> Collected:
        """Remove what `kept` does not name, quarantine, and what killed computations left; tell what, also if not
        `really`. Pointers, snapshots and the journal stay.

        A needed trace whose artifact's files go says from then on that they were collected, and so does every
        pointer to it. Only under `locks.all_idle`: what a run has not committed yet would look unneeded.
        """
        ...
