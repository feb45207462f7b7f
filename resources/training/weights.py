"""Pairs that count less than others.

A pair's weight, 0 to 1, multiplies its part of the loss, and so of every term: its -log sigmoid, and the NLL of each
token of its chosen answer. The sums are divided by as many pairs and tokens as without weights, and not by the weights:
else a pair would pull as hard as ever where those beside it are doubtful too, and in a batch of one always.

What a weight multiplies is the gradient that comes to a pair's log-probabilities, through which alone the pair is
trained, so TRL's losses stay its own. What it logs is of the pairs as they are: losses of two trainings compare.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def weigh_pairs(trainer: Any, weights: Sequence[float]) -> None:
    """Let a TRL trainer weigh the rows of its training set, one weight each. Where all are 1 nothing changes."""
    import torch

    trainer.train_dataset = trainer.train_dataset.add_column("weight", list(weights))
    collate, compute_loss = trainer.data_collator, trainer.compute_loss

    def with_weights(examples: list[dict[str, Any]]) -> dict[str, Any]:
        return {**collate(examples), "weight": torch.tensor([example["weight"] for example in examples])}

    def weighed(model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        rest = {name: value for name, value in inputs.items() if name != "weight"}
        return compute_loss(weighing(model, inputs["weight"]), rest, *arguments, **named)

    trainer.data_collator, trainer.compute_loss = with_weights, weighed


def weighing(model: Any, weights: "torch.Tensor") -> Callable[..., Any]:
    """The model, called with a batch of TRL's: sequences of all chosen answers, and then of all rejected ones."""

    def called(**inputs: Any) -> Any:
        output = model(**inputs)
        of_sequences = weights.repeat(2)[:, None]
        output.log_probs.register_hook(lambda gradient: gradient * of_sequences.to(gradient.dtype))
        return output

    return called
