"""The experiment file: every setting of a run, typed, with its meaning, default and provenance.

Provenance of a default is one of: paper (arXiv 2506.03483, known through its abstract and
reviews), IRPO (arXiv 2404.19733), measured (docs/lab-log.md), choice (ours; the paper does not let
us know it).
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from apt_assets.settings.around import Alerts, Compute, Costs, Loop, Serve
from apt_assets.settings.asking import Data, Mining, PolicySettings, Retrieval
from apt_assets.settings.deciding import Benchmarks, Gate, Promotion
from apt_assets.settings.grading import AssessorSettings
from apt_assets.settings.training import Anchor, Pairs, Training
from resources.section import Section

REPOSITORY = Path(__file__).resolve().parents[2]


class UsageError(Exception):
    """Bad usage or bad input: the message says what to change; the command line exits with 2."""


def is_section(kind: Any) -> bool:
    """Whether a setting's type is a section of settings."""
    return isinstance(kind, type) and issubclass(kind, Section)


class Experiment(Section):
    """One experiment file. Every section may be left out; `name` may not."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    owners: list[Annotated[str, Field(pattern=r"^(team:[\w-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$")]] = Field(
        [], description="Shown in Dagster as the owners of all assets: an e-mail address or team:NAME."
    )
    tracking: list[Literal["mlflow", "wandb", "trackio", "tensorboard"]] = Field(
        [],
        description="Where each iteration is reported as a run; the extra of the same name installs it. It makes "
        "nothing stale (choice).",
    )
    data: Data = Data()
    policy: PolicySettings = PolicySettings()
    mining: Mining = Mining()
    assessor: AssessorSettings = AssessorSettings()
    retrieval: Retrieval = Retrieval()
    pairs: Pairs = Pairs()
    training: Training = Training()
    anchor: Anchor = Anchor()
    benchmarks: Benchmarks = Benchmarks()
    gate: Gate = Gate()
    promotion: Promotion = Promotion()
    loop: Loop = Loop()
    compute: Compute = Compute()
    serve: Serve = Serve()
    costs: Costs = Costs()
    alerts: Alerts = Alerts()

    @model_validator(mode="after")
    def can_tell_what_is_spent(self) -> Self:
        if self.loop.budget is not None and not self.costs.given:
            raise ValueError("loop.budget needs a price: set costs.device_hour or costs.grader_per_million_tokens")
        return self

    @field_validator("pairs")
    @classmethod
    def can_be_sampled(cls, pairs: Pairs, info: ValidationInfo) -> Pairs:
        policy = info.data.get("policy")
        if policy is not None and pairs.counterfactual == "sampled" and policy.backend != "transformers":
            raise ValueError(
                "pairs.counterfactual: sampled needs policy.backend: transformers, which seeds each answer"
            )
        return pairs

    @field_validator("training")
    @classmethod
    def can_be_shared_out(cls, training: Training, info: ValidationInfo) -> Training:
        policy = info.data.get("policy")
        if policy is not None and training.strategy == "fsdp2" and policy.quantization != "none":
            raise ValueError("training.strategy: fsdp2 shares out weights as they are: set policy.quantization to none")
        return training

    def leaves(self, path: str) -> dict[str, Any]:
        """The values at a dotted path, by full key: one for a value, all of them for a section."""
        value: Any = self
        for part in path.split("."):
            value = getattr(value, part)
        if isinstance(value, Section):
            return {f"{path}.{key}": child for key, child in value.model_dump().items()}
        return {path: value}
