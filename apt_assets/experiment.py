"""The experiment file: every setting of a run, typed, with its meaning, default and provenance.

Provenance of a default is one of: paper (arXiv 2506.03483, known through its abstract and
reviews), IRPO (arXiv 2404.19733), measured (docs/lab-log.md), choice (ours; the paper does not let
us know it).
"""

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

REPOSITORY = Path(__file__).resolve().parents[1]
DEFAULT_EXPERIMENT = REPOSITORY / "experiments" / "embedded.yaml"

Fraction = Annotated[float, Field(ge=0, le=1)]


class UsageError(Exception):
    """Bad usage or bad input: the message says what to change; the command line exits with 2."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


def native_dtype(device: str) -> str:
    """bfloat16 on GPUs and on CPUs with bfloat16 instructions, else float32.

    Elsewhere a CPU emulates bfloat16: eight times slower than float32 on AVX2 (docs/lab-log.md).
    """
    if device != "cpu":
        return "bfloat16"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "float32"
    native = re.search(r"\b(avx512_bf16|amx_bf16)\b|^Features.*\bbf16\b", flags, re.MULTILINE)
    return "bfloat16" if native else "float32"


class Data(Section):
    """Where data lands, and how it is split for ever by content hash of the prompt."""

    landing: str | None = Field(None, description="Folder of landed files; default landing/.")
    validation: Fraction = Field(0.05, description="Share of prompts that decide the gate (choice).")
    test: Fraction = Field(0.05, description="Share of prompts that are reported only (choice).")

    @model_validator(mode="after")
    def leaves_rows_to_train_on(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must be below 1: no row would be left to train on")
        return self


class PolicySettings(Section):
    """The base model and how it answers. Decoding is greedy."""

    model: str = Field("embedded", description="embedded, a folder with safetensors, or a hub id.")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="Of the frozen weights; auto: bfloat16 where the hardware multiplies it, else float32."
    )
    device: str = Field("cpu", description="A torch device: cpu, cuda, cuda:1.")
    system_prompt: str | None = Field(None, description="Put before every question.")
    max_new_tokens: int = Field(64, ge=1, description="Longest answer, in tokens.")
    batch_tokens: int = Field(1024, ge=64, description="Tokens in one pass while answering or scoring.")

    @model_validator(mode="before")
    @classmethod
    def name_the_dtype(cls, values: Any) -> Any:
        """What `auto` is on this machine: results differ, so the fingerprint must hold the dtype itself."""
        if isinstance(values, dict) and values.get("dtype", "auto") == "auto":
            return {**values, "dtype": native_dtype(values.get("device", "cpu"))}
        return values


class Mining(Section):
    """Which training questions an iteration asks."""

    questions: int | None = Field(1000, ge=1, description="Drawn afresh each iteration; null: all.")
    seed: int = Field(17, description="Of that draw.")


class AssessorSettings(Section):
    """Grades 1-5 by the rubric in resources/assessor.py."""

    bad_below: int = Field(4, ge=2, le=5, description="A lower grade is a bad case (paper).")
    labels: list[str] | Literal["auto"] = Field(
        "auto", description="Competing answers; auto: the distinct golds, if at most 100 of them."
    )


class Retrieval(Section):
    """Similar cases: nearest training rows of each bad case, cosine similarity."""

    encoder: str = Field("embedded", description="embedded, or a sentence-transformers folder or id.")
    per_case: int = Field(2, ge=0, description="Neighbours per bad case, k (choice).")
    batch_size: int = Field(64, ge=1, description="Texts embedded at once.")


class Pairs(Section):
    """Which rows become preference pairs."""

    max_bad_cases: int | None = Field(None, ge=1, description="Most bad cases used; null: all (choice).")
    replay_share: float = Field(
        1.0, ge=0, description="Most replay rows (answered right, NLL only) per pair; 0: none (measured)."
    )


class Training(Section):
    """DPO + NLL with LoRA, by TRL."""

    learning_rate: float = Field(1e-3, gt=0, description="Peak, of the first iteration (measured).")
    learning_rate_decay: float = Field(0.5, gt=0, le=1, description="Factor per iteration (measured).")
    beta: float = Field(0.1, gt=0, description="DPO temperature (IRPO).")
    nll_weight: float = Field(1.0, ge=0, description="Weight of the NLL of the chosen answer (IRPO).")
    reference: Literal["previous", "base"] = Field("previous", description="Reference model (choice).")
    lora_rank: int = Field(16, ge=1, description="r of every linear layer (choice).")
    lora_alpha: int = Field(32, ge=1, description="LoRA scale is alpha / r (choice).")
    batch_size: int = Field(8, ge=1, description="Pairs per optimiser step.")
    epochs: int = Field(1, ge=1, description="Passes over the pairs.")
    warmup_steps: int = Field(5, ge=0, description="Linear warm-up; then linear decay to 0.")
    max_length: int = Field(512, ge=8, description="Longest prompt + answer, in tokens; longer is cut.")
    seed: int = Field(17, description="Of initialisation and order.")


class Benchmarks(Section):
    """What decides promotion beside the domain's own validation rows."""

    folder: str = Field("tasks", description="Folder of lm-eval YAML tasks, one file per task.")
    tasks: dict[str, Annotated[int, Field(ge=1)] | None] = Field(
        {"quartz": 400, "social_iqa": 150},
        description="Task -> how many of its items, the first ones; null: all (choice: what scores fast).",
    )


class Gate(Section):
    """When an adapter may be promoted."""

    domain_tolerance: Fraction = Field(0.0, description="Accuracy it may lose to the promoted (choice).")
    general_tolerance: Fraction = Field(0.05, description="Accuracy it may lose to the base (choice).")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the paired bootstrap.")
    resamples: int = Field(2000, ge=100, description="Of the paired bootstrap.")


class Loop(Section):
    """When the loop ends by itself."""

    max_iterations: int = Field(2, ge=1, le=9999, description="Most iterations on the same landed files (choice).")


class Experiment(Section):
    """One experiment file. Every section may be left out; `name` may not."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    data: Data = Data()
    policy: PolicySettings = PolicySettings()
    mining: Mining = Mining()
    assessor: AssessorSettings = AssessorSettings()
    retrieval: Retrieval = Retrieval()
    pairs: Pairs = Pairs()
    training: Training = Training()
    benchmarks: Benchmarks = Benchmarks()
    gate: Gate = Gate()
    loop: Loop = Loop()

    def leaves(self, path: str) -> dict[str, Any]:
        """The values at a dotted path, by full key: one for a value, all of them for a section."""
        value: Any = self
        for part in path.split("."):
            value = getattr(value, part)
        if isinstance(value, Section):
            return {f"{path}.{key}": child for key, child in value.model_dump().items()}
        return {path: value}


class Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 1e-3 is a number, as people who set learning rates expect."""


Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+"), list("-+0123456789"))


def load_experiment(path: Path) -> Experiment:
    """Read and check an experiment file.

    Raises UsageError naming the file, the key, what is wrong and the nearest valid key.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        raise UsageError(f"no experiment file {path}: check --experiment or $APT_EXPERIMENT") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: must be a mapping with at least `name: <word>`")
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise UsageError("\n".join(f"{path}: {explain(e)}" for e in error.errors())) from None


def explain(error: Any) -> str:
    """One validation error as `key: what is wrong (did you mean ...)`."""
    where = ".".join(str(part) for part in error["loc"] if not str(part).startswith(("list[", "literal[")))
    if error["type"] != "extra_forbidden":
        return f"{where or 'experiment'}: {error['msg']}, got {error['input']!r}"
    *parents, key = error["loc"]
    nearest = difflib.get_close_matches(".".join([*parents, key]), valid_keys(), n=1, cutoff=0)
    return f"{where}: unknown key; the nearest valid key is {nearest[0]}"


def valid_keys(model: type[BaseModel] = Experiment, prefix: str = "") -> list[str]:
    """Every dotted key an experiment file may hold, sections included."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += valid_keys(kind, f"{prefix}{name}.")
    return keys


def find_experiment(named: Path | None) -> Path:
    """--experiment, else $APT_EXPERIMENT, else ./experiment.yaml, else the embedded default."""
    if named is not None:
        return named.resolve()
    if from_environment := os.environ.get("APT_EXPERIMENT"):
        return Path(from_environment).resolve()
    local = Path("experiment.yaml").resolve()
    return local if local.is_file() else DEFAULT_EXPERIMENT
