"""The retriever: the training pool in LanceDB, and similar cases by cosine similarity.

One LanceDB table per experiment and encoder; rows are upserted by content, rows that left the pool
are deleted, and the resulting table *version* is what an iteration's index is: an older iteration
reads its own version and sees its own pool. Search is exact (no ANN index): below about 100,000
rows that is fast, and it is reproducible.
"""

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.artifact_store import CorruptArtifact
from resources.digest import digest_json

if TYPE_CHECKING:
    import lancedb
    import numpy as np
    import polars as pl


class Encoder:
    """A sentence-transformers model; vectors are float32 with length 1."""

    def __init__(self, folder: Path, *, device: str = "cpu", batch_size: int = 64):
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(folder), device=device, local_files_only=True)
        self._batch_size = batch_size

    @property
    def dimensions(self) -> int:
        return int(self._model.get_embedding_dimension() or 0)

    def embed(self, texts: Sequence[str], progress: Callable[[int], None] = lambda done: None) -> "np.ndarray":
        """(texts, dimensions). Texts go in order of length, so that a batch has little padding."""
        import numpy as np

        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        step = self._batch_size
        for start in range(0, len(order), step):
            rows = order[start : start + step]
            vectors[rows] = self._model.encode(
                [texts[i] for i in rows],
                batch_size=step,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
            progress(min(start + step, len(order)))
        return vectors


def update_index(
    database: Path,
    table_name: str,
    pool: "pl.DataFrame",
    encoder: Encoder,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Make the table hold exactly `pool` (row_id, prompt, answer); embeds only rows it lacks.

    Returns {table, lance_version, rows, embedded, removed}. A row whose answer was edited is
    rewritten with the vector it has: the embedding is of the prompt, which row_id identifies.
    """
    import polars as pl

    with writer_lock(database, table_name):
        table = open_or_create(database, table_name, encoder.dimensions)
        present = pl.DataFrame(table.search().select(["row_id", "text"]).limit(None).to_arrow())
        have = dict(zip(present["row_id"], present["text"], strict=True))
        if len(have) != present.height:
            raise RuntimeError(f"LanceDB table {table_name} holds a row twice; delete {database} to rebuild it")
        # An equal row_id is an equal question up to case and punctuation, not an equal text.
        new = pool.filter([have.get(r) != p for r, p in zip(pool["row_id"], pool["prompt"], strict=True)])
        gone = sorted(have.keys() - set(pool["row_id"]))
        if new.height:
            vectors = encoder.embed(new["prompt"].to_list(), progress)
            table.merge_insert("row_id").when_matched_update_all().when_not_matched_insert_all().execute(
                arrow_rows(new["row_id"].to_list(), new["prompt"].to_list(), vectors)
            )
        for start in range(0, len(gone), 1000):
            listed = ", ".join(f"'{row}'" for row in gone[start : start + 1000])
            table.delete(f"row_id IN ({listed})")
        return {
            "table": table_name,
            "lance_version": table.version,
            "rows": table.count_rows(),
            "embedded": new.height,
            "removed": len(gone),
        }


def similar_cases(
    database: Path,
    index: dict[str, Any],
    cases: "pl.DataFrame",
    pool: "pl.DataFrame",
    encoder: Encoder,
    *,
    per_case: int,
    progress: Callable[[int], None] = lambda done: None,
) -> "pl.DataFrame":
    """Up to `per_case` nearest pool rows for each bad case, as a Neighbors table.

    cases: BadCases. pool: the training rows; only they can be neighbours, so no evaluation row can.
    A bad case is no one's neighbour (it is trained on anyway), and a row near several bad cases is
    kept once, for the one it is most similar to. Raises CorruptArtifact if the index lost a row.
    """
    import polars as pl

    from schemas import empty_table

    schema = empty_table("neighbors").schema
    if cases.height == 0 or per_case == 0:
        return pl.DataFrame(schema=schema)
    table = open_version(database, index)
    vectors = encoder.embed(cases["prompt"].to_list(), progress)
    excluded = set(cases["row_id"])
    texts = {row: (prompt, answer) for row, prompt, answer in pool.iter_rows()}
    # Other bad cases may take places among the nearest, so ask for more and filter.
    wanted = min(per_case + min(len(excluded), 50), table.count_rows())
    found = []
    for start in range(0, len(vectors), 64):
        hits = (
            table.search(vectors[start : start + 64], vector_column_name="vector")
            .distance_type("cosine")
            .select(["row_id", "_distance"])
            .limit(wanted)
            .to_arrow()
        )
        found += [
            (cases["row_id"][start + hit.get("query_index", 0)], hit["row_id"], 1.0 - hit["_distance"])
            for hit in hits.to_pylist()
            if hit["row_id"] not in excluded
        ]
    ranked = pl.DataFrame(found, schema=["case_id", "row_id", "similarity"], orient="row")
    ranked = ranked.sort("case_id", "similarity", "row_id", descending=[False, True, False])
    ranked = ranked.with_columns((pl.int_range(pl.len()).over("case_id") + 1).alias("rank"))
    ranked = ranked.filter(pl.col("rank") <= per_case)
    ranked = ranked.sort("similarity", "case_id", descending=[True, False]).unique("row_id", keep="first")
    rows = [
        (row["row_id"], row["case_id"], row["rank"], row["similarity"], *texts[row["row_id"]])
        for row in ranked.sort("case_id", "rank").iter_rows(named=True)
    ]
    return pl.DataFrame(rows, schema=schema, orient="row")


def verify_index(database: Path, folder: Path, facts: dict[str, Any]) -> None:
    """Check that the pinned version still holds the pool of the artifact. Raises CorruptArtifact."""
    import json

    expected = json.loads((folder / "index.json").read_text())["pool"]
    if pool_digest_of(open_version(database, facts)) != expected:
        raise CorruptArtifact(f"retrieval_index: {facts['table']} in {database} is not the pool it was")


def pool_digest(row_ids: Sequence[str], prompts: Sequence[str]) -> str:
    """Content of a pool: which questions it holds."""
    return digest_json(sorted(zip(row_ids, prompts, strict=True)))


def pool_digest_of(table: "lancedb.table.Table") -> str:
    rows = table.search().select(["row_id", "text"]).limit(None).to_arrow()
    return pool_digest(rows["row_id"].to_pylist(), rows["text"].to_pylist())


def open_version(database: Path, index: dict[str, Any]) -> "lancedb.table.Table":
    """The table at the version an index pinned. Raises CorruptArtifact if it is gone or damaged."""
    import lancedb

    try:
        table = lancedb.connect(database).open_table(index["table"])
        table.checkout(index["lance_version"])
    except (ValueError, RuntimeError, OSError) as error:
        raise CorruptArtifact(f"retrieval_index: {index['table']} in {database}: {error}") from None
    return table


def open_or_create(database: Path, name: str, dimensions: int) -> "lancedb.table.Table":
    import lancedb

    connection = lancedb.connect(database)
    try:
        return connection.open_table(name)
    except ValueError:
        return connection.create_table(name, schema=arrow_schema(dimensions))


def arrow_schema(dimensions: int) -> Any:
    import pyarrow as pa

    # Without this metadata, concurrent merge_inserts of one key leave it in the table twice.
    key = {b"lance-schema:unenforced-primary-key": b"true"}
    return pa.schema(
        [
            pa.field("row_id", pa.string(), nullable=False, metadata=key),
            pa.field("text", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
        ]
    )


def arrow_rows(row_ids: list[str], texts: list[str], vectors: "np.ndarray") -> Any:
    import pyarrow as pa

    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return pa.table([pa.array(row_ids), pa.array(texts), flat], schema=arrow_schema(vectors.shape[1]))


@contextmanager
def writer_lock(database: Path, name: str) -> Iterator[None]:
    """One writer per table; the kernel lets go of it when the writer dies."""
    database.mkdir(parents=True, exist_ok=True)
    with (database / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
