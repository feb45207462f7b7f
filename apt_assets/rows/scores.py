"""Scores of the general tasks' items, by item."""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from apt_assets.engine.scope import RowScope
from apt_assets.engine.view import View
from apt_assets.rows import policy
from resources.store.kinds import RowKind
from resources.store.rows import Batches, RowTable

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step
    from resources.model.lm_eval_tasks import Task

# An item's key holds the task and the text, so that the tasks' identity is not in it.
SCORES = RowKind(
    "scores",
    table="scores",
    settings=(*policy.SETTINGS, "policy.batch_tokens"),
    identities=("base_model",),
    libraries=(*policy.LIBRARIES, "lm-eval"),
    given=("adapter",),
    code=(__name__,),
)


def score(task: "Task", scope: RowScope, items: list[int]) -> Batches[dict[str, Any]]:
    from resources.model.lm_eval_tasks import score_items

    opened = policy.open_policy(scope)
    return score_items(opened, task, items, batch_tokens=scope.settings.policy.batch_tokens)


def score_rows(view: View, adapter: policy.Adapter | None) -> RowTable:
    """Scores of this policy, by item."""
    return view.rows(SCORES, adapter=adapter)


def score_general(
    step: "Step", adapter: policy.Adapter | None, tasks: "list[Task]"
) -> "tuple[pl.DataFrame, pl.DataFrame]":
    """`as_tables` of all tasks; items that this policy was scored on are reused."""
    found = []
    for task in tasks:
        filled = step.fill(
            SCORES,
            task.keys,
            partial(score, task),
            task.name,
            "items",
            adapter=adapter,
        )
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
