"""The retriever: a pool of training rows, and the most similar of them by cosine.

A pool is a list of its rows, each with the check of its text and vector; the vectors themselves lie
once for all pools in a VectorTable. So an older iteration still sees exactly its own pool, and a pool
with few new rows costs those and a list.

Search is exact: the similarity to every row, in float32, block by block, and whatever could be among
the nearest by the error bound of float32 once more in float64. So a case's neighbours depend on the
pool's rows alone, not on the other cases or on how rows lie in files. There is no index (IVF or the
like): up to a million rows, the largest pool that was measured, building one pays only from some
thousands of cases on (`python -m benchmarks.retrieval`, docs/adr/0007).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from resources.retrieval.vector_table import VectorTable
from resources.store.manifest import CorruptArtifact

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

QUERIES = 256  # queries that are multiplied with a block at once
PAIRS = 16_384  # pairs whose similarity is worked out in float64 at once


def make_pool(table: VectorTable, rows: "pl.DataFrame") -> "pl.DataFrame":
    """The Pool of `rows` (row_id, prompt), whose prompts all have a vector. Raises CorruptArtifact."""
    known = table.rows("text", "check").unique("text", keep="first").select("text", "check")
    pool = rows.select("row_id", "prompt").join(known, left_on="prompt", right_on="text", how="left")
    no_row_lost(table, pool, "check")
    return pool.select("row_id", "check").sort("row_id")


def verify_pool(table: VectorTable, pool: "pl.DataFrame") -> None:
    """Check that every row of a Pool has the vector it had. Raises CorruptArtifact."""
    places(table, pool)


def similar_cases(
    table: VectorTable, index: "pl.DataFrame", cases: "pl.DataFrame", pool: "pl.DataFrame", *, per_case: int
) -> "pl.DataFrame":
    """Up to `per_case` nearest pool rows for each bad case, as a Neighbors table.

    index: a Pool that holds the cases and the rows of `pool`. cases: BadCases. pool: the training rows;
    only they can be neighbours, so no evaluation row can. A bad case is no one's neighbour (it is
    trained on anyway), and a row near several bad cases is kept once, for the one it is most similar
    to. Raises CorruptArtifact if the table lost a row of the index.
    """
    import polars as pl

    from schemas.tables import Neighbors

    schema = Neighbors.empty().schema
    if cases.height == 0 or per_case == 0:
        return pl.DataFrame(schema=schema)
    found = nearest_of(table, places(table, index), cases, pool.join(cases, on="row_id", how="anti"), per_case)
    found = found.with_columns(rank=pl.int_range(1, pl.len() + 1).over("case_id"))
    found = found.sort("similarity", "case_id", descending=[True, False]).unique("row_id", keep="first")
    found = found.join(pool, on="row_id").sort("case_id", "rank")
    return found.select(list(schema)).cast(dict(schema))  # type: ignore[arg-type]


def nearest_rows(
    table: VectorTable, index: "pl.DataFrame", cases: "pl.DataFrame", pool: "pl.DataFrame", *, most: int
) -> "pl.DataFrame":
    """(case_id, row_id, similarity) of up to `most` nearest pool rows of each case but itself, by case and nearest
    first. Other cases are among them, and a row may be found for several. The rest as in `similar_cases`."""
    import polars as pl

    if cases.height == 0:
        return pl.DataFrame(schema={"case_id": pl.String, "row_id": pl.String, "similarity": pl.Float64})
    found = nearest_of(table, places(table, index), cases, pool, most + 1)
    others = found.filter(pl.col("case_id") != pl.col("row_id"))
    return others.group_by("case_id", maintain_order=True).head(most).select("case_id", "row_id", "similarity")


def nearest_of(
    table: VectorTable, there: "pl.DataFrame", cases: "pl.DataFrame", pool: "pl.DataFrame", most: int
) -> "pl.DataFrame":
    """The same, itself included if it is in the pool. there: (row_id, place) of cases and pool."""
    import polars as pl

    asked = cases.select("row_id").join(there, on="row_id", how="left").sort("row_id")
    no_row_lost(table, asked, "place")
    # In the order of the table, as they are read; ties are broken by row_id.
    others = there.join(pool, on="row_id", how="semi")
    others = others.with_columns(tie=pl.col("row_id").rank("ordinal")).sort("place")
    query, position, similarity = nearest(
        table.vectors(asked["place"].to_numpy()),
        table.blocks(others["place"].to_numpy()),
        others["tie"].to_numpy(),
        most,
    )
    return pl.DataFrame(
        {"case_id": asked["row_id"][query], "row_id": others["row_id"][position], "similarity": similarity}
    )


def nearest(
    queries: "np.ndarray", blocks: "Iterable[tuple[np.ndarray, np.ndarray]]", tie: "np.ndarray", most: int
) -> tuple["np.ndarray", "np.ndarray", "np.ndarray"]:
    """Up to `most` rows with the largest dot product for each query, exactly.

    queries: (queries, dimensions), float32, of length 1. blocks: (positions, (positions, dimensions)) of
    rows of length 1. tie: by position; of equal rows the one with the lower number is nearer.
    Returns (query, position, dot product in float64), by query and nearest first.
    """
    import numpy as np

    # A float32 dot product of vectors of length 1 is off by at most dimensions * 2**-24, in whatever
    # order it is summed up; the rest is for lengths that are not exactly 1.
    error = (queries.shape[1] + 32) * 2.0**-24
    exact = queries.astype(np.float64)
    floor = np.full(len(queries), -np.inf)
    query: np.ndarray = np.empty(0, np.int64)
    position: np.ndarray = np.empty(0, np.int64)
    score: np.ndarray = np.empty(0, np.float64)
    for positions, rows in blocks:
        for start in range(0, len(queries), QUERIES):
            part = slice(start, start + QUERIES)
            asked, found = candidates(queries[part], rows, floor[part], error, most)
            query, position = np.append(query, asked + start), np.append(position, positions[found])
            score = np.append(score, pair_scores(exact, rows, asked + start, found))
        order = np.lexsort((tie[position], -score, query))
        rank = np.arange(len(order)) - np.searchsorted(query[order], query[order])
        kept, last = order[rank < most], order[rank == most - 1]
        floor[query[last]] = score[last]
        query, position, score = query[kept], position[kept], score[kept]
    return query, position, score


def candidates(
    queries: "np.ndarray", rows: "np.ndarray", floor: "np.ndarray", error: float, most: int
) -> tuple["np.ndarray", "np.ndarray"]:
    """(query, row) of all pairs that could be among the `most` nearest of the query, whose `most`-th so far
    has the similarity `floor`. error: of a float32 dot product."""
    import numpy as np

    scores = queries @ rows.T
    low = floor - error
    hits = scores >= low[:, None].astype(np.float32)
    crowded = np.flatnonzero(np.count_nonzero(hits, axis=1) > 4 * most)
    if len(crowded):
        # So many cannot all be among the nearest: the block's own `most`-th tells which.
        enough = np.partition(scores[crowded], -most, axis=1)[:, -most] - 2 * error
        low[crowded] = np.maximum(low[crowded], enough)
        hits[crowded] = scores[crowded] >= low[crowded, None].astype(np.float32)
    query, row = np.nonzero(hits)
    return query, row


def pair_scores(queries: "np.ndarray", rows: "np.ndarray", query: "np.ndarray", row: "np.ndarray") -> "np.ndarray":
    """Dot products in float64 of pairs, each summed up in the same way whatever the other pairs are."""
    import numpy as np

    found = np.empty(len(query))
    for start in range(0, len(query), PAIRS):
        part = slice(start, start + PAIRS)
        found[part] = (queries[query[part]] * rows[row[part]]).sum(axis=1)
    return found


def places(table: VectorTable, pool: "pl.DataFrame") -> "pl.DataFrame":
    """(row_id, place) of a Pool's rows in the table. Raises CorruptArtifact if one is not there."""
    known = table.rows("check").unique("check", keep="first")
    found = pool.join(known, on="check", how="left").select("row_id", "place")
    no_row_lost(table, found, "place")
    return found


def no_row_lost(table: VectorTable, rows: "pl.DataFrame", column: str) -> None:
    lost: Any = rows.filter(rows[column].is_null())
    if lost.height:
        raise CorruptArtifact(f"retrieval_index: {table.name} in {table.where} lost the row {lost['row_id'][0]}")
