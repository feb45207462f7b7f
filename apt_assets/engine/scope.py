"""What a stage, or a kind of row, may read of the experiment and of the world: what it declared, and nothing else.

What reads something that it does not declare would be reused after that changed, so such a read is an error,
raised the first time it runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from resources.section import Section
from resources.store.kinds import Declaration, RowKind

if TYPE_CHECKING:
    from apt_assets.engine.world import World
    from apt_assets.settings.experiment import Experiment


class UndeclaredRead(Exception):
    """Something reads an input, setting, identity or library that its declaration leaves out; names both."""


class Settings:
    """The declared part of an experiment: `settings.policy.dtype` as in the experiment itself."""

    def __init__(self, declaration: Declaration, value: Any, path: str = ""):
        self._declaration, self._value, self._path = declaration, value, path

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}" if self._path else name
        value = getattr(self._value, name)
        declared = (*self._declaration.settings, *self._declaration.free)
        if path in declared:
            return value
        if isinstance(value, Section) and any(s.startswith(f"{path}.") for s in declared):
            return Settings(self._declaration, value, path)
        raise UndeclaredRead(f"{self._declaration.name} reads the setting {path}, which it does not declare")


class Scope:
    """The experiment and the world, seen through a declaration. `identities`: names that it may ask for."""

    def __init__(self, project: "World", declaration: Declaration, identities: tuple[str, ...]):
        self._project, self._declaration, self._identities = project, declaration, identities

    @cached_property
    def settings(self) -> Any:
        return Settings(self._declaration, self._project.experiment)

    def identity(self, name: str) -> str:
        """Digest of what lies outside the store."""
        self._require(name)
        return self._project.identity(name)

    def outside(self, name: str) -> Any:
        """What an identity stands for: the folder of a model, or None; of initial_adapter with the digests of its
        files; of benchmark_tasks the Tasks. Raises UsageError if it is not on this machine."""
        self._require(name)
        return self._project.outside(name)

    def _require(self, name: str) -> None:
        if name not in self._identities:
            raise UndeclaredRead(f"{self._declaration.name} uses {name}, which it does not declare")


class RowScope(Scope):
    """What computes the rows of a kind sees this and no stage: what is not in their key it cannot read.

    given: what the stage at hand knows, by the names that the kind declares. tell: takes a line for people.
    """

    def __init__(
        self,
        project: "World",
        kind: RowKind,
        given: dict[str, Any],
        tell: Callable[[str], None] = lambda line: None,
    ):
        super().__init__(project, kind, kind.identities)
        if given.keys() != set(kind.given):
            raise UndeclaredRead(f"{kind.name} is given {sorted(given)}, and declares {sorted(kind.given)}")
        self.kind, self.given, self.tell = kind, given, tell

    @property
    def memory(self) -> int | None:
        """Bytes that a process needs which computes these rows, its libraries included; None: it is not known."""
        return self._project.memory_of(self.kind)

    def sent(self) -> "SentScope":
        """As another process can have it. Raises UsageError if something that it may read is not on this machine."""
        found = {name: self.outside(name) for name in self.kind.identities}
        return SentScope(self._project.experiment, found, self.kind, self.given)

    def context(self) -> dict[str, Any]:
        """Everything that decides a value of these rows but the row itself: the digest of this is their key."""
        experiment = self._project.experiment
        return {
            "kind": self.kind.name,
            "settings": self.kind.settings_slice(experiment),
            "identities": {name: self._project.identity(name) for name in self.kind.identities},
            "libraries": self.kind.library_versions(experiment),
            "given": {name: getattr(value, "digest", value) for name, value in self.given.items()},
            "code": {name: d for start in self.kind.code for name, d in self._project.code(start).items()},
        }


@dataclass(frozen=True)
class SentScope:
    """A RowScope for another process, which has no store and looks nothing up. found: what identities stand for."""

    experiment: "Experiment"
    found: dict[str, Any]
    kind: RowKind
    given: dict[str, Any]

    def outside(self, name: str) -> Any:
        return self.found[name]

    def opened(self, tell: Callable[[str], None]) -> RowScope:
        return RowScope(cast("World", self), self.kind, self.given, tell)
