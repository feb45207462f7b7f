"""Answers by transformers' layers on packed rows, in this process."""

from collections.abc import Sequence

from apt_assets.engine.scope import RowScope
from apt_assets.rows import policy
from resources.store.kinds import RowKind
from resources.store.rows import Batches

ANSWERS = RowKind(
    "answers by transformers",
    table="answers",
    settings=(*policy.SETTINGS, "policy.system_prompt", "policy.max_new_tokens", "policy.batch_tokens"),
    identities=policy.IDENTITIES,
    libraries=policy.LIBRARIES,
    given=("adapter",),
    code=(__name__,),
    memory="answers",
)


def answer(scope: RowScope, prompts: Sequence[str]) -> Batches[str]:
    from resources.model.generation import generate

    settings = scope.settings.policy
    opened = policy.open_policy(scope, settings.system_prompt)
    return generate(opened, prompts, max_new_tokens=settings.max_new_tokens, batch_tokens=settings.batch_tokens)
