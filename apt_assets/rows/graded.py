"""Answer and grade questions: what mining, pairing and benchmarks all do, in one place."""

from typing import TYPE_CHECKING

from apt_assets.engine.view import View
from apt_assets.rows.answers import answer_keys, answer_rows, answers_of
from apt_assets.rows.grades import grade_keys, grade_rows, grade_tables
from apt_assets.rows.policy import Adapter

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step

EXAMPLES = ("row_id", "prompt", "answer", "also")  # what is asked and graded by, of whatever table


def answered_from(stage: str) -> dict[str, list[str]]:
    """Where the columns of graded answers come from, to questions of that stage."""
    prompt, answer, also = (f"{stage}.{name}" for name in ("prompt", "answer", "also"))
    taken = {name: [f"{stage}.{name}"] for name in EXAMPLES}
    return {**taken, "prediction": [prompt], "grade": [prompt, answer, also], "exact": [answer, also]}


def answer_and_grade(
    step: "Step", adapter: Adapter | None, questions: "pl.DataFrame", labels: list[str], what: str
) -> "pl.DataFrame":
    """Examples -> Predictions, in the order of `questions`."""
    import polars as pl

    from schemas.tables import Predictions

    prompts, golds = questions["prompt"].to_list(), questions["answer"].to_list()
    said = answers_of(step, adapter, prompts, golds, what)
    answered = questions.select(EXAMPLES).with_columns(pl.Series("prediction", said, dtype=pl.String))
    graded = grade_rows(step, labels, answered, what)
    return answered.with_columns(
        pl.Series("grade", [grade for grade, _ in graded], dtype=pl.Int8),
        pl.Series("exact", [exact for _, exact in graded], dtype=pl.Boolean),
    ).cast(Predictions.empty().schema)  # type: ignore[arg-type]


def work_to_answer(view: View, adapter: Adapter | None, questions: "pl.DataFrame", labels: list[str]) -> dict[str, int]:
    """Rows that `answer_and_grade` would compute: {answers, grades}. An answer that is not there yet
    counts as one grade more; it may turn out to be one that was graded before."""
    import polars as pl

    keys = answer_keys(questions["prompt"].to_list())
    answers = answer_rows(view, adapter).read(keys)
    said = pl.Series("prediction", [answers.get(key) for key in keys], dtype=pl.String)
    known = grade_keys(questions.with_columns(said).drop_nulls("prediction"))
    tables = grade_tables(view, labels)
    ungraded = sum(table.missing(known) for table in tables.values())
    missing = len(set(keys)) - len(answers)
    return {"answers": missing, "grades": missing * len(tables) + ungraded}
