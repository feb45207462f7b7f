"""What another process needs to compute rows."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from apt_assets.engine.scope import RowScope, SentScope
from resources.store.rows import Batches, collect


@dataclass(frozen=True)
class Job:
    """What a worker needs that computes items: the function, and what that may see."""

    compute: Callable[[RowScope, Sequence[Any]], Batches[Any]]
    sent: SentScope

    def __call__(self, items: Sequence[Any]) -> tuple[list[Any], list[str]]:
        """(value of every item, lines for people)."""
        lines: list[str] = []
        with closing(self.compute(self.sent.opened(lines.append), items)) as batches:
            return collect(len(items), batches), lines
