"""One optimiser step in as many passes as memory asks for.

The pairs of a batch are one pass if that fits, and else several, whose gradients add up to that of the batch: each
term of the loss is a mean over the batch, of pairs or of tokens, so that of a part counts by the part's share of them.
How many pairs a pass may have is found by trial: half as many after one that ran out of memory, and the step is begun
anew. Up to rounding that changes nothing.
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from resources.model.no_room import NoRoom, Tell, TooLittleMemory, attempt

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]
# Terms that are means over the tokens of the batch's chosen answers; the others are means over its pairs.
BY_TOKENS = ("sft",)


class Parts:
    """Replaces a TRL trainer's `training_step`. pairs: in a pass, at most; a checkpoint keeps it, so that a resumed
    training makes the passes that a straight one does."""

    def __init__(self, trainer: Any, pairs: int, checkpointing: "Checkpointing", tell: Tell):
        self.trainer, self.pairs, self.checkpointing, self.tell = trainer, pairs, checkpointing, tell
        self.loss_weights = list(trainer.loss_weights)
        self.number, self.count = 0, 1  # of the part that is computed, and of how many
        self.whole_step = trainer.training_step
        trainer.training_step = self.training_step

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> "torch.Tensor":
        """The loss of a batch, whose gradient is then in the parameters. Raises TooLittleMemory if a pair alone does
        not fit."""
        before = random_state()
        while isinstance(found := attempt(partial(self.in_parts, model, inputs)), NoRoom):
            self.make_smaller(inputs, found)
            model.zero_grad()
            set_random_state(before)
        return found

    def in_parts(self, model: Any, inputs: Batch) -> "torch.Tensor":
        metrics = self.trainer._metrics["train"]
        metrics.clear()
        pairs, tokens = size_of(inputs)
        parts = list(parts_of(inputs, self.pairs))
        losses, shares = [], []
        for self.number, part in enumerate(parts):
            self.count = len(parts)
            its_pairs, its_tokens = size_of(part)
            shares.append(its_pairs / pairs)
            self.trainer.loss_weights = [
                weight * (its_tokens / tokens if kind in BY_TOKENS else its_pairs / pairs)
                for kind, weight in zip(self.trainer.loss_types, self.loss_weights, strict=True)
            ]
            losses.append(self.whole_step(model, part))
        for name, values in metrics.items():
            if len(values) == len(shares):
                metrics[name] = [sum(share * value for share, value in zip(shares, values, strict=True))]
        return sum(losses[1:], losses[0])

    def make_smaller(self, inputs: Batch, lacking: NoRoom) -> None:
        had = min(self.pairs, size_of(inputs)[0])
        if had > 1:
            self.pairs = -(-had // 2)
            self.tell(
                f"a training pass of {had} pairs does not fit into memory: from here on a batch is passes of up to "
                f"{self.pairs}, with the same gradient up to rounding"
            )
        elif self.checkpointing.turn_on():
            self.tell("a training pass of one pair does not fit into memory: gradient checkpointing is on from here on")
        else:
            raise TooLittleMemory(
                f"a training pass of one pair of {int(inputs['attention_mask'].sum(1).max())} tokens does not fit into "
                f"memory ({lacking.reason}): lower training.max_length"
                + ("" if self.checkpointing.is_on else ", set training.gradient_checkpointing to on")
                + ", or name a smaller model, dtype or quantization in policy"
            )


class Checkpointing:
    """Whether a trainer's model computes what is within its layers once more on the way back, and keeps only what goes
    from layer to layer. may: whether it may be turned on."""

    def __init__(self, trainer: Any, *, may: bool):
        self.model, self.is_on = trainer.model.get_base_model(), False
        self.may = may and self.model.supports_gradient_checkpointing

    def turn_on(self) -> bool:
        """Whether that changed anything."""
        if self.is_on or not self.may:
            return False
        # Not reentrant: the inputs of a layer come as keywords.
        self.model.activation_checkpointing_enable({"use_reentrant": False})
        self.is_on = True
        return True


def size_of(inputs: Batch) -> tuple[int, int]:
    """(pairs, tokens of their chosen answers)."""
    pairs = len(inputs["input_ids"]) // 2
    return pairs, int(inputs["completion_mask"][:pairs, 1:].sum())


def parts_of(inputs: Batch, most: int) -> Iterator[Batch]:
    """A batch of TRL's, the chosen sequences and then the rejected ones, in parts of up to `most` pairs each, cut to
    the longest sequence of a part."""
    import torch

    pairs, _ = size_of(inputs)
    if pairs <= most:
        yield inputs
        return
    for first in range(0, pairs, most):
        rows = torch.arange(first, min(first + most, pairs))
        of_both = torch.cat([rows, rows + pairs])
        part = {name: values[of_both if len(values) == 2 * pairs else rows] for name, values in inputs.items()}
        longest = int(part["attention_mask"].sum(1).max())
        yield {name: values[:, :longest] if values.ndim == 2 else values for name, values in part.items()}


def random_state() -> "list[torch.Tensor]":
    import torch

    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def set_random_state(state: "list[torch.Tensor]") -> None:
    import torch

    torch.set_rng_state(state[0])
    if state[1:]:
        torch.cuda.set_rng_state_all(state[1:])
