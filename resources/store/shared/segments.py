"""Rows of a shared store: segments that never change, since nothing can be appended to a thing in a bucket.

    rows/<kind>/<context digest>/<number>-<joined>.jsonl

Each batch is a segment under the next number, created and never overwritten: also of two writers that know nothing of
each other, none loses a row. gc joins many into one, which gets the number of the last and counts how often it was
joined; so their names stand in the order in which rows were kept.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from resources.store.records import Changed
from resources.store.row_lines import encode_rows, is_whole, key_of, read_rows
from resources.store.rows import RowTable
from resources.store.shared.bucket import TRIES, Bucket, Thing
from resources.store.shared.copies import Copies

MOST_SEGMENTS = 16  # of a table that gc leaves as it is
JOINED_BYTES = 1 << 24  # of a segment that others are joined into, at most


class Segments(RowTable):
    """A RowTable in a bucket. writing: the lock of a name, for one writer at a time."""

    def __init__(
        self,
        bucket: Bucket,
        copies: Copies,
        writing: Callable[[str], AbstractContextManager[None]],
        kind: str,
        context: dict[str, Any],
    ):
        super().__init__(kind, context)
        self._bucket, self._copies, self._writing = bucket, copies, writing
        self._folder = f"rows/{kind}/{self.digest}"
        self._last = 0  # number of the last segment that was seen

    def read(self, keys: Iterable[str]) -> dict[str, Any]:
        wanted = {key.encode() for key in keys}
        rows: dict[str, Any] = {}
        for _, path in self._segments():
            with path.open("rb") as file:
                if self._is_own(file.readline()):
                    rows.update(read_rows(file, wanted))
        return rows

    def _segments(self) -> list[tuple[Thing, Path]]:
        for _ in range(TRIES):
            things = self._bucket.things(self._folder)
            self._last = max([number_of(thing.name)[0] for thing in things], default=0)
            try:
                return list(zip(things, self._copies.of(things), strict=True))
            except FileNotFoundError:
                continue  # joined or taken out since they were listed
        raise self._bucket.unsteady(self._folder)

    def _append(self, rows: dict[str, Any]) -> None:
        if lines := encode_rows(rows):
            self._create(self._last + 1, 0, lines)

    def _create(self, number: int, joined: int, lines: list[bytes]) -> None:
        """Keep lines as a segment of that number, or of the next one that is free."""
        content = b"\n".join([self._head, *lines])
        while True:
            try:
                thing = self._bucket.create(f"{self._folder}/{number:010d}-{joined:02d}.jsonl", content)
                break
            except Changed:
                number += 1
        self._copies.keep(thing, content)
        self._last = max(self._last, number)

    def _take_out_damaged(self) -> int:
        damaged = 0
        for thing, path in self._segments():
            lines, bad = self._lines(path)
            if bad:
                self._copies.drop(thing)  # it may be the copy that is damaged
                lines, bad = self._lines(*self._copies.of([thing]))
            if bad:
                damaged += bad
                if lines:
                    number, joined = number_of(thing.name)
                    self._create(number, joined + 1, lines)
                aside = f"{self.kind}-{self.digest}-{time.time_ns()}.jsonl"
                self._bucket.move(thing.name, f"quarantine/{aside}")
        return damaged

    def _lines(self, path: Path) -> tuple[list[bytes], int]:
        """(the whole lines of a segment, how many are not whole)."""
        head, *lines = path.read_bytes().split(b"\n")
        if not self._is_own(head + b"\n"):
            return [], len(lines) + 1
        whole = [line for line in lines if is_whole(line)]
        return whole, len(lines) - len(whole)

    def _writer(self) -> AbstractContextManager[None]:
        return self._writing(self._folder)


def number_of(name: str) -> tuple[int, int]:
    """(number, how often joined) of a segment."""
    number, _, joined = name.rpartition("/")[2].removesuffix(".jsonl").partition("-")
    return int(number), int(joined)


def join(bucket: Bucket, copies: Copies, segments: list[Thing]) -> None:
    """Join the segments of one table, if there are many. Only while nobody writes to it."""
    if len(segments) > MOST_SEGMENTS:
        for group in groups(segments):
            contents = [path.read_bytes().split(b"\n") for path in copies.of(group)]
            heads = {content[0] for content in contents}
            lines = {key_of(line): line for content in contents for line in content[1:]}
            # What is damaged is left for whoever misses its rows.
            if len(heads) == 1 and all(is_whole(line) for content in contents for line in content[1:]):
                number, joined = number_of(group[-1].name)
                name = f"{group[-1].name.rpartition('/')[0]}/{number:010d}-{joined + 1:02d}.jsonl"
                bucket.create(name, b"\n".join([*heads, *lines.values()]))
                bucket.remove(thing.name for thing in group)


def groups(segments: list[Thing]) -> Iterator[list[Thing]]:
    """Runs of two segments or more that are small enough together, in their order."""
    group: list[Thing] = []
    size = 0
    for thing in segments:
        if size + thing.size > JOINED_BYTES:
            if len(group) > 1:
                yield group
            group, size = [], 0
        group.append(thing)
        size += thing.size
    if len(group) > 1:
        yield group
