"""The dataflow as data: what each stage reads, which settings it depends on, and what computes it.

A stage is declared once, by `@stage` on its function in `apt_assets/assets/`. The planner, the
command line and the Dagster assets are all derived from that one declaration.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from resources.digest import digest_json

if TYPE_CHECKING:
    from apt_assets.engine.execute import Step
    from apt_assets.experiment import Experiment

BASE = "base"  # the iteration key of what is not partitioned


@dataclass(frozen=True)
class Stage:
    """One node of the dataflow.

    inputs: `stage`, `stage/file` (one file of its artifact, so that a change elsewhere in it cuts
        off), or a source: landing_files, previous_adapter, promoted_scores, landed_now, iteration (its key).
    settings: dotted paths into the experiment, of a value or a whole section; nothing else of it
        reaches the fingerprint.
    identities: what a stage reads from outside the store, by content: model, encoder, tasks.
    libraries: distributions whose version may change the result.
    version: bumped by hand when the code changes what it computes, with the reason beside it.
    """

    name: str
    compute: "Callable[[Step], None]"
    inputs: tuple[str, ...]
    settings: tuple[str, ...]
    identities: tuple[str, ...]
    libraries: tuple[str, ...]
    version: str
    group: str
    kinds: tuple[str, ...]
    partitioned: bool
    description: str

    def input_stages(self) -> list[str]:
        """The inputs without their file part, each once, in declared order."""
        return list(dict.fromkeys(name.split("/")[0] for name in self.inputs))

    def settings_slice(self, experiment: "Experiment") -> dict[str, Any]:
        """The values of this stage's settings, by dotted path."""
        return {key: value for path in self.settings for key, value in experiment.leaves(path).items()}

    def code_version(self, experiment: "Experiment") -> str:
        """`<version>.<settings digest>`: Dagster then shows a changed setting as changed code."""
        return f"{self.version}.{digest_json(self.settings_slice(experiment))[:8]}"

    def library_versions(self) -> dict[str, str]:
        return {name: installed_version(name) for name in self.libraries}


STAGES: dict[str, Stage] = {}


@cache
def installed_version(distribution: str) -> str:
    return metadata.version(distribution)


def stage(
    *,
    inputs: Iterable[str],
    settings: Iterable[str] = (),
    identities: Iterable[str] = (),
    libraries: Iterable[str] = (),
    version: str,
    group: str,
    kinds: Iterable[str] = (),
    partitioned: bool = True,
) -> "Callable[[Callable[[Step], None]], Callable[[Step], None]]":
    """Declare the decorated function as the stage of its name; its docstring is the description."""

    def declare(compute: "Callable[[Step], None]") -> "Callable[[Step], None]":
        STAGES[compute.__name__] = Stage(
            name=compute.__name__,
            compute=compute,
            inputs=tuple(inputs),
            settings=tuple(settings),
            identities=tuple(identities),
            libraries=tuple(libraries),
            version=version,
            group=group,
            kinds=tuple(kinds),
            partitioned=partitioned,
            description=" ".join((compute.__doc__ or "").split()),
        )
        return compute

    return declare


# What decides an answer, its grade and a benchmark score, shared by every stage that makes them.
ANSWERING = ("policy.system_prompt", "policy.max_new_tokens", "policy.batch_size", "policy.device")
GRADING = ("assessor.labels",)
BENCHMARKS = ("benchmarks.tasks", "benchmarks.batch_size")
