from typing import TYPE_CHECKING

from apt_assets.drawing import plots
from apt_assets.engine.stage import Look, Plot, stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows import answers, grades
from apt_assets.rows.graded import answer_and_grade, answered_from, work_to_answer
from apt_assets.rows.policy import adapter_of

if TYPE_CHECKING:
    import polars as pl


def questions(view: View) -> "tuple[pl.DataFrame, list[str]]":
    """(this iteration's draw of training questions, the labels that compete)."""
    from apt_assets.method.mining import draw_questions

    train, mining = view.read("domain_dataset", "train"), view.settings.mining
    drawn = draw_questions(train, view.iteration, mining.questions, mining.seed)
    return drawn, grades.competing_labels(view, train["answer"].to_list())


def work(view: View) -> dict[str, int]:
    return work_to_answer(view, adapter_of(view, "policy"), *questions(view))


def counts(look: Look) -> dict[str, dict[int, int]]:
    from apt_assets.method.measures import grade_counts

    return {key: grade_counts(table) for key, table in look.tables("eval_predictions").items()}


@stage(
    inputs=["iteration", "policy", "domain_dataset/train.parquet"],
    rows=[*answers.KINDS, *grades.KINDS],
    settings=["mining.questions", "mining.seed", "policy.backend", *grades.SETTINGS],
    identities=[*grades.IDENTITIES],
    libraries=["polars"],
    outputs=["eval_predictions.parquet"],
    lineage=answered_from("domain_dataset"),
    plots=[Plot("grade_histogram", "Grades of the mined answers", counts, plots.grade_histogram)],
    work=work,
    memory=["answers"],
    group="3_mining",
    kinds=["torch", "polars"],
)
def eval_predictions(step: Step) -> None:
    """The policy's answers to this iteration's draw of training questions, graded 1-5 against the
    gold by the assessor that `assessor.kind` names.
    """
    predictions = answer_and_grade(step, adapter_of(step, "policy"), *questions(step), "mining")
    step.write(predictions)
    counts = predictions["grade"].value_counts().sort("grade")
    step.facts["rows"] = predictions.height
    step.facts["grades"] = {str(grade): count for grade, count in counts.iter_rows()}
