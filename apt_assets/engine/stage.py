"""The dataflow as data: what each stage reads, which settings it depends on, and what computes it.

A stage is declared once, by `@stage` on its function in `apt_assets/assets/`. The planner, the
command line and the Dagster assets are all derived from that one declaration.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apt_assets.engine.step import Step
    from apt_assets.engine.view import View
    from apt_assets.project import Project
    from apt_assets.settings.experiment import Experiment
    from resources.store.manifest import Manifest


@dataclass(frozen=True)
class Stage:
    """One node of the dataflow.

    inputs: `stage`, `stage/file` (one file of its artifact, so that a change elsewhere in it cuts
        off), or a source: landing_files, landing_folder, previous_adapter, promoted_count,
        reference_scores, iteration (its key).
    settings: dotted paths into the experiment, of a value or a whole section. Reading any other
        setting, or an input that is not declared, is an error (engine/view.py).
    identities: what a stage reads from outside the store, by content: base_model, initial_adapter,
        encoder, grader, benchmark_tasks.
    libraries: distributions whose version may change the result.
    work: what computing it would cost, given its inputs: {"answers": rows, ...}; None: nothing of note.
    verify: checks what an artifact refers to outside its folder before it is reused; raises
        CorruptArtifact. None: there is nothing outside.
    code: the module of its function; its code counts by content (world/code.py).
    """

    name: str
    compute: "Callable[[Step], None]"
    inputs: tuple[str, ...]
    settings: tuple[str, ...]
    identities: tuple[str, ...]
    libraries: tuple[str, ...]
    work: "Callable[[View], dict[str, int]] | None"
    verify: "Callable[[Project, Manifest], None] | None"
    code: str
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

    def library_versions(self, names: Iterable[str] | None = None) -> dict[str, str]:
        """Installed versions of its libraries, or of those named. Raises KeyError for an undeclared one."""
        if undeclared := set(names or ()) - set(self.libraries):
            raise KeyError(f"{self.name} uses {', '.join(sorted(undeclared))}, which it does not declare")
        return {name: installed_version(name) for name in names or self.libraries}

    def chosen_versions(self, experiment: "Experiment") -> dict[str, str]:
        """Versions of the optional libraries that its settings choose."""
        chosen = self.settings_slice(experiment)
        return {name: installed_version(name) for (key, value), name in CHOSEN.items() if chosen.get(key) == value}


STAGES: dict[str, Stage] = {}


# (setting, value) -> the distribution whose version then counts.
CHOSEN = {("policy.quantization", "nf4"): "bitsandbytes", ("policy.backend", "vllm"): "vllm"}


def not_repeatable(settings: dict[str, Any]) -> list[str]:
    """Which of a stage's settings, "key: value", bring in what another cold run need not give again.

    On a CPU two cold runs give the same data versions; a GPU adds up in an order of its own, and a server or vLLM
    puts other requests into a batch.
    """
    doubtful = {
        "policy.device": settings.get("policy.device") == "cuda",
        "policy.backend": settings.get("policy.backend", "transformers") != "transformers",
        "assessor.rubric.endpoint": settings.get("assessor.rubric.endpoint") is not None
        and settings.get("assessor.kind") in ("rubric", "combined"),
    }
    return [f"{key}: {settings[key]}" for key, is_so in doubtful.items() if is_so]


@cache
def installed_version(distribution: str) -> str:
    """Its version, or "missing": a plan can be made where an experiment cannot run."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"


def stage(
    *,
    inputs: Iterable[str],
    settings: Iterable[str] = (),
    identities: Iterable[str] = (),
    libraries: Iterable[str] = (),
    work: "Callable[[View], dict[str, int]] | None" = None,
    verify: "Callable[[Project, Manifest], None] | None" = None,
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
            work=work,
            verify=verify,
            code=compute.__module__,
            group=group,
            kinds=tuple(kinds),
            partitioned=partitioned,
            description=" ".join((compute.__doc__ or "").split()),
        )
        return compute

    return declare


# What decides an answer, its grade and a benchmark score, shared by every stage that makes them.
ANSWERING = (
    "policy.dtype",
    "policy.quantization",
    "policy.device",
    "policy.backend",
    "policy.server.url",
    "policy.server.engine",
    "policy.system_prompt",
    "policy.max_new_tokens",
    "policy.batch_tokens",
)
GRADING = (
    "assessor.kind",
    "assessor.labels",
    "assessor.numeric",
    "assessor.set_f1",
    "assessor.overlap",
    "assessor.rubric",
    "assessor.combined",
)
GRADING_LIBRARIES = ("rouge_score", "sacrebleu")
BENCHMARKS = ("benchmarks.tasks",)
