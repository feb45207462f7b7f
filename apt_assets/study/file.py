"""The study file: domains x arms x seeds, and the sweep that each arm gets."""

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from apt_assets.settings.experiment import Experiment, UsageError
from apt_assets.settings.reader import OF_A_STUDY, explain, load_experiment, path_of, read_mapping, unknown, valid_keys
from resources.section import Section
from resources.store.digest import digest_json
from resources.yaml_file import read_yaml

# A study looks at what a recipe does, so no gate stops an arm on the way; whether the domain's own gate would
# have promoted the result is worked out afterwards.
OPEN_GATE = {
    "gate.domain_tolerance": 1.0,
    "gate.general_tolerance": 1.0,
    "gate.likelihood_tolerance": None,
    "gate.perplexity_tolerance": None,
    "gate.approval": "none",
    "assessor.calibration.folder": None,
}
FEW = 1  # items of each general task that a training run scores: every task has one
SEEDED = ("training.seed", "mining.seed")
# Arms differ in how they train. What they are measured by is the domain's, but for how the frozen weights are held.
THEIRS = ("policy.device", "policy.dtype", "policy.quantization", "assessor.bad_below")
OF_THE_OWNER = ("tracking", "serve", "costs", "alerts")  # no part of a recipe
OF_THE_DOMAIN = ("owners", "data", "policy", "assessor", "benchmarks", "gate", "promotion", *OF_THE_OWNER)


# Of a study file that works on an experiment file.
LEAST = """\
name: my-study
domains: {mine: my-domain.yaml}
arms:
  apt: {}
  fine-tuning: {settings: {training.objective: sft}}
control: fine-tuning
seeds: [0, 1]"""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]  # part of a run's file name


class Arm(Section):
    """One recipe: what it changes in the domain's experiment."""

    about: str = Field("", description="What the arm is, in a few words, for the page.")
    settings: dict[str, Any] = Field({}, description="Dotted setting -> value, such as {pairs.replay: pool}.")
    iterations: int | None = Field(None, ge=1, le=9, description="Iterations; null: the study's.")
    starts_from: str | None = Field(
        None, description="An arm whose result, of the same domain and seed, is this one's initial adapter."
    )


class StudyFile(Section):
    """One study file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    domains: dict[Name, str] = Field(min_length=1, description="Name -> experiment file, relative to this one.")
    arms: dict[Name, Arm] = Field(min_length=2, description="Name -> recipe; {} is the experiment file's own.")
    control: str = Field(description="The arm that all others are compared with.")
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        min_length=2, description="Of training and mining; the first one tunes."
    )
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {}, description="Dotted setting -> values; every arm tries all combinations with the first seed."
    )
    iterations: int = Field(2, ge=1, le=9, description="Of an arm that does not say; the best one counts.")

    @model_validator(mode="after")
    def fits_together(self) -> Self:
        if self.control not in self.arms:
            raise ValueError(f"control: {self.control!r} is not an arm; there are {', '.join(self.arms)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed stands there twice")
        earlier: list[str] = []
        for name, arm in self.arms.items():
            if arm.starts_from is not None and arm.starts_from not in earlier:
                raise ValueError(f"arms.{name}.starts_from: {arm.starts_from!r} is not an arm that stands before it")
            for key in arm.settings:
                if wrong := "is what the sweep tries" if key in self.sweep else misplaced(key):
                    raise ValueError(f"arms.{name}.settings: {key}: {wrong}")
            earlier.append(name)
        for key in self.sweep:
            if wrong := misplaced(key) or ("is an arm's" if key in THEIRS else None):
                raise ValueError(f"sweep: {key}: {wrong}")
        return self


def misplaced(key: str) -> str | None:
    """Why an arm may not set this; None: it may."""
    keys = valid_keys()
    if key in SEEDED or key in OPEN_GATE or key == "name":
        return "is set by the study itself"
    if key == "loop.max_iterations":
        return "say `iterations`, of the arm or of the study"
    if key == "loop.budget":
        return "a study is held to no budget"
    if key == "policy.initial_adapter":
        return "name an arm in starts_from, or set it in the domain's experiment file, for all arms"
    if key not in keys:
        return unknown(key)
    if any(other.startswith(f"{key}.") for other in keys):
        return "is a section: name its settings one by one"
    if key.partition(".")[0] in OF_THE_DOMAIN and key not in THEIRS:
        return "is the same for all arms: set it in the domain's experiment file"
    return None


@dataclass(frozen=True)
class Cell:
    """One run: an arm on a domain with one candidate of the sweep and one seed.

    adapter: folder that it starts from, relative to the project's home; None: what the domain starts from.
    """

    domain: str
    arm: str
    candidate: int
    seed: int
    adapter: str | None = None

    @property
    def label(self) -> str:
        return f"{self.domain}.{self.arm}.{self.candidate}.seed-{self.seed}"


@dataclass(frozen=True)
class Scoring:
    """One more run: an adapter (None: what the domain starts from) on all items. Those of training runs score a few:
    what a study wants to know in full are results, not every iteration on the way.

    policy: (setting, value) of an arm whose frozen weights are held in another way than the domain's.
    """

    domain: str
    adapter: str | None
    policy: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        held = f".{digest_json(self.policy)[:6]}" if self.policy else ""
        return f"{self.domain}.scores.{Path(self.adapter).name[:12] if self.adapter else 'base'}{held}"


Run = Cell | Scoring


@dataclass(frozen=True)
class Study:
    """A study file that was read and checked, at `path`.

    landed: domain -> the files that its runs are made from, with digests of their rows. They are part of what a run
    is: an experiment keeps to the files that it began with, and arms are compared on the same rows.
    """

    path: Path
    file: StudyFile
    landed: dict[str, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def candidates(self) -> list[dict[str, Any]]:
        """The combinations of the sweep, in declared order; [{}] without one."""
        values = itertools.product(*self.file.sweep.values())
        return [dict(zip(self.file.sweep, combination, strict=True)) for combination in values]

    @cached_property
    def domains(self) -> dict[str, dict[str, Any]]:
        """Name -> content of its experiment file."""
        for name in self.file.domains:
            load_experiment(self.domain_file(name))  # for its messages: a domain's own mistakes are not an arm's
        return {name: read_yaml(self.domain_file(name)) for name in self.file.domains}

    def domain_file(self, domain: str) -> Path:
        return path_of(self.file.domains[domain], f"{self.path}: domains.{domain}", below=self.path.parent)

    def iterations(self, run: Run) -> int:
        """How many the run has; 0: only what it starts from is scored."""
        return (self.file.arms[run.arm].iterations or self.file.iterations) if isinstance(run, Cell) else 0

    def content(self, run: Run) -> dict[str, Any]:
        """What the run's experiment file says. Its name is of its content and of what has landed: equal runs are one
        experiment."""
        content: dict[str, Any] = dict(self.domains[run.domain])
        changes: dict[str, Any] = {} if run.adapter is None else {"policy.initial_adapter": run.adapter}
        if isinstance(run, Cell):
            changes |= {**OPEN_GATE, **self.file.arms[run.arm].settings, **self.candidates[run.candidate]}
            changes |= dict.fromkeys(SEEDED, run.seed)
            changes["benchmarks.tasks"] = self.few_items(run.domain)
        else:
            changes |= {**dict(run.policy), "anchor.weight": 0.0}  # nothing is trained
        for key, value in changes.items():
            put(content, key, value)
        for section in ("name", *OF_THE_OWNER):
            content.pop(section, None)
        if "budget" in (loop := content.get("loop") or {}):
            content["loop"] = {key: value for key, value in loop.items() if key != "budget"}
        decides = {"landed": self.landed[run.domain], **content} if run.domain in self.landed else content
        return {"name": f"study-{digest_json(decides)[:16]}", **content}

    def scoring(self, domain: str, arm: str, adapter: str | None) -> Scoring:
        """The run that scores what an arm came to."""
        settings = self.file.arms[arm].settings.items()
        return Scoring(domain, adapter, tuple((key, value) for key, value in settings if key.startswith("policy.")))

    def few_items(self, domain: str) -> dict[str, int]:
        """The domain's tasks with FEW items each; some, since a gate that compares none refuses."""
        return dict.fromkeys(Experiment.model_validate(self.domains[domain]).benchmarks.tasks, FEW)

    def experiment(self, run: Run) -> Experiment:
        """Raises UsageError naming the run, the key, and what is wrong."""
        try:
            return Experiment.model_validate(self.content(run))
        except ValidationError as error:
            what = f"arm {run.arm} on {run.domain}" if isinstance(run, Cell) else run.domain
            raise UsageError("\n".join(f"{self.path}: {what}: {explain(e)}" for e in error.errors())) from None


def put(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested mappings, copying those on the way."""
    *parents, last = key.split(".")
    for parent in parents:
        content[parent] = dict(content.get(parent) or {})
        content = content[parent]
    content[last] = value


def load_study(path: Path) -> Study:
    """Read and check a study file, its domains' experiment files and every arm on each of them.

    Raises UsageError naming the file, the key and what is wrong.
    """
    content = read_mapping(
        path,
        UsageError(f"no study file {path}"),
        UsageError(f"{path}: must be a mapping with name, domains, arms, control and seeds, such as\n{LEAST}"),
    )
    if not set(OF_A_STUDY) & content.keys() and content.keys() & set(Experiment.model_fields):
        least = LEAST.replace("my-domain.yaml", path.name)
        raise UsageError(
            f"{path}: is an experiment file; a study file compares recipes on it, and says at least\n{least}"
        )
    try:
        study = Study(path, StudyFile.model_validate(content))
    except ValidationError as error:
        raise UsageError("\n".join(f"{path}: {explain_key(e)}" for e in error.errors())) from None
    for domain, arm, candidate in itertools.product(study.domains, study.file.arms, range(len(study.candidates))):
        study.experiment(Cell(domain, arm, candidate, study.file.seeds[0]))
    return study


def explain_key(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{where}: {error['msg']}" if where else error["msg"].removeprefix("Value error, ")
