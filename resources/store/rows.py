"""Rows that were computed once: answers, grades, embeddings' keys and log-likelihoods, by content.

    rows/<kind>/<context digest>.jsonl

A *context* is everything that decides a value except the row itself: the policy by content, how it
generates, library versions, the code. Its digest names the file, and the file's first line holds it.
Every further line is one row: {"key": ..., "value": ..., "check": ...}, where the check is a CRC-32 over
the bytes of the line before it.

A batch of rows is appended with one write and synced, so that a kill loses at most the batch in
flight. A line that is torn or does not match its check is as good as absent: its row is computed
again, after the file as it was is put aside in rows/damaged/. So is all of a file whose first line is
not its context. One writer per file (a lock); others wait and then find the rows.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

from resources.store.digest import digest_json

CHUNK_BYTES = 1 << 22
# The parts of a line; a hot path tells them apart by these bytes, without parsing it.
BEFORE_KEY, BEFORE_VALUE, CHECK = b'{"key": "', b'", "value": ', b', "check": "%08x"}'
KEY_AT, CHECK_BYTES = len(BEFORE_KEY), len(CHECK % 0)
PLAIN = re.compile(r"[0-9A-Za-z-]+")
ENCODER = json.JSONEncoder(allow_nan=False)

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


class RowTable:
    """The rows of one kind under one context."""

    def __init__(self, root: Path, kind: str, context: dict[str, Any]):
        self.kind, self.context = kind, context
        self.digest = digest_json(context)
        self.path = root / kind / f"{self.digest}.jsonl"
        self._damaged = root / "damaged"
        self._head = json.dumps({"context": context}, ensure_ascii=False).encode()

    def read(self, keys: Iterable[str]) -> dict[str, Any]:
        """{key: value} of those of `keys` that have a whole line; of lines with the same key the last counts."""
        wanted = {key.encode() for key in keys}
        rows: dict[str, Any] = {}
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return rows
        with file:
            if not self._is_own(file.readline()):
                return rows
            while part := file.read(CHUNK_BYTES):
                lines = (part + file.readline()).split(b"\n")
                found = [line[KEY_AT : line.find(b'"', KEY_AT)] in wanted for line in lines]
                rows.update(whole_rows(list(compress(lines, found))))
        return rows

    def _is_own(self, head: bytes) -> bool:
        """Whether a file's first line is this context, in whatever order it was declared by then."""
        if head == self._head + b"\n":
            return True
        try:
            return head.endswith(b"\n") and digest_json(json.loads(head)["context"]) == self.digest
        except (ValueError, KeyError, TypeError):
            return False

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
            damaged = self._take_out_damaged() if wanted and self.path.exists() else 0
            if wanted:
                with closing(compute(wanted)) as batches:
                    for places, values in batches:
                        new = {keys[place]: value for place, value in zip(places, values, strict=True)}
                        self._append(new)
                        rows.update(new)
        return Filled([rows[key] for key in keys], reused, len(wanted), damaged)

    def _append(self, rows: dict[str, Any]) -> None:
        if odd := [key for key in rows if not PLAIN.fullmatch(key)]:
            raise ValueError(f"a key of a row is letters, digits and -, not {odd[0]!r}")
        new = not self.path.exists()
        with self.path.open("ab") as file:
            # A line that a kill left torn must not swallow the next one.
            lines = [self._head] if new else [b""]
            bodies = [
                b"%b%b%b%b" % (BEFORE_KEY, key.encode(), BEFORE_VALUE, ENCODER.encode(value).encode())
                for key, value in rows.items()
            ]
            lines += [body + CHECK % crc32(body) for body in bodies]
            file.write(b"\n".join(lines))
            file.flush()
            os.fsync(file.fileno())

    def _take_out_damaged(self) -> int:
        """Put the file aside if any of its lines is damaged, and go on with the whole ones; returns how many
        are not."""
        with self.path.open("rb") as file:
            own = self._is_own(file.readline())
            bad = sum(not is_whole(line.removesuffix(b"\n")) for line in file if line != b"\n")
            if own and not bad:
                return 0
            self._damaged.mkdir(parents=True, exist_ok=True)
            aside = self._damaged / f"{self.kind}-{self.path.name}-{time.time_ns()}"
            if own:
                file.seek(0)
                whole = self.path.with_suffix(".whole")
                with whole.open("wb") as new:
                    new.write(file.readline().removesuffix(b"\n"))
                    new.writelines(b"\n" + line for raw in file if is_whole(line := raw.removesuffix(b"\n")))
                    new.flush()
                    os.fsync(new.fileno())
                os.link(self.path, aside)
                whole.replace(self.path)
            else:
                self.path.rename(aside)
        return bad + (not own)

    @contextmanager
    def _writer(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


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


def is_whole(line: bytes) -> bool:
    return line[-CHECK_BYTES:] == CHECK % crc32(line[:-CHECK_BYTES])


def whole_rows(lines: list[bytes]) -> Iterator[tuple[str, Any]]:
    """(key, value) of the lines that match their check."""
    whole = [line for line in lines if is_whole(line)]
    ends = [line.find(BEFORE_VALUE) for line in whole]
    keys = [line[KEY_AT:end].decode() for line, end in zip(whole, ends, strict=True)]
    values = [line[end + len(BEFORE_VALUE) : -CHECK_BYTES] for line, end in zip(whole, ends, strict=True)]
    # Each value is JSON by itself, or it would not match the check: so they can be parsed as one array.
    return zip(keys, json.loads(b"[%b]" % b",".join(values)), strict=True)
