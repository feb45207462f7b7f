"""One training by several processes, each with a copy of the adapter, which stay copies.

A batch is shared out by whole pairs. Each process divides its part of the loss by what the whole batch has of pairs and
tokens, which it knows without asking, and gradients are added up before each step: so the step is the one that a single
process makes of the batch, up to rounding. (A mean over processes, as DistributedDataParallel makes it, is another step
where they have other numbers of tokens.) Only the adapter is trained, and its gradients are one small message.

Of fsdp2 the frozen weights of the layers are shared out too (Zhao et al. 2023, arXiv 2304.11277; torch's fully_shard),
and come together layer by layer as they are needed. The adapter is left out of that, so optimiser, checkpoints and what
is saved are those of a single process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Strategy = Literal["ddp", "fsdp2"]


@dataclass(frozen=True)
class Together:
    """This process, the `rank`th of `size`, in torch's process group, which is there if there are several."""

    rank: int = 0
    size: int = 1
    strategy: Strategy = "ddp"

    @property
    def in_step(self) -> bool:
        """Whether all make each pass at once, since none has all the weights."""
        return self.size > 1 and self.strategy == "fsdp2"

    def share_of(self, number: int) -> range:
        """Which of so many pairs are this process's; shares differ by one at most, the larger ones come first."""
        least, more = divmod(number, self.size)
        first = self.rank * least + min(self.rank, more)
        return range(first, first + least + (self.rank < more))

    def most_of(self, number: int) -> int:
        """Of so many pairs, how many a process has at most."""
        return -(-number // self.size)

    def any(self, said: bool, device: Any) -> bool:
        """Whether any process says so."""
        return self.sums([float(said)], device) != [0.0]

    def sums(self, values: Sequence[float], device: Any) -> list[float]:
        """Of each value, over all processes."""
        import torch

        if self.size == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(found)
        return found.tolist()

    def add_up(self, parameters: "Sequence[torch.nn.Parameter]") -> None:
        """Replace gradients by their sums over all processes; where none has one, none has one afterwards."""
        import torch

        if self.size == 1:
            return
        there = [torch.full((1,), float(its.grad is not None), device=its.device) for its in parameters]
        parts = [torch.zeros_like(its) if its.grad is None else its.grad for its in parameters]
        message = torch.cat([part.detach().float().flatten() for part in (*parts, *there)])
        torch.distributed.all_reduce(message)
        *sums, known = message.split([*(its.numel() for its in parameters), len(parameters)])
        for parameter, found, number in zip(parameters, sums, known.tolist(), strict=True):
            parameter.grad = found.view_as(parameter).to(parameter.dtype) if number else None


ALONE = Together()


def share_weights_out(model: Any) -> None:
    """Let the processes of the group each hold a part of the frozen weights of a causal model's layers. Raises
    ValueError for a model that does not say which its layers are."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layers = [its for its in model.modules() if type(its).__name__ in (model._no_split_modules or ())]
    if not layers:
        raise ValueError("training.strategy: fsdp2 wants a model that names its layers: set it to ddp")
    mesh = init_device_mesh(model.device.type, (torch.distributed.get_world_size(),))
    for layer in layers:
        for weight in layer.parameters():
            if not weight.is_contiguous():
                weight.data = weight.data.contiguous()
        fully_shard(layer, mesh=mesh, ignored_params={its for its in layer.parameters() if its.requires_grad})
    # What is above the layers stays whole. Named all the same, it lets a layer come while one before it computes.
    decoder = model.get_decoder()
    fully_shard(decoder, mesh=mesh, ignored_params=set(decoder.parameters()))
