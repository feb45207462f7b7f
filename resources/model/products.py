"""Float32 products of linear layers, by the faster of the two libraries in torch's wheels.

torch has MKL multiply float32. On a processor that is not Intel's, MKL does not use AVX-512; oneDNN chooses its kernels
by what the processor can do, and takes half the time there (docs/lab-log.md). torch calls it for fewer bits only, and
for what torch.compile writes, so here it is called by that way (docs/pins.md). The weights are used where they lie.
"""

from functools import cache
from typing import Any

import torch
from torch import nn

from resources.processor import onednn_is_faster, read_cpuinfo


@cache
def by_onednn() -> bool:
    """Whether oneDNN multiplies float32 in this process."""
    return torch.backends.mkldnn.is_available() and onednn_is_faster(read_cpuinfo())


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x (..., in), weight (out, in), bias (out,) -> x W' + bias, (..., out), without a gradient."""
    if by_onednn() and x.dtype == weight.dtype == torch.float32 and x.device.type == weight.device.type == "cpu":
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


class FrozenProduct(torch.autograd.Function):
    """`product` with a gradient for x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return product(upstream[0], weight.T), None, None


class FasterLinear(nn.Linear):
    """A linear layer that multiplies by `product` as long as its weights are not trained."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and any(its.requires_grad for its in self.parameters(recurse=False)):
            return super().forward(input)
        return FrozenProduct.apply(input, self.weight, self.bias)


def use_faster_products(model: nn.Module) -> None:
    """Let the linear layers of a model, those of torch itself, multiply float32 on a CPU by the faster library."""
    if by_onednn():
        for layer in model.modules():
            if type(layer) is nn.Linear and (layer.weight.dtype, layer.weight.device.type) == (torch.float32, "cpu"):
                layer.__class__ = FasterLinear


def uses_faster_products(model: nn.Module) -> bool:
    """Whether a model's linear layers were given to oneDNN."""
    return any(isinstance(layer, FasterLinear) for layer in model.modules())
