"""Score one policy on the domain's held-out rows and on the general tasks, item by item."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from apt_assets.answering import answer_and_grade, competing_labels, open_policy
from apt_assets.engine.execute import Step

if TYPE_CHECKING:
    import polars as pl


def score_policy(step: Step, adapter: Path | None, heldout: "dict[str, pl.DataFrame]", golds: list[str]) -> None:
    """Write domain_items.parquet, general_items.parquet and scores.json for base model + adapter.

    heldout: split -> Examples. golds: training answers, from which competing labels are taken.
    """
    import polars as pl

    from apt_assets.method.scores import summarise
    from resources.benchmarks import load_tasks, score_general

    settings = step.experiment.benchmarks
    # Before anything is generated: a task that cannot be used should not cost the domain's answers.
    tasks = load_tasks(step.project.tasks, settings.tasks, step.project.task_data)
    policy = open_policy(step, adapter)
    labels = competing_labels(step, golds)
    domain = pl.concat(
        answer_and_grade(step, policy, rows, labels, f"{split} rows").with_columns(split=pl.lit(split))
        for split, rows in heldout.items()
    )
    general = score_general(
        policy,
        tasks,
        items=settings.tasks,
        batch_size=settings.batch_size,
        log=step.log,
    )
    step.write(domain, "domain_items")
    step.write(general, "general_items")
    scores = summarise(domain, general)
    (step.out / "scores.json").write_text(json.dumps(scores, indent=1))
    step.facts.update(scores)
