"""Answer questions at a temperature, so that the same seed gives the same answer in whatever company.

A token is drawn by inverting the distribution function: the one at which the summed probabilities exceed a
number in 0-1. That number is a hash of the answer's seed and of the token's position, and not the next one of
a generator: so there is no state that another answer, or the order of the questions, could move.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resources.model.generation import Request, generate
from resources.store.rows import Batches

if TYPE_CHECKING:
    import torch

    from resources.model.generation import Choose
    from resources.model.prompts import Policy

ROWS = 64  # distributions at once, which bounds their memory


def sample(
    policy: "Policy", prompts: Sequence[str], *, seeds: Sequence[str], temperature: float, **named: Any
) -> Batches[str]:
    """Answers as `generate` gives them, sampled. seeds: of each prompt. temperature: above 0. named: of `generate`."""
    return generate(policy, prompts, choose=by_seed(seeds, temperature), **named)


def by_seed(seeds: Sequence[str], temperature: float) -> "Choose":
    """Chooses the tokens of each answer by its own seed."""

    def choose(requests: Sequence[Request], logits: "torch.Tensor") -> "torch.Tensor":
        import torch

        points = [point(seeds[request.place], len(request.output_ids)) for request in requests]
        given = torch.tensor(points, dtype=torch.float64, device=logits.device)[:, None]
        return torch.cat([draw(*part, temperature) for part in zip(logits.split(ROWS), given.split(ROWS), strict=True)])

    return choose


def draw(logits: "torch.Tensor", points: "torch.Tensor", temperature: float) -> "torch.Tensor":
    """The token at each point of its distribution, (rows,). logits: (rows, vocabulary). points: (rows, 1), in 0-1."""
    import torch

    # In float64: in float32 the sum over a large vocabulary is off by more than a rare token's probability.
    until = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    return torch.searchsorted(until, points * until[:, -1:], right=True)[:, 0]


def point(seed: str, position: int) -> float:
    """A number, evenly spread over 0 <= x < 1, that depends on seed and position alone."""
    # 32 bits: few enough that its product with a sum of probabilities stays below the sum.
    return int.from_bytes(hashlib.sha256(f"{seed}:{position}".encode()).digest()[:4]) / 2**32
