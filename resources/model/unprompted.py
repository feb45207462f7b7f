"""What a model says when nobody asks it anything: text as it was trained on, without other data.

From the token that begins a document alone, the model goes on as its training text did (context-free synthetic data:
Bansal and Sanghavi 2025, arXiv 2505.13811); from the chat template up to where a user speaks, it writes what users ask
(Magpie: Xu et al. 2024, arXiv 2406.08464) and goes on from there.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from resources.model.control_tokens import RowTexts, around, encoder
from resources.model.generation import go_on
from resources.model.packing import Ids, common_prefix
from resources.model.prompts import Policy, messages, render, written
from resources.model.sampling import by_seed, point
from resources.store.rows import Batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Origin = Literal["document", "chat"]

ASKED = ("a", "7")  # two questions: what is written before both is the header
NAMED = ("<|endoftext|>", "<|end_of_text|>", "</s>")  # tokens that end a document, so that another begins


def headers(tokenizer: "PreTrainedTokenizerBase", known: int) -> dict[Origin, Ids]:
    """Token ids that a text begins with. known: how many tokens the model has; a tokenizer may have more.

    document: the token that begins one; none of a tokenizer without such a token. chat: the template up to where a user
    speaks; left out without a template that has one.
    """
    document = document_start(tokenizer, known)
    if tokenizer.chat_template is None:
        return {"document": document}
    asked = [RowTexts(tokenizer).tokenise(render(RowTexts(tokenizer), text, None)) for text in ASKED]
    header = asked[0][: common_prefix(asked)]
    return {"document": document, "chat": header} if header else {"document": document}


def document_start(tokenizer: "PreTrainedTokenizerBase", known: int) -> Ids:
    """The first token of a document: what the tokenizer puts before a text, or a token that ends one and none of the
    template's turns; [] if there is none."""
    before, _ = around(tokenizer)
    if before:
        return before[:1]
    named = [tokenizer.bos_token_id, tokenizer.eos_token_id, *map(tokenizer.get_vocab().get, NAMED)]
    in_turns = tokens_of_turns(tokenizer)
    return [token for token in named if token is not None and token < known and token not in in_turns][:1]


def tokens_of_turns(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Tokens that stand more than once in a conversation of two questions: they begin or end a turn."""
    if tokenizer.chat_template is None:
        return set()
    turns = [*messages("a", None), {"role": "assistant", "content": "b"}, *messages("c", None)]
    try:
        ids = encoder(tokenizer)(written(tokenizer, turns, asks=True))
    except Exception:  # whatever a template says to a conversation that it does not take
        return set()
    return {token for token in ids if ids.count(token) > 1}


def first_token(tokenizer: "PreTrainedTokenizerBase", known: int, seed: str) -> int:
    """A token to begin with where there is no start token: any that the model knows and that is no special one."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ordinary = [token for token in range(min(len(tokenizer), known)) if token not in special]
    return ordinary[int(point(seed, 0) * len(ordinary))]


def vocabulary(model_dir: Path) -> int:
    """How many tokens a model has, by its configuration."""
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(model_dir, trust_remote_code=False).get_text_config().vocab_size)


def say(
    policy: Policy,
    origins: Sequence[Origin],
    *,
    seeds: Sequence[str],
    tokens: int,
    temperature: float,
    batch_tokens: int,
) -> Batches[Ids]:
    """Token ids of a text for each origin, which begin with its header and hold `tokens` more; without a chat template
    all begin as a document. seeds: of each text."""
    known = policy.model.get_input_embeddings().num_embeddings
    begins = headers(policy.tokenizer, known)
    asked = [
        begins.get(origin, begins["document"]) or [first_token(policy.tokenizer, known, seed)]
        for origin, seed in zip(origins, seeds, strict=True)
    ]
    # Where what a text begins with is all there is, nothing is left to be asked after it.
    for places, found in go_on(
        replace(policy, system_prompt=None),
        asked,
        beginning=[],
        end=set(),
        max_new_tokens=tokens,
        batch_tokens=batch_tokens,
        choose=by_seed(seeds, temperature),
    ):
        yield places, [[*asked[place], *ids] for place, ids in zip(places, found, strict=True)]
