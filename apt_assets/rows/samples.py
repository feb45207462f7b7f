"""Sampled answers by question and try, each seeded by its key."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from apt_assets.engine.scope import RowScope
from apt_assets.engine.spread import spread
from apt_assets.engine.view import View
from apt_assets.rows import policy
from resources.store.digest import digest_rows
from resources.store.kinds import RowKind
from resources.store.rows import Batches, RowTable, renumber

if TYPE_CHECKING:
    from apt_assets.engine.step import Step

SAMPLES = RowKind(
    "samples",
    table="answers",
    settings=(
        *policy.SETTINGS,
        "policy.system_prompt",
        "policy.max_new_tokens",
        "policy.batch_tokens",
        "pairs.temperature",
    ),
    identities=policy.IDENTITIES,
    libraries=policy.LIBRARIES,
    given=("adapter",),
    code=(__name__,),
    memory="answers",
)


def sample(scope: RowScope, asked: Sequence[tuple[str, str]]) -> Batches[str]:
    """asked: (prompt, seed) of each."""
    from resources.model import sampling

    settings = scope.settings.policy
    return sampling.sample(
        policy.open_policy(scope, settings.system_prompt),
        [prompt for prompt, _ in asked],
        seeds=[seed for _, seed in asked],
        temperature=scope.settings.pairs.temperature,
        max_new_tokens=settings.max_new_tokens,
        batch_tokens=settings.batch_tokens,
    )


def sampled_rows(view: View) -> RowTable:
    return view.rows(SAMPLES, adapter=policy.adapter_of(view, "policy"))


def samples_of(step: "Step", prompts: Sequence[str], attempt: int) -> list[str]:
    """The policy's answers to these questions in one try."""
    keys = sample_keys(prompts, attempt)
    return step.fill(
        SAMPLES,
        keys,
        lambda scope, missing: renumber(spread(sample, scope, [(prompts[i], keys[i]) for i in missing]), missing),
        f"sampling, try {attempt + 1}",
        "answers",
        adapter=policy.adapter_of(step, "policy"),
    ).values


def sample_keys(prompts: Sequence[str], attempt: int) -> list[str]:
    return digest_rows(prompts, [str(attempt)] * len(prompts), digits=32)
