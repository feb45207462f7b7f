"""The anchor: what keeps a policy saying what it said before, where nobody asks it about the domain.

To the loss of each step, of whatever objective, comes weight * term, over a few texts that the model wrote which the
loop starts from. With x a token of a text, in nats and as a mean over the texts' tokens:

kl:  KL(start(. | before x) || policy(. | before x))
nll: -log policy(x | before x)

The texts need no other data (context-free synthetic data: Bansal and Sanghavi 2025, arXiv 2505.13811); the term in kl
is learning without forgetting (Li and Hoiem 2016, arXiv 1606.09282) on them.

kl needs no second pass: of what the start says, its LIKELY likeliest tokens are known for each place, and all others
as one. That is the divergence of a coarser view, so never more than the whole one, and less by
P * KL(start's others || policy's others), P the start's probability of all others.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from resources.model.packing import Ids
from resources.training.parts import Parts
from resources.training.shared_prompts import Along

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class AnchorText:
    """Token ids, of which the first `given` were not written by the model and are not scored.

    likely, log_probs: (tokens - given, LIKELY), of the start's likeliest tokens in each place; None: not known, as
    for nll.
    """

    ids: Ids
    given: int
    likely: "torch.Tensor | None" = None
    log_probs: "torch.Tensor | None" = None

    @property
    def said(self) -> int:
        return len(self.ids) - self.given


@dataclass(frozen=True)
class Anchor:
    """texts_per_step of the texts are drawn for each optimiser step, every text once before one comes again."""

    texts: Sequence[AnchorText]
    weight: float
    form: Literal["kl", "nll"]
    texts_per_step: int
    seed: int

    def of_step(self, step: int) -> list[AnchorText]:
        """By the number of the step alone, so that a resumed run draws what a straight one does."""
        return [self._nth(step * self.texts_per_step + n) for n in range(self.texts_per_step)]

    def _nth(self, place: int) -> AnchorText:
        turn, position = divmod(place, len(self.texts))
        order = list(range(len(self.texts)))
        random.Random(f"{self.seed}:{turn}").shuffle(order)
        return self.texts[order[position]]


def add_anchor(trainer: Any, anchor: Anchor, along: Along | None, parts: Parts) -> None:
    """Let a trainer, whose steps are made in `parts`, add the term to its loss, and log it as `anchor`, in nats. along:
    of `share_prompts`; None: the model is run plainly."""
    compute_loss: Callable[..., Any] = trainer.compute_loss

    def with_anchor(model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        texts = anchor.of_step(trainer.state.global_step)
        here, counts = parts.of_texts(texts)
        if along is not None:
            along.texts = [text.ids for text in here]
        loss = compute_loss(model, inputs, *arguments, **named)
        logged = 0.0
        if here:
            tokens = sum(text.said for text in texts)
            found = counts * term(said_logits(trainer.model.get_base_model(), here, along), here, anchor.form) / tokens
            logged, loss = float(found.detach()), loss + anchor.weight * found
        trainer._metrics["train"]["anchor"].append(logged)
        return loss

    trainer.compute_loss = with_anchor


def said_logits(model: Any, texts: Sequence[AnchorText], along: Along | None) -> "torch.Tensor":
    """(tokens said, vocabulary), text after text: what the policy expects in the place of each."""
    import torch

    if along is not None:
        states = [states[text.given - 1 :] for text, states in zip(texts, along.states, strict=True)]
        return along.logits(model, torch.cat(states))
    found = []
    for text in texts:
        ids = torch.tensor([text.ids[:-1]], device=model.device)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
        found.append(logits[text.given - 1 :])
    return torch.cat(found)


def term(logits: "torch.Tensor", texts: Sequence[AnchorText], form: Literal["kl", "nll"]) -> "torch.Tensor":
    """The sum over all tokens said, in nats. logits: of `said_logits`."""
    import torch

    logits = logits.float()
    if form == "nll":
        said = [token for text in texts for token in text.ids[text.given :]]
        return torch.nn.functional.cross_entropy(logits, torch.tensor(said, device=logits.device), reduction="sum")
    known = [(text.likely, text.log_probs) for text in texts]
    likely, log_probs = (torch.cat(part).to(logits.device) for part in zip(*known, strict=True))
    return divergence(logits, likely, log_probs).sum()


def divergence(logits: "torch.Tensor", likely: "torch.Tensor", log_probs: "torch.Tensor") -> "torch.Tensor":
    """KL from the start to the policy, place by place, (places,), with all tokens but the likely ones as one.

    logits: of the policy, (places, vocabulary). likely, log_probs: of the start, (places, LIKELY).
    """
    import torch

    whole = logits.logsumexp(-1)
    policy = logits.gather(-1, likely.long()) - whole[:, None]
    others = logits.scatter(-1, likely.long(), float("-inf")).logsumexp(-1) - whole
    shares = log_probs.exp()
    rest = (1 - shares.sum(-1)).clamp(min=0)
    return (shares * (log_probs - policy)).sum(-1) + torch.xlogy(rest, rest) - rest * others
