"""What decides a result, as declarations: of a stage (engine/stage.py), and of a kind of row."""

from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

# (setting, value) -> the distribution whose version then counts.
CHOSEN = {("policy.quantization", "nf4"): "bitsandbytes"}


class Declaration:
    """What a stage, or a kind of row, declares of what decides its result.

    settings: dotted paths into the experiment, of a value or a whole section. free: settings that it may read as
        well and that decide no result, such as how many requests are under way, also of a section that is declared.
    identities: what it reads from outside the store, by content: names of sources.
    libraries: distributions whose version may change the result.
    """

    name: str
    settings: tuple[str, ...]
    free: tuple[str, ...]
    identities: tuple[str, ...]
    libraries: tuple[str, ...]

    def settings_slice(self, experiment: Any) -> dict[str, Any]:
        """The values of its settings that decide its result, by dotted path."""
        leaves = {key: value for path in self.settings for key, value in experiment.leaves(path).items()}
        return {key: value for key, value in leaves.items() if key not in self.free}

    def library_versions(self, experiment: Any) -> dict[str, str]:
        """Installed versions of its libraries, and of the optional ones that its settings choose."""
        chosen = self.settings_slice(experiment)
        optional = [name for (key, value), name in CHOSEN.items() if chosen.get(key) == value]
        return {name: installed_version(name) for name in (*self.libraries, *optional)}


@dataclass(frozen=True)
class RowKind(Declaration):
    """A kind of row: everything that decides a value except the row itself; see Declaration.

    table: under which its rows are counted and kept, such as answers; kinds that share one differ in what they declare.
    given: names of what only the stage at hand knows, such as the adapter that answers; it counts by its content.
    code: modules that compute a value; they count with all that they import (world/code.py).
    memory: the name of what a process needs that computes them (apt_assets/rows/memory.py); None: nothing of note.
    """

    name: str
    table: str
    code: tuple[str, ...]
    settings: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    memory: str | None = None


@cache
def installed_version(distribution: str) -> str:
    """Its version, or "missing": a plan can be made where an experiment cannot run."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"
