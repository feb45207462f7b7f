"""peft's LoRA layers with one autograd node each, for training on few tokens.

A step on short answers sees 100 to 200 tokens, and then what a LoRA layer adds to its matrix product,
y = x W' + s (x A') B' by four more operations and an autograd node for each, takes as long as the
product. Here the additions happen inside the products (BLAS's beta), forward and backward; peft's own
modules hold the weights and everything else about them stays peft's.
"""

from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

from resources.model.products import FasterLinear, product

if TYPE_CHECKING:
    from peft import PeftModel


class LoraProduct(torch.autograd.Function):
    """x (tokens, in), frozen weight (out, in), A (rank, in), B (out, rank) -> x W' + scale (x A') B'."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, a: Any, b: Any, scale: float) -> Any:
        inner = x @ a.T
        ctx.save_for_backward(x, weight, a, b, inner)
        ctx.scale = scale
        return product(x, weight, bias).addmm_(inner, b.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        x, weight, a, b, inner = ctx.saved_tensors
        of_inner = (upstream[0] @ b).mul_(ctx.scale)
        of_x = product(upstream[0], weight.T).addmm_(of_inner, a) if ctx.needs_input_grad[0] else None
        return of_x, None, None, of_inner.T @ x, (upstream[0].T @ inner).mul_(ctx.scale), None


def fuse_lora(model: "PeftModel") -> None:
    """Let the plain LoRA layers of a model, whose weights are all of one dtype, use LoraProduct.

    Layers with dropout, a variant such as DoRA, another dtype or no LoRA on a linear layer stay as they
    are. Whatever else peft does with a layer (disabling, merging, several adapters) goes its own way.
    """
    from peft.tuners.lora import Linear

    for layer in model.modules():
        if isinstance(layer, Linear) and type(layer.base_layer) in (torch.nn.Linear, FasterLinear):
            layer.forward = MethodType(fused(layer.forward), layer)


def fused(original: Any) -> Any:
    def forward(self: Any, x: Any, *arguments: Any, **others: Any) -> Any:
        name, *more = self.active_adapters or [None]
        plain = not (self.disable_adapters or self.merged or more or arguments or others)
        if not plain or name not in self.lora_A or name in self.lora_variant:
            return original(x, *arguments, **others)
        base, a, b = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
        dropped = not isinstance(self.lora_dropout[name], torch.nn.Identity) and self.training
        if dropped or base.weight.requires_grad or {x.dtype, base.weight.dtype, b.dtype} != {a.dtype}:
            return original(x)
        y = LoraProduct.apply(x.flatten(0, -2), base.weight, base.bias, a, b, self.scaling[name])
        return y.unflatten(0, x.shape[:-1])

    return forward
