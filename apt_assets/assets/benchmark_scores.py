from typing import TYPE_CHECKING

from apt_assets.engine.stage import ANSWERING, BENCHMARKS, GRADING, GRADING_LIBRARIES, stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows.scores import score_policy, work_to_score

if TYPE_CHECKING:
    import polars as pl


def questions(view: View) -> "tuple[dict[str, pl.DataFrame], list[str]]":
    """(split -> held-out Examples, gold answers of the training rows)."""
    heldout = {split: view.read("domain_dataset", split) for split in ("validation", "test")}
    return heldout, view.read("domain_dataset", "train")["answer"].to_list()


def work(view: View) -> dict[str, int]:
    return work_to_score(view, view.new_adapter(), *questions(view))


@stage(
    inputs=[
        "adapter_checkpoint/adapter_model.safetensors",
        "adapter_checkpoint/adapter_config.json",
        "policy",
        "domain_dataset/train.parquet",
        "domain_dataset/validation.parquet",
        "domain_dataset/test.parquet",
    ],
    settings=[*ANSWERING, *GRADING, *BENCHMARKS],
    identities=["grader", "benchmark_tasks"],
    libraries=["torch", "transformers", "peft", "lm-eval", "polars", *GRADING_LIBRARIES],
    work=work,
    group="evaluation",
    kinds=["torch", "json"],
)
def benchmark_scores(step: Step) -> None:
    """The new adapter on the domain's validation and test rows and on the general lm-eval tasks,
    item by item. Validation decides the gate; test is reported and decides nothing.
    """
    score_policy(step, step.new_adapter(), *questions(step))
