import json
from typing import TYPE_CHECKING

from apt_assets.engine.stage import ANSWERING, BENCHMARKS, GRADING, GRADING_LIBRARIES, stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows.scores import score_policy, work_to_score

if TYPE_CHECKING:
    import polars as pl


def questions_now(view: View) -> "tuple[dict[str, pl.DataFrame], list[str]]":
    """(split -> held-out Examples, gold answers of the training rows) of all files landed by now."""
    from apt_assets.landing.records import read_landed
    from apt_assets.method.domain import build_domain

    data = view.settings.data
    parts = (part for path in view.landed() for part in read_landed(path))
    tables = build_domain(parts, data.validation, data.test, data.near_duplicate_words)
    return {split: tables[split] for split in ("validation", "test")}, tables["train"]["answer"].to_list()


def work(view: View) -> dict[str, int]:
    return work_to_score(view, view.initial_adapter(), *questions_now(view))


@stage(
    inputs=["landing_folder"],
    settings=["data.validation", "data.test", "data.near_duplicate_words", *ANSWERING, *GRADING, *BENCHMARKS],
    identities=["grader", "base_model", "initial_adapter", "benchmark_tasks"],
    libraries=["torch", "transformers", "peft", "lm-eval", "polars", *GRADING_LIBRARIES],
    work=work,
    group="evaluation",
    kinds=["torch", "json"],
    partitioned=False,
)
def base_scores(step: Step) -> None:
    """What the loop starts from, the base model or the initial adapter, on the same benchmarks: what the
    gate compares general ability with. Domain rows are those of all landed files.
    """
    from apt_assets.method.gate import start_in_words

    adapter = step.initial_adapter()
    score_policy(step, adapter, *questions_now(step))
    start = start_in_words(adapter)
    (step.out / "start.json").write_text(json.dumps({"start": start}))
    step.facts["start"] = start
