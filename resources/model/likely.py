"""What a model expects in each place of a text: its likeliest tokens, and how likely they are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resources.model import plain
from resources.model.packing import Ids, is_packed
from resources.model.prompts import Policy
from resources.model.scoring import Question, in_passes
from resources.store.rows import Batches

if TYPE_CHECKING:
    import torch

LIKELY = 64  # tokens in each place


def likely_tokens(
    policy: Policy, texts: Sequence[tuple[Ids, int]], *, batch_tokens: int
) -> "Batches[tuple[torch.Tensor, torch.Tensor]]":
    """`likeliest` of each text, in the places of its tokens but the first ones, which are given. texts: (token ids, how
    many are given)."""
    import torch

    asked = [Question(ids[:given], (ids[given:],)) for ids, given in texts]
    if not is_packed(policy.model):
        for place, question in enumerate(asked):
            with torch.inference_mode():
                log_probs = plain.log_probabilities(policy.model, question.context, *question.answers)
            yield [place], [likeliest(log_probs)]
        return

    def read(
        questions: Sequence[Question], logits: "torch.Tensor", _: list[int]
    ) -> "list[tuple[torch.Tensor, torch.Tensor]]":
        lengths = [question.targets for question in questions]
        return list(zip(*(found.split(lengths) for found in likeliest(logits)), strict=True))

    yield from in_passes(policy.model, asked, read, batch_tokens=batch_tokens)


def likeliest(logits: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """(tokens, their log-probabilities in nats), each (places, LIKELY), likeliest first. logits: (places, vocabulary).

    Of a vocabulary of no more than that, all tokens but the least likely.
    """
    log_probs, tokens = logits.float().log_softmax(-1).topk(min(LIKELY, logits.shape[-1] - 1))
    return tokens, log_probs
