"""A pass that does not fit into memory: it is tried again in smaller parts, and how small they have to be is remembered
with the model."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from resources.model.packing import shape_free

Found = TypeVar("Found")
Tell = Callable[[str], None]

# What torch says on CPUs, where it has no error of its own for it, and what CUDA's libraries say.
SAYINGS = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory", "_ALLOC_FAILED")
PASS_TOKENS = "_apt_pass_tokens"  # these two in the __dict__ of a model: nothing that is saved with it
TELL = "_apt_tell"


class TooLittleMemory(RuntimeError):
    """The smallest part does not fit either; the message says what to change."""


@dataclass(frozen=True)
class NoRoom:
    """In place of a result. reason: the error's own first line."""

    reason: str


def attempt(compute: Callable[[], Found]) -> Found | NoRoom:
    """What `compute` gives, or NoRoom if it ran out of memory; what it held is free again then."""
    try:
        return compute()
    except Exception as error:
        if not out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    # Not before the error is gone: its traceback holds the tensors of the pass.
    release()
    return NoRoom(reason)


def out_of_memory(error: BaseException) -> bool:
    """Whether there was no room, for torch on a GPU or a CPU or for Python."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in SAYINGS)


def release() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def set_tell(model: Any, tell: Tell) -> None:
    """Whom to tell, in a line for people, when passes of `model` become smaller."""
    vars(model)[TELL] = tell


def pass_tokens(model: Any, batch_tokens: int) -> int:
    """How many tokens a pass of `model` may have: `batch_tokens`, or fewer once that many did not fit."""
    return min(batch_tokens, vars(model).get(PASS_TOKENS, batch_tokens))


def forget_parts(model: Any) -> None:
    """Let passes of `model` be as large as is asked for again."""
    vars(model).pop(PASS_TOKENS, None)


def halve(model: Any, tokens: int) -> int:
    """Half of `tokens`, for every pass of `model` from now on."""
    half = max(tokens // 2, 1)
    vars(model)[PASS_TOKENS] = half
    line = f"a pass of {tokens} tokens does not fit into memory: from here on passes have up to {half}"
    if not shape_free(model):
        line += (
            f"; here a row's last bits depend on the size of its pass, so these rows are not exactly those of larger "
            f"passes (policy.batch_tokens: {half} gives all rows one size)"
        )
    vars(model).get(TELL, lambda line: None)(line)
    return half
