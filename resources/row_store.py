"""Rows that were computed once: answers, grades, embeddings' keys and log-likelihoods, by content.

    rows/<kind>/<context digest>.jsonl

A *context* is everything that decides a value except the row itself: the policy by content, how it
generates, library versions, the code. Its digest names the file, and the file's first line holds it.
Every further line is one row: {"key": ..., "value": ..., "check": ...}.

A batch of rows is appended with one write and synced, so that a kill loses at most the batch in
flight. A line that is torn or does not match its check is as good as absent: its row is computed
again. One writer per file (a lock); others wait and then find the rows.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.digest import digest_json

# A function (positions that are missing, commit): computes them and hands over batch by batch.
Compute = Callable[[list[int], Callable[[Sequence[int], Sequence[Any]], None]], None]


@dataclass(frozen=True)
class Filled:
    """Values in the order of the keys; how many of the distinct keys were reused and computed."""

    values: list[Any]
    reused: int
    computed: int


class RowTable:
    """The rows of one kind under one context."""

    def __init__(self, root: Path, kind: str, context: dict[str, Any]):
        self.kind, self.context = kind, context
        self.digest = digest_json(context)
        self.path = root / kind / f"{self.digest}.jsonl"

    def read(self) -> dict[str, Any]:
        """{key: value} of all lines that are whole."""
        rows: dict[str, Any] = {}
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return rows
        for line in content.split(b"\n")[1:]:
            try:
                row = json.loads(line)
                if row["check"] == check(row["key"], row["value"]):
                    rows[row["key"]] = row["value"]
            except (ValueError, KeyError, TypeError):
                continue
        return rows

    def missing(self, keys: Sequence[str]) -> int:
        """How many distinct keys have no row yet."""
        return len(set(keys) - self.read().keys())

    def fill(self, keys: Sequence[str], compute: Compute) -> Filled:
        """The value of every key; those that are missing are computed and kept.

        `compute` gets the position of each missing key (its first one) and calls back with positions
        and values. Raises KeyError if it leaves one out; what it handed over by then is kept.
        """
        with self._writer():
            rows = self.read()
            first: dict[str, int] = {}
            for position, key in enumerate(keys):
                first.setdefault(key, position)
            wanted = [position for key, position in first.items() if key not in rows]

            def commit(positions: Sequence[int], values: Sequence[Any]) -> None:
                new = {keys[position]: value for position, value in zip(positions, values, strict=True)}
                self._append(new)
                rows.update(new)

            if wanted:
                compute(wanted, commit)
        return Filled([rows[key] for key in keys], len(first) - len(wanted), len(wanted))

    def _append(self, rows: dict[str, Any]) -> None:
        new = not self.path.exists()
        with self.path.open("ab") as file:
            # A line that a kill left torn must not swallow the next one.
            lines = [json.dumps({"context": self.context}, ensure_ascii=False)] if new else [""]
            lines += [json.dumps({"key": k, "value": v, "check": check(k, v)}) for k, v in rows.items()]
            file.write(("\n".join(lines)).encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _writer(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def check(key: str, value: Any) -> str:
    return digest_json([key, value])[:16]
