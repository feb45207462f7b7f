"""Scores of the general tasks' items, by item."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apt_assets.engine.scope import RowScope
from apt_assets.engine.view import View
from apt_assets.rows import policy
from resources.store.kinds import RowKind
from resources.store.rows import Batches, RowTable

if TYPE_CHECKING:
    from resources.model.lm_eval_tasks import Task

# An item's key holds the task and the text, so that the tasks' identity is not in it.
SCORES = RowKind(
    "scores",
    table="scores",
    settings=(*policy.SETTINGS, "policy.batch_tokens"),
    identities=policy.IDENTITIES,
    libraries=(*policy.LIBRARIES, "lm-eval"),
    given=("adapter",),
    code=(__name__,),
    memory="scores",
)


def score(task: "Task", scope: RowScope, items: Sequence[int]) -> Batches[dict[str, Any]]:
    """items: their positions in the task."""
    from resources.model.lm_eval_tasks import score_items

    opened = policy.open_policy(scope)
    place = {item: n for n, item in enumerate(items)}
    for found, values in score_items(opened, task, items, batch_tokens=scope.settings.policy.batch_tokens):
        yield [place[item] for item in found], values


def score_rows(view: View, adapter: policy.Adapter | None) -> RowTable:
    """Scores of this policy, by item."""
    return view.rows(SCORES, adapter=adapter)
