"""One optimiser step in as many passes as memory asks for, by as many processes as train together.

The pairs of a batch are one pass if that fits, and else several, whose gradients add up to that of the batch: each
term of the loss is a mean over the batch, of pairs or of tokens, so that of a part counts by the part's share of them.
Of several processes (resources/training/together.py) each makes passes of its share of the pairs, as many as the rest.
How many pairs a pass may have is found by trial: half as many after one that ran out of memory, and the step is begun
anew. Up to rounding that changes nothing.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from resources.model.no_room import NoRoom, Tell, TooLittleMemory, attempt
from resources.training.together import Together

if TYPE_CHECKING:
    import torch

Text = TypeVar("Text")
Batch = dict[str, "torch.Tensor"]
# Terms that are means over the tokens of the batch's chosen answers; the others are means over its pairs.
BY_TOKENS = ("sft",)
# Logged as a sum over all passes, not as a mean of theirs.
SUMS = ("anchor",)


class Parts:
    """Replaces a TRL trainer's `training_step`. pairs: in a pass, at most; a checkpoint keeps it, so that a resumed
    training makes the passes that a straight one does."""

    def __init__(self, trainer: Any, pairs: int, checkpointing: "Checkpointing", tell: Tell, together: Together):
        self.trainer, self.pairs, self.checkpointing, self.tell = trainer, pairs, checkpointing, tell
        self.together, self.trained = together, [its for its in trainer.model.parameters() if its.requires_grad]
        self.loss_weights = list(trainer.loss_weights)
        self.number, self.count = 0, 1  # of the pass that this process makes, and of how many
        self.whole_step = trainer.training_step
        trainer.training_step = self.training_step

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Any = None) -> "torch.Tensor":
        """The loss of a batch, whose gradient is then in the parameters. Raises TooLittleMemory if a pair alone does
        not fit, or if a pass does not that processes make in step."""
        before = random_state()
        while True:
            found = attempt(partial(self.in_parts, model, inputs))
            lacking = found if isinstance(found, NoRoom) else None
            if lacking and self.together.in_step:
                raise too_little(inputs, lacking, min(self.pairs, self.most(inputs)), "lower training.batch_size")
            if not self.together.any(lacking is not None, model.device):
                break
            self.make_smaller(inputs, lacking or NoRoom("in another process"))
            model.zero_grad()
            set_random_state(before)
        self.together.add_up(self.trained)
        return self.of_all(found)

    def in_parts(self, model: Any, inputs: Batch) -> "torch.Tensor":
        """The loss of this process's pairs as a part of the whole batch's; its gradient is in the parameters."""
        metrics = self.trainer._metrics["train"]
        metrics.clear()
        pairs, tokens = size_of(inputs)
        self.count = -(-self.most(inputs) // self.pairs)
        losses, shares = [], []
        passes = passes_of(inputs, self.together.share_of(pairs), self.pairs, self.count)
        for self.number, (part, counts) in enumerate(passes):
            its_pairs, its_tokens = size_of(part) if counts else (0, 0)
            shares.append(its_pairs / pairs)
            self.trainer.loss_weights = [
                weight * (its_tokens / tokens if kind in BY_TOKENS else its_pairs / pairs)
                for kind, weight in zip(self.trainer.loss_types, self.loss_weights, strict=True)
            ]
            losses.append(self.whole_step(model, part))
        for name, values in metrics.items():
            if name in SUMS:
                metrics[name] = [sum(values)]
            elif len(values) == len(shares):
                metrics[name] = [sum(share * value for share, value in zip(shares, values, strict=True))]
        return sum(losses[1:], losses[0])

    def of_all(self, loss: "torch.Tensor") -> "torch.Tensor":
        """The loss of the batch, and what is logged with it, of which each process has its part."""
        if self.together.size == 1:
            return loss
        metrics = self.trainer._metrics["train"]
        names = sorted(metrics)
        whole, *values = self.together.sums([float(loss), *(metrics[name][-1] for name in names)], loss.device)
        metrics.update({name: [value] for name, value in zip(names, values, strict=True)})
        return loss.new_tensor(whole)

    def of_texts(self, texts: Sequence[Text]) -> tuple[Sequence[Text], float]:
        """Which of the texts of a step go through the pass that is made, and how much of each counts there."""
        rank, size = self.together.rank, self.together.size
        if self.together.in_step:  # so all have as many: each takes all, and they count by a share
            return texts[self.number :: self.count], 1 / size
        return texts[self.number * size + rank :: self.count * size], 1.0

    def most(self, inputs: Batch) -> int:
        """How many pairs of a batch a process has, at most."""
        return self.together.most_of(size_of(inputs)[0])

    def make_smaller(self, inputs: Batch, lacking: NoRoom) -> None:
        had = min(self.pairs, self.most(inputs))
        if had > 1:
            self.pairs = -(-had // 2)
            self.tell(
                f"a training pass of {had} pairs does not fit into memory: from here on a batch is passes of up to "
                f"{self.pairs}, with the same gradient up to rounding"
            )
        elif self.checkpointing.turn_on():
            self.tell("a training pass of one pair does not fit into memory: gradient checkpointing is on from here on")
        else:
            helps = "" if self.checkpointing.is_on else ", set training.gradient_checkpointing to on"
            raise too_little(inputs, lacking, 1, f"lower training.max_length{helps}")


def too_little(inputs: Batch, lacking: NoRoom, pairs: int, helps: str) -> TooLittleMemory:
    what = "one pair" if pairs == 1 else f"{pairs} pairs"
    return TooLittleMemory(
        f"a training pass of {what} of {int(inputs['attention_mask'].sum(1).max())} tokens does not fit into memory "
        f"({lacking.reason}): {helps}, or name a smaller model, dtype or quantization in policy"
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


def passes_of(inputs: Batch, share: range, most: int, count: int) -> Iterator[tuple[Batch, bool]]:
    """A batch of TRL's, the chosen sequences and then the rejected ones, in `count` passes: those of a process's share
    of the pairs, up to `most` in each, and as many more as other processes make, of a pair that does not count (False).
    Each is cut to its longest sequence."""
    pairs, _ = size_of(inputs)
    if len(share) == pairs <= most:
        yield inputs, True
        return
    for first in range(0, count * most, most):
        rows = share[first : first + most]
        yield rows_of(inputs, rows or range(1)), bool(rows)


def rows_of(inputs: Batch, rows: range) -> Batch:
    """A batch of these of its pairs."""
    import torch

    pairs, its = size_of(inputs)[0], torch.tensor(rows)
    of_both = torch.cat([its, its + pairs])
    part = {name: values[of_both if len(values) == 2 * pairs else its] for name, values in inputs.items()}
    longest = int(part["attention_mask"].sum(1).max())
    return {name: values[:, :longest] if values.ndim == 2 else values for name, values in part.items()}


def random_state() -> "list[torch.Tensor]":
    import torch

    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def set_random_state(state: "list[torch.Tensor]") -> None:
    import torch

    torch.set_rng_state(state[0])
    if state[1:]:
        torch.cuda.set_rng_state_all(state[1:])
