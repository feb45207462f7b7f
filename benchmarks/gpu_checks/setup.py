"""What every check is given, and what it says."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_checks.made import SYSTEM_PROMPT, questions
from tests import tiny

if TYPE_CHECKING:
    from resources.model.policy import Policy
    from resources.training.trainer import TrainingRecipe

BATCH_TOKENS = 4096  # as both experiment files have it
BATCH, RATE = 8, 1e-3
QUESTIONS, NEW_TOKENS = 64, 32


@dataclass(frozen=True)
class Setup:
    """device: cpu or cuda. tiny: whether models are of tiny shapes. folder: where they lie, by name. model: which it is
    of; None: the check makes one of its own."""

    device: str
    tiny: bool
    folder: str
    model: str | None

    @property
    def dtype(self) -> str:
        return "float32" if self.device == "cpu" else "bfloat16"

    @property
    def weights(self) -> Path:
        return Path(self.folder) / str(self.model)

    @property
    def questions(self) -> list[str]:
        return questions(8 if self.tiny else QUESTIONS)


class Missing(Exception):
    """A package that the check is about is not installed."""


def need(package: str) -> None:
    if find_spec(package) is None:
        raise Missing(f"{package} is not installed")


def judged(holds: bool, **found: Any) -> dict[str, Any]:
    return {"outcome": "ok" if holds else "failed", **found}


def furthest(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@contextmanager
def measured(setup: Setup) -> Iterator[dict[str, float]]:
    """Once what is inside is done, {peak_gb} of the GPU's memory, by torch, in GB of 10^9 bytes; it is free again
    then. Empty on a CPU."""
    import torch

    found: dict[str, float] = {}
    on_gpu = setup.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    yield found
    if on_gpu:
        found["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()


def load(setup: Setup, path: Any) -> "Policy":
    from resources.model.policy import load_policy

    its = {"dtype": setup.dtype, "device": setup.device, "system_prompt": SYSTEM_PROMPT}
    return load_policy(setup.weights, **its, path=path)


def recipe(setup: Setup, **changes: Any) -> "TrainingRecipe":
    """That of benchmarks/speed/training.py, at a rate at which random weights learn something in four steps."""
    from benchmarks.speed import training

    its = {"dtype": setup.dtype, "device": setup.device, "batch_tokens": BATCH_TOKENS, "learning_rate": RATE}
    return replace(training.recipe(), batch_size=BATCH, **(its | changes))


def answer_packed(setup: Setup) -> dict[str, Any]:
    """Answers to the questions, with seconds, tokens and answers, as benchmarks/speed/generation.py times them."""
    from benchmarks.speed.generation import timed

    policy, asked = load(setup, "packed"), setup.questions
    say = partial(tiny.answers, policy, max_new_tokens=NEW_TOKENS, batch_tokens=BATCH_TOKENS)
    say(asked[:4])
    return timed(lambda: say(asked), policy.tokenizer)
