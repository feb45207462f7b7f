"""Answers by question: keyed by the policy's content, how it generates, and the question."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apt_assets.engine.view import View
from apt_assets.rows import by_server, by_transformers, by_vllm
from apt_assets.rows.policy import Adapter
from resources.store.digest import digest_rows
from resources.store.rows import RowTable, renumber

if TYPE_CHECKING:
    from apt_assets.engine.step import Step

BACKENDS: dict[str, Any] = {"transformers": by_transformers, "vllm": by_vllm, "openai": by_server}
KINDS = tuple(backend.ANSWERS for backend in BACKENDS.values())


def answer_rows(view: View, adapter: Adapter | None) -> RowTable:
    """Answers of this policy, by question."""
    return view.rows(BACKENDS[view.settings.policy.backend].ANSWERS, adapter=adapter)


def answers_of(step: "Step", adapter: Adapter | None, prompts: Sequence[str], what: str) -> list[str]:
    """The policy's answer to every prompt, from its rows or computed."""
    backend = BACKENDS[step.settings.policy.backend]
    return step.fill(
        backend.ANSWERS,
        answer_keys(prompts),
        lambda scope, missing: renumber(backend.answer(scope, [prompts[i] for i in missing]), missing),
        what,
        "answers",
        adapter=adapter,
    ).values


def answer_keys(prompts: Sequence[str]) -> list[str]:
    return digest_rows(prompts, digits=32)
