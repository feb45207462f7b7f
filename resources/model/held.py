"""The base models that this process holds: each is read once, and stages and adapters share it.

An adapter of a base model in fewer bits lies beside its weights, and leaves with its layers. In float32 it is added to
them; what they were is kept, and put back to the bit when another one is wanted. Training takes a base model out of
here, since it makes a model of its own of it.
"""

import gc
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

from resources import workers
from resources.model.no_room import forget_parts
from resources.model.packing import set_shape_free
from resources.model.policy import is_merged, load_base, with_adapter
from resources.model.prompts import Policy, RunPath
from resources.store.digest import seen

if TYPE_CHECKING:
    import torch

Role = Literal["policy", "grader"]


@dataclass(frozen=True)
class BaseModel:
    """Which base model, and how it is run: what `load_base` takes."""

    folder: Path
    dtype: str
    quantization: str = "none"
    device: str = "cpu"
    path: RunPath = "packed"

    @property
    def files(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """(name, whether it is the same as before: `seen`) of what is in the folder."""
        return tuple((path.name, seen(path.stat())) for path in sorted(self.folder.iterdir()))


@dataclass
class Held:
    """A base model with at most one adapter on it. beside: peft's model around it, of an adapter that lies beside its
    weights. originals: layer -> what its weights were, of one that was added to them."""

    base: BaseModel
    files: tuple[tuple[str, tuple[int, ...]], ...]
    bare: Any
    tokenizer: Any
    adapter: str | None = None
    beside: Any = None
    originals: "dict[str, dict[str, torch.Tensor]]" = field(default_factory=dict)

    def put_on(self, folder: Path, identity: str) -> None:
        """The adapter of `folder`, in the place of another."""
        from peft.tuners.lora import LoraLayer

        self.take_off()
        beside = with_adapter(self.bare, folder)
        if is_merged(self.base.dtype, self.base.quantization):
            # Experts have a layer of LoRA around another: the outer one has the name that stays.
            layers = [(name, it) for name, it in self.bare.named_modules() if isinstance(it, LoraLayer)]
            names = {it.get_base_layer(): name for name, it in reversed(layers)}
            self.originals = {name: copies(its.named_parameters(recurse=False)) for its, name in names.items()}
            beside.merge_and_unload()
        else:
            self.beside = beside
        self.adapter = identity

    def take_off(self) -> None:
        if self.originals:
            for name, weights in self.originals.items():
                for weight, its in self.bare.get_submodule(name).named_parameters(recurse=False):
                    its.data.copy_(weights[weight])
        elif self.beside is not None:
            self.beside.unload()
        self.adapter, self.beside, self.originals = None, None, {}
        forget_parts(self.bare)


def copies(parameters: "Iterable[tuple[str, torch.Tensor]]") -> "dict[str, torch.Tensor]":
    return {name: weight.detach().clone() for name, weight in parameters}


_held: dict[Role, Held] = {}
_in_memory: "WeakSet[Any]" = WeakSet()  # the base models that were read and are not gone


def open_held(
    role: Role, base: BaseModel, shape_free: bool | None, adapter: Path | None = None, identity: str | None = None
) -> Policy:
    """The base model with the adapter, as `load_policy` gives it: held from before, or else read.

    identity: of the adapter's content. What was opened in this role before is no good any more. Raises as
    `load_policy` does.
    """
    held = taken_or_read(role, base)
    if identity != held.adapter:
        held.take_off() if adapter is None else held.put_on(adapter, str(identity))
    _held[role] = held  # not before: a failure on the way leaves a model that is neither
    if shape_free is not None:
        set_shape_free(held.bare, shape_free)
    return Policy(held.bare.eval(), held.tokenizer, None, base.path)


def take_base(base: BaseModel) -> tuple[Any, Any]:
    """(base model without an adapter, its tokenizer), for good: the policy's, held from before, or else read. Nothing
    is held afterwards, and no worker holds anything, so that training has the memory."""
    workers.stop()
    held = taken_or_read("policy", base)
    _held.clear()
    free_others(held.bare)
    held.take_off()
    return held.bare, held.tokenizer


def let_go() -> None:
    """Hold no model any more."""
    _held.clear()
    gc.collect()  # models hold on to themselves


def taken_or_read(role: Role, base: BaseModel) -> Held:
    """What was held, which is not any more; another base model's memory is free before this one is read."""
    held = _held.pop(role, None)
    if held is not None and (held.base, held.files) == (base, base.files):
        return held
    held = None
    free_others(*(its.bare for its in _held.values()))
    files = base.files
    bare, tokenizer = load_base(base.folder, base.dtype, base.quantization, base.device, base.path)
    _in_memory.add(bare)
    return Held(base, files, bare, tokenizer)


def free_others(*used: Any) -> None:
    """Free the memory of base models that nobody uses any more. Only if there are any, as with the libraries in memory
    a look for garbage takes a second."""
    if not _in_memory <= set(used):
        gc.collect()
