"""Answer and grade questions: what mining, pairing and benchmarks all do, in one place."""

from typing import TYPE_CHECKING

from apt_assets.engine.view import View
from apt_assets.rows.answers import answer_keys, answer_rows, answers_of
from apt_assets.rows.grades import grade_keys, grade_rows, grade_tables
from apt_assets.rows.policy import Adapter

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step

# Where the columns of graded answers come from.
ANSWERED = {
    **{name: [f"domain_dataset.{name}"] for name in ("row_id", "prompt", "answer")},
    "prediction": ["domain_dataset.prompt"],
    "grade": ["domain_dataset.prompt", "domain_dataset.answer"],
    "exact": ["domain_dataset.answer"],
}


def answer_and_grade(
    step: "Step", adapter: Adapter | None, questions: "pl.DataFrame", labels: list[str], what: str
) -> "pl.DataFrame":
    """Examples (row_id, prompt, answer) -> Predictions, in the order of `questions`."""
    import polars as pl

    from schemas.tables import Predictions

    prompts, golds = questions["prompt"].to_list(), questions["answer"].to_list()
    said = answers_of(step, adapter, prompts, golds, what)
    graded = grade_rows(step, labels, prompts, golds, said, what)
    return (
        questions.select("row_id", "prompt", "answer")
        .with_columns(
            pl.Series("prediction", said, dtype=pl.String),
            pl.Series("grade", [grade for grade, _ in graded], dtype=pl.Int8),
            pl.Series("exact", [exact for _, exact in graded], dtype=pl.Boolean),
        )
        .cast(Predictions.empty().schema)  # type: ignore[arg-type]
    )


def work_to_answer(view: View, adapter: Adapter | None, questions: "pl.DataFrame", labels: list[str]) -> dict[str, int]:
    """Rows that `answer_and_grade` would compute: {answers, grades}. An answer that is not there yet
    counts as one grade more; it may turn out to be one that was graded before."""
    prompts, golds = questions["prompt"].to_list(), questions["answer"].to_list()
    keys = answer_keys(prompts)
    answers = answer_rows(view, adapter).read(keys)
    known = [(prompts[n], golds[n], answers[key]) for n, key in enumerate(keys) if key in answers]
    tables = grade_tables(view, labels)
    ungraded = sum(t.missing(grade_keys(*zip(*known, strict=True))) for t in tables.values()) if known else 0
    missing = len(set(keys)) - len(answers)
    return {"answers": missing, "grades": missing * len(tables) + ungraded}
