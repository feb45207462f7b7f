"""Rows of a LanceDB table of vectors: reading them by place, and comparing them with their checks.

A *place* is LanceDB's row id: the number of the fragment in the upper 32 bits, the position in it in
the lower. Fragments are numbered in the order of their commits, and each has its own file, so that one
that cannot be read can be left out.
"""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from resources.store.digest import digest_json

if TYPE_CHECKING:
    import lancedb
    import numpy as np
    import polars as pl
    import pyarrow as pa

FRAGMENT = 1 << 32
BATCH_ROWS = 16_384  # rows of a batch at most; a batch never spans two fragments
NAME = b"name"  # key of the schema's metadata
BROKEN = (RuntimeError, OSError, ValueError)  # what LanceDB raises for a file it cannot read


@dataclass(frozen=True)
class Checked:
    """What was found when a table was last compared with its checks.

    files: [name, sha256] of its data files, in the order in which they were found. fragments: numbers
    below this were compared. lost: of these, the ones that cannot be read. bad: places of rows that
    do not match their check. version: name and sha256 of the file that says what the table consists of.
    """

    files: list[list[str]] = field(default_factory=list)
    fragments: int = 0
    lost: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    version: list[str] = field(default_factory=list)

    def mark(self, files: int) -> dict[str, Any]:
        """The state of the first `files` files, to be recognised when others have been added."""
        return {"files": files, "digest": digest_json([self.files[:files], self.lost, self.bad])}


def row_check(text: str, vector: "np.ndarray") -> str:
    """32 hex digits of a text with its vector: its name in every pool that holds it."""
    return hashlib.sha256(text.encode("utf-8") + vector.tobytes()).hexdigest()[:32]


def table_schema(dimensions: int, name: str) -> "pa.Schema":
    """Columns of a table of vectors; it keeps its name, which says which encoder they are of."""
    import pyarrow as pa

    columns = [
        pa.field("text", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
        pa.field("check", pa.string(), nullable=False),
    ]
    return pa.schema(columns, metadata={NAME: name})


def is_of(table: "lancedb.table.Table", name: str) -> bool:
    """Whether the table was made under this name; one that keeps none was made before they did."""
    return (table.schema.metadata or {}).get(NAME, name.encode()) == name.encode()


def table_rows(texts: Sequence[str], vectors: "np.ndarray", name: str) -> "pa.Table":
    """Rows to add to the table of that name. vectors: (texts, dimensions), float32."""
    import pyarrow as pa

    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    checks = [row_check(text, vector) for text, vector in zip(texts, vectors, strict=True)]
    return pa.table([pa.array(texts), flat, pa.array(checks)], schema=table_schema(vectors.shape[1], name))


def as_matrix(vectors: "pa.FixedSizeListArray") -> "np.ndarray":
    """(rows, dimensions) without a copy."""
    return vectors.flatten().to_numpy().reshape(len(vectors), -1)


def scan(
    table: "lancedb.table.Table", columns: Sequence[str], lost: Sequence[int] = (), first: int = 0
) -> "pa.RecordBatchReader":
    """Batches of `_rowid` and `columns`, of fragments from `first` on without the `lost` ones. Raises
    RuntimeError or OSError, at any batch, if a file cannot be read."""
    conditions = [f"_rowid >= {first * FRAGMENT}"] if first else []
    conditions += [f"not (_rowid >= {one * FRAGMENT} and _rowid < {(one + 1) * FRAGMENT})" for one in lost]
    query = table.search().with_row_id(True).select(list(columns))
    if conditions:
        query = query.where(" and ".join(conditions))
    return query.to_batches(BATCH_ROWS)


def read_places(table: "lancedb.table.Table", columns: Sequence[str], known: Checked) -> "pl.DataFrame":
    """`place` and `columns` (no vectors) of all rows that can be read and are not known to be bad."""
    import polars as pl

    try:
        found = scan(table, columns, known.lost).read_all()
    except BROKEN:
        found = scan(table, columns, unreadable(table, 0)).read_all()
    frame = pl.DataFrame(pl.from_arrow(found)).rename({"_rowid": "place"})
    return frame.filter(~pl.col("place").is_in(known.bad)) if known.bad else frame


def compare(table: "lancedb.table.Table", known: Checked, files: list[list[str]]) -> Checked:
    """`known`, and what comes out of comparing the fragments that it does not cover. files: all data
    files with their digests, taken before."""
    try:
        found = compare_rows(table, known.fragments, [])
    except BROKEN:
        found = compare_rows(table, known.fragments, unreadable(table, known.fragments))
    return replace(found, files=files, lost=[*known.lost, *found.lost], bad=[*known.bad, *found.bad])


def compare_rows(table: "lancedb.table.Table", first: int, lost: list[int]) -> Checked:
    bad: list[int] = []
    for batch in scan(table, ["text", "vector", "check"], lost, first):
        rows = zip(batch["text"].to_pylist(), as_matrix(batch["vector"]), batch["check"].to_pylist(), strict=True)
        wrong = [i for i, (text, vector, check) in enumerate(rows) if row_check(text, vector) != check]
        bad += batch["_rowid"].take(wrong).to_pylist() if wrong else []
    return Checked([], max([first, *(number + 1 for number in fragments(table))]), lost, bad)


def unreadable(table: "lancedb.table.Table", first: int) -> list[int]:
    """Numbers, from `first` on, of the fragments that cannot be read: tries them one by one."""

    def readable(number: int) -> bool:
        where = f"_rowid >= {number * FRAGMENT} and _rowid < {(number + 1) * FRAGMENT}"
        try:
            for _ in table.search().with_row_id(True).where(where).to_batches(BATCH_ROWS):
                pass
        except BROKEN:
            return False
        return True

    return [number for number in fragments(table) if number >= first and not readable(number)]


def fragments(table: "lancedb.table.Table") -> list[int]:
    """Numbers of a table's fragments, ascending. Reads none of their files."""
    import numpy as np

    numbers: set[int] = set()
    for batch in scan(table, ["_rowid"]):
        numbers.update(np.unique(batch["_rowid"].to_numpy() // FRAGMENT).tolist())
    return sorted(numbers)


def take(table: "lancedb.table.Table", places: "np.ndarray") -> "np.ndarray":
    """(places, dimensions): the vectors at `places`, in their order. Raises KeyError if one is gone."""
    import numpy as np

    found = table.take_row_ids(places.tolist()).with_row_id().select(["vector"]).to_arrow().combine_chunks()
    there = found["_rowid"].to_numpy()
    order = np.argsort(there)
    at = np.searchsorted(there, places, sorter=order)
    if len(there) == 0 or not (there[order[np.minimum(at, len(there) - 1)]] == places).all():
        raise KeyError("a row is gone")
    return as_matrix(found["vector"].combine_chunks())[order[at]]


def blocks(
    table: "lancedb.table.Table", places: "np.ndarray", lost: Sequence[int]
) -> Iterator[tuple["np.ndarray", "np.ndarray"]]:
    """The vectors at `places` (ascending, distinct): (positions in `places`, (positions, dimensions)), at
    least BATCH_ROWS at a time but for the last. A place that is gone is left out."""
    import numpy as np

    waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def joined() -> tuple["np.ndarray", "np.ndarray"]:
        return np.concatenate([p for p, _ in waiting]), np.concatenate([m for _, m in waiting])

    for batch in scan(table, ["vector"], lost) if len(places) else ():
        there = batch["_rowid"].to_numpy()
        positions = np.searchsorted(places, there)
        wanted = places[np.minimum(positions, len(places) - 1)] == there
        if wanted.any():
            matrix = as_matrix(batch["vector"])
            waiting.append((positions, matrix) if wanted.all() else (positions[wanted], matrix[wanted]))
        if sum(len(p) for p, _ in waiting) >= BATCH_ROWS:
            yield joined()
            waiting.clear()
    if waiting:
        yield joined()


def rewrite(connection: "lancedb.DBConnection", name: str, places: "np.ndarray", lost: Sequence[int]) -> None:
    """Make a table hold the rows at `places` alone, and remove all files of its older versions."""
    import numpy as np
    import pyarrow as pa

    table = connection.open_table(name)

    def kept() -> "Iterator[pa.RecordBatch]":
        for batch in scan(table, table.schema.names, lost):
            wanted = np.isin(batch["_rowid"].to_numpy(), places)
            yield batch.filter(pa.array(wanted)).select(table.schema.names)

    rows = pa.RecordBatchReader.from_batches(table.schema, kept())
    new = connection.create_table(name, rows, mode="overwrite")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns of readers of older versions
        new.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)
