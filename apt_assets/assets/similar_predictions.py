from typing import TYPE_CHECKING

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows import answers, grades
from apt_assets.rows.graded import answer_and_grade, answered_from, work_to_answer
from apt_assets.rows.policy import adapter_of

if TYPE_CHECKING:
    import polars as pl


def questions(view: View) -> "tuple[pl.DataFrame, list[str]]":
    """(the similar cases, the labels that compete)."""
    labels = grades.competing_labels(view, view.read("domain_dataset", "train")["answer"].to_list())
    return view.read("neighbors"), labels


def work(view: View) -> dict[str, int]:
    return work_to_answer(view, adapter_of(view, "policy"), *questions(view))


@stage(
    inputs=["neighbors", "policy", "domain_dataset/train.parquet"],
    rows=[*answers.KINDS, *grades.KINDS],
    settings=["policy.backend", *grades.SETTINGS],
    identities=[*grades.IDENTITIES],
    libraries=["polars"],
    outputs=["similar_predictions.parquet"],
    lineage=answered_from("neighbors"),
    work=work,
    memory=["answers"],
    group="4_retrieval",
    kinds=["torch", "polars"],
)
def similar_predictions(step: Step) -> None:
    """The policy's answers to the similar cases, graded as those to the mined questions are."""
    predictions = answer_and_grade(step, adapter_of(step, "policy"), *questions(step), "answering similar cases")
    step.write(predictions)
    step.facts["rows"] = predictions.height
