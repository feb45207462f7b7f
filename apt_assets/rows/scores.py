"""Score one policy on the domain's held-out rows and on the general tasks, item by item."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from apt_assets.engine.view import Adapter, View
from apt_assets.rows.answers import answer_and_grade, work_to_answer
from apt_assets.rows.grades import competing_labels
from apt_assets.rows.policy import open_policy, policy_context
from resources.store.rows import Batches, RowTable

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step
    from resources.model.lm_eval_tasks import Task


def score_policy(step: "Step", adapter: Adapter | None, heldout: "dict[str, pl.DataFrame]", golds: list[str]) -> None:
    """Write domain_items, general_items and passage_items.parquet and scores.json for base model + adapter.

    heldout: split -> Examples. golds: training answers, from which competing labels are taken.
    """
    import polars as pl

    from apt_assets.method.scores import summarise

    # Before anything is generated: a task that cannot be used should not cost the domain's answers.
    tasks = tasks_of(step)
    labels = competing_labels(step, golds)
    domain = pl.concat(
        answer_and_grade(step, adapter, rows, labels, f"{split} rows").with_columns(split=pl.lit(split))
        for split, rows in heldout.items()
    )
    general, passages = score_general(step, adapter, tasks)
    step.write(domain, "domain_items")
    step.write(general, "general_items")
    step.write(passages, "passage_items")
    scores = summarise(domain, general, passages)
    (step.out / "scores.json").write_text(json.dumps(scores, indent=1))
    step.facts.update(scores)


def score_general(step: "Step", adapter: Adapter | None, tasks: "list[Task]") -> "tuple[pl.DataFrame, pl.DataFrame]":
    """`as_tables` of all tasks; items that this policy was scored on are reused."""
    from resources.model.lm_eval_tasks import score_items

    table = score_rows(step, adapter)
    found = []
    for task in tasks:

        def score(missing: list[int], task: "Task" = task) -> Batches[dict[str, Any]]:
            tokens = step.settings.policy.batch_tokens
            return score_items(open_policy(step, adapter), task, missing, batch_tokens=tokens)

        found.append((task, step.fill(table, task.keys, score, task.name, "items").values))
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


def work_to_score(
    view: View, adapter: Adapter | None, heldout: "dict[str, pl.DataFrame]", golds: list[str]
) -> dict[str, int]:
    """What `score_policy` would compute: {answers, grades, scores}."""
    import polars as pl

    labels = competing_labels(view, golds)
    asked = work_to_answer(view, adapter, pl.concat(heldout.values()), labels)
    table = score_rows(view, adapter)
    return {**asked, "scores": sum(table.missing(task.keys) for task in tasks_of(view))}


def score_rows(view: View, adapter: Adapter | None) -> RowTable:
    """Scores of this policy, by item."""
    context = {
        **policy_context(view, adapter),
        "batch_tokens": view.settings.policy.batch_tokens,
        "lm-eval": view.stage.library_versions(("lm-eval",)),
        "code": view.code("resources.model.policy", "resources.model.lm_eval_tasks"),
    }
    return view.row_table("scores", context)


def tasks_of(view: View) -> "list[Task]":
    return view.outside("benchmark_tasks").load(view.settings.benchmarks.tasks)
