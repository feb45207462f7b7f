from typing import TYPE_CHECKING, Any

from apt_assets.drawing import plots
from apt_assets.drawing.shared import CONFUSION
from apt_assets.engine.stage import Look, Plot, stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows import answers, grades
from apt_assets.rows.benchmark import OUTPUTS, score_policy, work_to_score
from apt_assets.rows.graded import answered_from
from apt_assets.rows.policy import adapter_of
from apt_assets.rows.scores import SCORES
from apt_assets.settings.iterations import ADAPTER_PARTS, BASE

if TYPE_CHECKING:
    import polars as pl


def questions(view: View) -> "tuple[dict[str, pl.DataFrame], list[str]]":
    """(split -> held-out Examples, the labels that compete)."""
    heldout = {split: view.read("domain_dataset", split) for split in ("validation", "test")}
    return heldout, grades.competing_labels(view, view.read("domain_dataset", "train")["answer"].to_list())


def work(view: View) -> dict[str, int]:
    return work_to_score(view, adapter_of(view, "adapter_checkpoint"), *questions(view))


def label_rates(look: Look) -> dict[str, Any] | None:
    from apt_assets.method.measures import by_label

    base, now = look.scored(BASE, "domain_items"), look.scored(look.shown, "domain_items")
    if base is None or now is None or not look.labels():
        return None
    rows = by_label(base, now, look.experiment.assessor.bad_below)
    return {"rows": rows, "before": BASE, "after": look.shown} if rows else None


@stage(
    inputs=[
        *(f"adapter_checkpoint/{part}" for part in ADAPTER_PARTS),
        "policy",
        "domain_dataset/train.parquet",
        "domain_dataset/validation.parquet",
        "domain_dataset/test.parquet",
    ],
    rows=[*answers.KINDS, *grades.KINDS, SCORES],
    settings=["policy.backend", *grades.SETTINGS, "benchmarks.tasks"],
    identities=[*grades.IDENTITIES, "benchmark_tasks"],
    libraries=["polars", "scipy"],
    outputs=OUTPUTS,
    main_table="domain_items",
    lineage=answered_from("domain_dataset"),
    plots=[
        Plot(
            "domain_and_general",
            "Domain against general ability",
            lambda look: look.scores(),
            plots.scores_by_iteration,
        ),
        Plot("labels", "By gold label, held-out rows", label_rates, lambda data: plots.label_rates(**data)),
        CONFUSION,
    ],
    work=work,
    memory=["answers", "scores"],
    group="6_evaluation",
    kinds=["torch", "json"],
)
def benchmark_scores(step: Step) -> None:
    """The new adapter on the domain's validation and test rows and on the general lm-eval tasks,
    item by item. Validation decides the gate; test is reported and decides nothing.
    """
    score_policy(step, adapter_of(step, "adapter_checkpoint"), *questions(step))
