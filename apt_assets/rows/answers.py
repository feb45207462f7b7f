"""Answers by question: keyed by the policy's content, how it generates, and the question."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.engine.scope import RowScope
from apt_assets.engine.spread import spread
from apt_assets.engine.view import View
from apt_assets.rows import by_server, by_transformers
from apt_assets.rows.policy import Adapter
from resources.store.digest import digest_rows
from resources.store.rows import Batches, RowTable, renumber

if TYPE_CHECKING:
    from apt_assets.engine.step import Step

BACKENDS: dict[str, Any] = {"transformers": by_transformers, "openai": by_server}
KINDS = tuple(backend.ANSWERS for backend in BACKENDS.values())


def answer_rows(view: View, adapter: Adapter | None) -> RowTable:
    """Answers of this policy, by question."""
    return view.rows(BACKENDS[view.settings.policy.backend].ANSWERS, adapter=adapter)


def answers_of(
    step: "Step", adapter: Adapter | None, prompts: Sequence[str], golds: Sequence[str], what: str
) -> list[str]:
    """The policy's answer to every prompt, from its rows or computed; tells first which golds no answer can be."""
    backend = BACKENDS[step.settings.policy.backend]

    def compute(scope: RowScope, missing: list[int]) -> Batches[str]:
        if line := beyond_reach(golds, scope.outside("base_model"), scope.settings.policy.max_new_tokens):
            step.tell(f"{what}: {line}")
        return renumber(spread(backend.answer, scope, [prompts[i] for i in missing]), missing)

    return step.fill(
        backend.ANSWERS,
        answer_keys(prompts),
        compute,
        what,
        "answers",
        adapter=adapter,
    ).values


def beyond_reach(golds: Sequence[str], base_model: Path, max_new_tokens: int) -> str | None:
    """A line on the gold answers that the policy cannot give whole; None: there is none."""
    from resources.model.policy import load_tokenizer

    # A token is one byte at least, but for a space that some tokenizers put before a text.
    doubtful = list({gold for gold in golds if len(gold.encode()) >= max_new_tokens})
    if not doubtful:
        return None
    encoded = load_tokenizer(base_model)(doubtful, add_special_tokens=False)["input_ids"]
    lengths = {gold: len(ids) for gold, ids in zip(doubtful, encoded, strict=True)}
    beyond = [length for gold in golds if (length := lengths.get(gold, 0)) > max_new_tokens]
    if not beyond:
        return None
    return (
        f"{len(beyond)} of {len(golds)} gold answers are longer than policy.max_new_tokens = {max_new_tokens} tokens "
        f"(the longest has {max(beyond)}): the policy cannot give them whole; raise it"
    )


def answer_keys(prompts: Sequence[str]) -> list[str]:
    return digest_rows(prompts, digits=32)
