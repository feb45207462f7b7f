from typing import TYPE_CHECKING

from apt_assets.engine.stage import ANSWERING, GRADING, GRADING_LIBRARIES, stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows.answers import answer_and_grade, work_to_answer
from apt_assets.rows.grades import competing_labels

if TYPE_CHECKING:
    import polars as pl


def questions(view: View) -> "tuple[pl.DataFrame, list[str]]":
    """(this iteration's draw of training questions, the labels that compete)."""
    from apt_assets.method.mining import draw_questions

    train, mining = view.read("domain_dataset", "train"), view.settings.mining
    drawn = draw_questions(train, view.iteration, mining.questions, mining.seed)
    return drawn, competing_labels(view, train["answer"].to_list())


def work(view: View) -> dict[str, int]:
    return work_to_answer(view, view.previous_adapter(), *questions(view))


@stage(
    inputs=["iteration", "policy", "domain_dataset/train.parquet"],
    settings=["mining.questions", "mining.seed", *ANSWERING, *GRADING],
    identities=["grader"],
    libraries=["torch", "transformers", "peft", "polars", *GRADING_LIBRARIES],
    work=work,
    group="mining",
    kinds=["torch", "polars"],
)
def eval_predictions(step: Step) -> None:
    """The policy's answers to this iteration's draw of training questions, graded 1-5 against the
    gold by the assessor that `assessor.kind` names.
    """
    predictions = answer_and_grade(step, step.previous_adapter(), *questions(step), "mining")
    step.write(predictions)
    counts = predictions["grade"].value_counts().sort("grade")
    step.facts["rows"] = predictions.height
    step.facts["grades"] = {str(grade): count for grade, count in counts.iter_rows()}
