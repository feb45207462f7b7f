"""Preference pairs as token ids: the prompt as answering reads it, and answers as the policy would say them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resources.model.control_tokens import RowTexts, encoder
from resources.model.policy import Policy, end_tokens, messages, render
from resources.model.prompts import written

if TYPE_CHECKING:
    import polars as pl
    from datasets import Dataset

ANSWER = "\U000ffff0"  # stands for an answer; no template and no text has this private character


@dataclass(frozen=True)
class Fit:
    """What of the pairs is trained. left_out: those whose prompt leaves no room for an answer. cut: those of the
    trained whose answers do not fit whole, so that how they end is not trained."""

    trained: int
    left_out: int
    cut: int


@dataclass(frozen=True)
class Turn:
    """What stands around an answer that is trained. before: white space. after: what the chat template writes. end:
    the end token, where that has none."""

    before: str
    after: str
    end: list[int]


def tokenise_pairs(policy: Policy, pairs: "pl.DataFrame", max_length: int, *, with_rejected: bool) -> "Dataset":
    """prompt_ids, chosen_ids and rejected_ids of each pair whose prompt has less than `max_length` tokens, and its
    position as `row`.

    with_rejected: otherwise rejected answers are empty, for a loss that does not use them. The second sequence of a
    pair is then the prompt, all of which the first one has too, so a step costs what the chosen answers alone cost.
    Raises ValueError if no prompt is that short.
    """
    from datasets import Dataset, Features, List, Value

    ids = List(Value("int64"))
    features = Features({"prompt_ids": ids, "chosen_ids": ids, "rejected_ids": ids, "row": Value("int64")})
    columns: dict[str, list[Any]] = {name: [] for name in features}
    turn = answer_turn(policy)
    for row, (prompt, *answers) in enumerate(pairs.select("prompt", "chosen", "rejected").iter_rows()):
        prompt_ids, answer_ids = tokenise(policy, turn, prompt, answers if with_rejected else answers[:1])
        if len(prompt_ids) < max_length:
            chosen, rejected = answer_ids if with_rejected else (*answer_ids, [])
            for name, value in zip(features, (prompt_ids, chosen, rejected, row), strict=True):
                columns[name].append(value)
    if not columns["row"]:
        raise ValueError(f"every prompt has training.max_length = {max_length} tokens or more: raise it")
    return Dataset.from_dict(columns, features=features)


def fit_of(dataset: "Dataset", pairs: int, max_length: int) -> Fit:
    """dataset: what `tokenise_pairs` made of so many pairs."""
    cut = sum(
        len(example["prompt_ids"]) + max(len(example["chosen_ids"]), len(example["rejected_ids"])) > max_length
        for example in dataset
    )
    return Fit(len(dataset), pairs - len(dataset), cut)


def tokenise(policy: Policy, turn: Turn, prompt: str, answers: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """(token ids of the prompt, token ids of each answer to it): what `encode` makes of the prompt, whatever the
    template writes before an answer that is there already."""
    texts = RowTexts(policy.tokenizer, prompt, policy.system_prompt, *answers)
    asked = render(texts, prompt, policy.system_prompt)
    prompt_ids = texts.tokenise(asked)
    found = []
    for answer in answers:
        said = f"{turn.before}{texts.marked(answer)}{turn.after}"
        whole = texts.tokenise(asked + said)
        # Where the first characters of an answer would merge with the prompt's last ones, it is tokenised apart: the
        # policy goes on after the tokens of the prompt.
        together = whole[: len(prompt_ids)] == prompt_ids
        found.append((whole[len(prompt_ids) :] if together else texts.tokenise_on(said)) + turn.end)
    return prompt_ids, found


def answer_turn(policy: Policy) -> Turn:
    """As the chat template writes a conversation with an answer in it. What is not white space before the answer, such
    as an empty thought, is left out: the policy is not asked with it, and what it says is graded from its first
    letter."""
    tokenizer, end = policy.tokenizer, end_tokens(policy.model, policy.tokenizer)
    before, after = around_answer(policy) if tokenizer.chat_template is not None else ("", "")
    ends = not end or not end.isdisjoint(encoder(tokenizer)(after))
    usual = tokenizer.eos_token_id if tokenizer.eos_token_id in end else min(end, default=None)
    return Turn(before, after, [] if ends or usual is None else [usual])


def around_answer(policy: Policy) -> tuple[str, str]:
    """White space before, and what is written after an answer; nothing, if the template takes no answer."""
    asked = render(RowTexts(policy.tokenizer), "a", policy.system_prompt)
    turns = [*messages("a", policy.system_prompt), {"role": "assistant", "content": ANSWER}]
    try:
        whole = written(policy.tokenizer, turns, asks=False)
    except Exception:  # whatever a template says to an answer that it does not take
        return "", ""
    until, _, after = whole.partition(ANSWER)
    before = until.removeprefix(asked)
    return (before if before.isspace() else ""), after


def as_conversations(pairs: "pl.DataFrame", system_prompt: str | None, tokenizer: Any) -> list[dict[str, Any]]:
    """TRL's explicit-prompt preference format: conversational, or plain text without a template."""
    rows = pairs.select("prompt", "chosen", "rejected").iter_rows(named=True)
    if tokenizer.chat_template is None:
        lead = f"{system_prompt}\n" if system_prompt else ""
        return [{"prompt": f"{lead}{r['prompt']}\n", "chosen": r["chosen"], "rejected": r["rejected"]} for r in rows]
    return [
        {
            "prompt": messages(r["prompt"], system_prompt),
            "chosen": [{"role": "assistant", "content": r["chosen"]}],
            "rejected": [{"role": "assistant", "content": r["rejected"]}],
        }
        for r in rows
    ]
