"""Rows that were computed once: answers, grades, embeddings' keys and log-likelihoods, by content.

A *context* is everything that decides a value except the row itself: the policy by content, how it
generates, library versions, the code. Its digest names what the rows under it are kept in, as lines with a check
(resources/store/row_lines.py): a file that grows (row_file.py), or in a shared store segments (shared/segments.py).

A line that is torn or does not match its check is as good as absent: its row is computed
again, after what held it is put aside as it was. So is all that begins with another context.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any, TypeVar

from resources.store.digest import digest_json

# What a computation of rows yields: positions and their values, batch by batch as they come. Whoever takes them
# closes it, also when it is not run to its end, and it then frees what it holds.
Value = TypeVar("Value")
Batches = Generator[tuple[Sequence[int], Sequence[Value]], None, None]
# A computation of the rows at the positions that are missing.
Compute = Callable[[list[int]], Batches[Any]]


@dataclass(frozen=True)
class Filled:
    """Values in the order of the keys; how many of the distinct keys were reused and computed.

    damaged: lines that were found to be not as they were written, and taken out.
    """

    values: list[Any]
    reused: int
    computed: int
    damaged: int = 0


class RowTable(ABC):
    """The rows of one kind under one context."""

    def __init__(self, kind: str, context: dict[str, Any]):
        self.kind, self.context = kind, context
        self.digest = digest_json(context)
        self._head = json.dumps({"context": context}, ensure_ascii=False).encode()

    @abstractmethod
    def read(self, keys: Iterable[str]) -> dict[str, Any]:
        """{key: value} of those of `keys` that have a whole line; of lines with the same key the last counts."""

    def missing(self, keys: Sequence[str]) -> int:
        """How many distinct keys have no row yet."""
        distinct = set(keys)
        return len(distinct) - len(self.read(distinct))

    def fill(self, keys: Sequence[str], compute: Compute, *, anew: bool = False) -> Filled:
        """The value of every key; those that are missing are computed and kept. anew: all are, in place of those that
        are there.

        `compute` gets the position of each missing key (its first one); each batch that it yields is kept before
        it is asked for the next. Raises KeyError if it leaves one out; what it yielded by then is kept.
        ValueError for a key that is not plain text.
        """
        with self._writer():
            rows = {} if anew else self.read(keys)
            reused = len(rows)
            positions = range(len(keys) - 1, -1, -1)
            first = {key: n for n, key in zip(positions, reversed(keys), strict=True) if key not in rows}
            wanted = sorted(first.values())
            # A row that is missing may be a line that was damaged.
            damaged = self._take_out_damaged() if wanted else 0
            if wanted:
                with closing(compute(wanted)) as batches:
                    for places, values in batches:
                        new = {keys[place]: value for place, value in zip(places, values, strict=True)}
                        self._append(new)
                        rows.update(new)
        return Filled([rows[key] for key in keys], reused, len(wanted), damaged)

    def _is_own(self, head: bytes) -> bool:
        """Whether a first line is this context, in whatever order it was declared by then."""
        if head == self._head + b"\n":
            return True
        try:
            return head.endswith(b"\n") and digest_json(json.loads(head)["context"]) == self.digest
        except (ValueError, KeyError, TypeError):
            return False

    @abstractmethod
    def _append(self, rows: dict[str, Any]) -> None:
        """Keep a batch of rows: all of it or, if this process dies, nothing that counts."""

    @abstractmethod
    def _take_out_damaged(self) -> int:
        """Put aside what holds lines that are damaged, and go on with the whole ones; returns how many are not."""

    @abstractmethod
    def _writer(self) -> AbstractContextManager[None]:
        """One writer at a time; others wait."""


def collect(count: int, batches: Batches[Value]) -> list[Value]:
    """The values of positions 0 to `count`, all of them. Raises KeyError for one that was left out."""
    found: dict[int, Value] = {}
    for positions, values in batches:
        found.update(zip(positions, values, strict=True))
    return [found[position] for position in range(count)]


def renumber(batches: Batches[Value], positions: Sequence[int]) -> Batches[Value]:
    """The same batches of what stands at `positions` of a longer list, by the positions there."""
    with closing(batches):
        for places, values in batches:
            yield [positions[place] for place in places], values
