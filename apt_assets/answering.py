"""Answer and grade questions: what mining, pairing and benchmarks all do, in one place."""

from pathlib import Path
from typing import TYPE_CHECKING

from apt_assets.engine.execute import Step

if TYPE_CHECKING:
    import polars as pl

    from resources.policy_model import Policy


def open_policy(step: Step, adapter: Path | None) -> "Policy":
    """The base model with `adapter`, by the experiment's settings."""
    from resources.policy_model import load_policy

    settings = step.experiment.policy
    return load_policy(
        step.project.model,
        adapter,
        dtype=settings.dtype,
        device=settings.device,
        system_prompt=settings.system_prompt,
    )


def competing_labels(step: Step, golds: list[str]) -> list[str]:
    """The labels the assessor takes as competing: as set, or worked out from `golds`."""
    from resources.assessor import labels_of, normalise_answer

    labels = step.experiment.assessor.labels
    return labels_of(golds) if labels == "auto" else [normalise_answer(label) for label in labels]


def answer_and_grade(
    step: Step, policy: "Policy", questions: "pl.DataFrame", labels: list[str], what: str
) -> "pl.DataFrame":
    """Examples (row_id, prompt, answer) -> Predictions, in the order of `questions`."""
    import polars as pl

    from resources.assessor import exact, grade
    from resources.policy_model import generate
    from schemas import empty_table

    predictions = generate(
        policy,
        questions["prompt"].to_list(),
        max_new_tokens=step.experiment.policy.max_new_tokens,
        batch_size=step.experiment.policy.batch_size,
        progress=step.progress(what, questions.height, "answers"),
    )
    golds = questions["answer"].to_list()
    both = list(zip(predictions, golds, strict=True))
    return (
        questions.select("row_id", "prompt", "answer")
        .with_columns(
            pl.Series("prediction", predictions, dtype=pl.String),
            pl.Series("grade", [grade(said, gold, labels) for said, gold in both], dtype=pl.Int8),
            pl.Series("exact", [exact(said, gold) for said, gold in both], dtype=pl.Boolean),
        )
        .cast(empty_table("eval_predictions").schema)
    )  # type: ignore[arg-type]
