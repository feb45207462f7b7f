"""Score one policy on the domain's held-out rows and on the general tasks, item by item."""

import json
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from apt_assets.engine.scope import RowScope
from apt_assets.engine.spread import spread
from apt_assets.engine.view import View
from apt_assets.rows.graded import answer_and_grade, work_to_answer
from apt_assets.rows.policy import Adapter
from apt_assets.rows.scores import SCORES, score, score_rows
from resources.store.rows import Batches, renumber

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step
    from apt_assets.method.gate import Scores
    from resources.model.lm_eval_tasks import Task

OUTPUTS = ("domain_items.parquet", "general_items.parquet", "passage_items.parquet", "scores.json")


def score_policy(step: "Step", adapter: Adapter | None, heldout: "dict[str, pl.DataFrame]", labels: list[str]) -> None:
    """Write OUTPUTS for base model + adapter. heldout: split -> Examples. labels: those that compete."""
    write_scores(step, scores_of(step, adapter, heldout, labels))


def scores_of(step: "Step", adapter: Adapter | None, heldout: "dict[str, pl.DataFrame]", labels: list[str]) -> "Scores":
    """Of base model + adapter."""
    import polars as pl

    from apt_assets.method.gate import Scores

    # Before anything is generated: a task that cannot be used should not cost the domain's answers.
    tasks = tasks_of(step)
    domain = pl.concat(
        answer_and_grade(step, adapter, rows, labels, f"{split} rows").with_columns(split=pl.lit(split))
        for split, rows in heldout.items()
    )
    return Scores(domain, *score_general(step, adapter, tasks))


def write_scores(step: "Step", scores: "Scores") -> None:
    """OUTPUTS."""
    from apt_assets.method.scores import summarise

    step.write(scores.domain, "domain_items")
    step.write(scores.general, "general_items")
    step.write(scores.passages, "passage_items")
    summary = summarise(scores.domain, scores.general, scores.passages)
    (step.out / "scores.json").write_text(json.dumps(summary, indent=1))
    step.facts.update(summary)


def work_to_score(
    view: View, adapter: Adapter | None, heldout: "dict[str, pl.DataFrame]", labels: list[str]
) -> dict[str, int]:
    """What `score_policy` would compute: {answers, grades, scores}."""
    import polars as pl

    asked = work_to_answer(view, adapter, pl.concat(heldout.values()), labels)
    table = score_rows(view, adapter)
    return {**asked, "scores": sum(table.missing(task.keys) for task in tasks_of(view))}


def tasks_of(view: View) -> "list[Task]":
    return view.outside("benchmark_tasks").load(view.settings.benchmarks.tasks)


def score_general(step: "Step", adapter: Adapter | None, tasks: "list[Task]") -> "tuple[pl.DataFrame, pl.DataFrame]":
    """`as_tables` of all tasks; items that this policy was scored on are reused."""
    found = []
    for task in tasks:

        def scored(scope: RowScope, missing: list[int], task: "Task" = task) -> Batches[dict[str, Any]]:
            return renumber(spread(partial(score, task), scope, missing), missing)

        filled = step.fill(SCORES, task.keys, scored, task.name, "items", adapter=adapter)
        found.append((task, filled.values))
    return as_tables(found)


def as_tables(scored: "Iterable[tuple[Task, list[dict[str, Any]]]]") -> "tuple[pl.DataFrame, pl.DataFrame]":
    """(GeneralItems, PassageItems), sorted by task and item, of what `score_items` says of each task's items."""
    import polars as pl

    from schemas.tables import GeneralItems, PassageItems

    rows: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for task, values in scored:
        rows[task.rolling] += [{"task": task.name, "item": item, **its} for item, its in enumerate(values)]
    general = pl.DataFrame(rows[False], schema=GeneralItems.empty().schema)
    passages = pl.DataFrame(rows[True], schema=PassageItems.empty().schema)
    return general.sort("task", "item"), passages.sort("task", "item")
