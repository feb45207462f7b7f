"""By what an adapter is judged, and what follows; provenance: experiment.py."""

from typing import Annotated, Literal

from pydantic import Field

from resources.section import Fraction, Section


class Benchmarks(Section):
    """What decides promotion beside the domain's own validation rows."""

    folder: str = Field("tasks", description="Folder of lm-eval YAML tasks, one file per task.")
    tasks: dict[str, Annotated[int, Field(ge=1)] | None] = Field(
        {"last_word": None, "preposition": None, "ending": None, "passages": 60},
        description="Task -> how many of its items, the first ones; null: all (choice: 1,833 items see a loss of a "
        "point where 3 % of the answers turn).",
    )


class Gate(Section):
    """When an adapter may be promoted."""

    domain_tolerance: Fraction = Field(0.0, description="Accuracy it may lose to the promoted (choice).")
    general_tolerance: Fraction = Field(
        0.01, description="General accuracy it may lose to the base model or initial adapter, as a share (choice)."
    )
    likelihood_tolerance: float | None = Field(
        0.02, ge=0, description="Log-likelihood of general golds it may lose, nats per character; null: any (choice)."
    )
    perplexity_tolerance: float | None = Field(
        0.05, ge=0, description="By what share word perplexity of passages may rise; null: by any (choice)."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the bound on a loss.")
    resamples: int = Field(
        2000, ge=100, description="Of the paired bootstrap, of what is no share, or is corrected for the judge."
    )
    approval: Literal["none", "required"] = Field(
        "none",
        description="required: an adapter that passed is promoted once a person approves of it (`apt-assets approve`); "
        "until then the loop waits (choice).",
    )


class Promotion(Section):
    """What is promoted where the gate refuses for lost general ability alone: the same adapter, scaled down."""

    scales: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(max_length=9)] = Field(
        [0.7, 0.5],
        description="By which the adapter's update is multiplied: each is scored, and the best that passes is promoted "
        "(Wise-FT, arXiv 2109.01903); []: none.",
    )
