import json
from typing import TYPE_CHECKING

from apt_assets.drawing.shared import CONFUSION
from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows import answers, grades
from apt_assets.rows.benchmark import OUTPUTS, score_policy, work_to_score
from apt_assets.rows.policy import initial_adapter
from apt_assets.rows.scores import SCORES

if TYPE_CHECKING:
    import polars as pl


def questions(view: View) -> "tuple[dict[str, pl.DataFrame], list[str]]":
    """(split -> held-out Examples, the labels that compete) of all files landed by now."""
    heldout = {split: view.read("heldout_rows", split) for split in ("validation", "test")}
    found = json.loads(view.artifact("heldout_rows", "labels.json").read_text())["labels"]
    return heldout, grades.labels_as_set(view, lambda: found)


def work(view: View) -> dict[str, int]:
    return work_to_score(view, initial_adapter(view), *questions(view))


@stage(
    inputs=["heldout_rows"],
    rows=[*answers.KINDS, *grades.KINDS, SCORES],
    settings=["policy.backend", *grades.SETTINGS, "benchmarks.tasks"],
    identities=[*grades.IDENTITIES, "base_model", "execution", "initial_adapter", "benchmark_tasks"],
    libraries=["polars", "scipy"],
    outputs=[*OUTPUTS, "start.json"],
    main_table="domain_items",
    plots=[CONFUSION],
    work=work,
    memory=["answers", "scores"],
    group="6_evaluation",
    kinds=["torch", "json"],
    partitioned=False,
)
def base_scores(step: Step) -> None:
    """What the loop starts from, the base model or the initial adapter, on the same benchmarks: what the
    gate compares general ability with. Domain rows are those of all landed files.
    """
    from apt_assets.method.gate import start_in_words

    adapter = initial_adapter(step)
    score_policy(step, adapter, *questions(step))
    start = start_in_words(adapter)
    (step.out / "start.json").write_text(json.dumps({"start": start}))
    step.facts["start"] = start
