"""The right answers of a row: the gold, which is learned, in `answer`, and in `also` what is right as well.

`also` is text, a JSON list, so that it is compared, hashed and kept like any other column.
"""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl


def further(also: str | None) -> tuple[str, ...]:
    """The golds behind the first."""
    return () if also is None else tuple(json.loads(also))


def golds_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """All right answers of a row with `answer` and `also`, the learned one first."""
    return (row["answer"], *further(row["also"]))


def is_gold(column: str) -> pl.Expr:
    """Whether the text in a column is one of the row's right answers."""
    others = pl.col("also").str.json_decode(pl.List(pl.String))
    return (pl.col(column) == pl.col("answer")) | others.list.contains(pl.col(column)).fill_null(False)


def by_gold(rows: pl.DataFrame) -> pl.DataFrame:
    """A row for each right answer, which is then in `answer`: the rows as they are, then those of further golds."""
    more = rows.drop_nulls("also")
    if more.is_empty():
        return rows
    others = more.with_columns(answer=pl.col("also").str.json_decode(pl.List(pl.String))).explode("answer")
    return pl.concat([rows, others])
