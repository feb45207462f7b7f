"""What the engine asks of the world: everything outside the store, by content. apt_assets/project.py is one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apt_assets.settings.experiment import Experiment
    from resources.store.kinds import RowKind
    from resources.store.store import Store


class World(Protocol):
    """One experiment, its store, and what lies outside the store."""

    @property
    def experiment(self) -> "Experiment": ...

    @property
    def store(self) -> "Store": ...

    @property
    def landing(self) -> Path:
        """The folder in which files land."""
        ...

    def landing_files(self, iteration: str, known: dict[str, str] | None = None) -> dict[str, str]:
        """Landed file -> digest, of the iteration's snapshot, or of all files now for BASE.

        known: digests of files that were looked up before, which are taken from there; it is added to.
        """
        ...

    def identity(self, name: str) -> str:
        """Digest of what a source outside the store is now, such as the base model."""
        ...

    def outside(self, name: str) -> Any:
        """What an identity stands for: a folder, or whatever reads it needs. Raises UsageError if it is not here."""
        ...

    def find_out(self, names: "Iterable[str]") -> list[str]:
        """Find out those of these identities that a look does not tell, such as how a model runs here; returns a line
        for each that was not known, for people."""
        ...

    def memory_of(self, kind: "RowKind") -> int | None:
        """Bytes that a process needs which computes rows of this kind, its libraries included; None: not known."""
        ...

    def check(self) -> None:
        """Raise UsageError if the experiment's stages cannot be computed here, as far as that is seen beforehand."""
        ...

    def code(self, start: str) -> dict[str, str]:
        """Module -> digest of all code that the module `start` imports, its own included."""
        ...

    def code_changed(self, start: str, planned: dict[str, str]) -> str | None:
        """The module that is not what this process runs, or not what was planned; None if all is as it was."""
        ...

    def planner(self) -> Any:
        """A Planner (engine/plan.py) over the state of now; take a new one after anything has changed."""
        ...
