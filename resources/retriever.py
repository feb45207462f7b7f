"""The retriever: the training pool in LanceDB, and similar cases by cosine similarity.

Two kinds of LanceDB tables. `vectors-*` holds every text that one encoder ever embedded, by content,
and only grows: a text is embedded once, whatever experiment, setting or iteration asks for it.
`index-*` holds one pool, and is named by its content: an older iteration still has its own pool, and
iterations over the same rows share one. Search is exact (no ANN index): below about 100,000 rows that
is fast, and it is reproducible.
"""

import fcntl
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.artifact_store import CorruptArtifact
from resources.digest import digest_json, list_files
from resources.policy_model import batches_by_width

if TYPE_CHECKING:
    import lancedb
    import numpy as np
    import polars as pl

COMMIT_ROWS = 1024  # vectors between two commits to LanceDB, each of which makes a file


class Encoder:
    """A sentence-transformers model; vectors are float32 with length 1."""

    def __init__(self, folder: Path, *, device: str = "cpu", batch_size: int = 64):
        from sentence_transformers import SentenceTransformer

        attention = {"attn_implementation": "eager"} if device == "cpu" else {}
        self._model = SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs=attention)
        # Fixed shapes, as in policy_model.generate: a vector then depends on its text alone.
        self._model[0].processing_kwargs = {"text": {"pad_to_multiple_of": 16}}
        self._batch_size = batch_size

    @property
    def dimensions(self) -> int:
        return int(self._model.get_embedding_dimension() or 0)

    def embed(
        self,
        texts: Sequence[str],
        progress: Callable[[int], None] = lambda done: None,
        on_batch: Callable[[list[int], "np.ndarray"], None] = lambda rows, vectors: None,
    ) -> "np.ndarray":
        """(texts, dimensions), in the order of `texts`. `on_batch` gets positions and vectors."""
        import numpy as np

        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        limit = self._model.max_seq_length or 512
        lengths = [min(len(ids), limit) for ids in self._model.tokenizer(list(texts))["input_ids"]] if texts else []
        done = 0
        for _, rows in batches_by_width(lengths, self._batch_size):
            filled = rows + rows[:1] * (self._batch_size - len(rows))
            vectors[rows] = self._model.encode(
                [texts[i] for i in filled],
                batch_size=self._batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )[: len(rows)]
            on_batch(rows, vectors[rows])
            done += len(rows)
            progress(done)
        return vectors


class VectorTable:
    """Every text that one encoder embedded. `context`: encoder, device, libraries, code (see RowTable)."""

    def __init__(self, database: Path, context: dict[str, Any]):
        self.database, self.context = database, context
        self.name = f"vectors-{digest_json(context)[:16]}"

    def missing(self, texts: Sequence[str]) -> int:
        """How many distinct texts have no vector yet."""
        return len(set(texts) - self._read(set(texts)).keys())

    def fill(
        self,
        texts: Sequence[str],
        open_encoder: Callable[[], Encoder],
        check: Callable[[], None] = lambda: None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> tuple[list["np.ndarray"], int]:
        """(the vector of every text, how many were computed). New ones are kept every few batches,
        after `check`, which may raise. The encoder is loaded only if something is missing."""
        with writer_lock(self.database, self.name):
            found = self._read(set(texts))
            wanted = [text for text in dict.fromkeys(texts) if text not in found]
            if wanted:
                encoder = open_encoder()
                table = open_or_create(self.database, self.name, vector_schema(encoder.dimensions))
                waiting: dict[str, Any] = {}

                def keep() -> None:
                    check()
                    if waiting:
                        table.add(vector_rows(waiting, encoder.dimensions))
                        found.update(waiting)
                        waiting.clear()

                def on_batch(rows: list[int], vectors: "np.ndarray") -> None:
                    waiting.update((wanted[i], v) for i, v in zip(rows, vectors, strict=True))
                    if len(waiting) >= COMMIT_ROWS:
                        keep()

                encoder.embed(wanted, progress, on_batch)
                keep()
        return [found[text] for text in texts], len(wanted)

    def _read(self, texts: set[str]) -> dict[str, "np.ndarray"]:
        """{text: vector} of the wanted texts whose rows match their check."""
        import lancedb

        try:
            table = lancedb.connect(self.database).open_table(self.name)
        except ValueError:
            return {}
        columns = table.to_arrow().select(["text", "vector", "check"])
        vectors = columns["vector"].combine_chunks()
        matrix = vectors.flatten().to_numpy().reshape(len(columns), -1)
        rows = zip(columns["text"].to_pylist(), matrix, columns["check"].to_pylist(), strict=True)
        return {text: vector for text, vector, check in rows if text in texts and check == vector_check(text, vector)}


def vector_check(text: str, vector: "np.ndarray") -> str:
    return hashlib.sha256(text.encode("utf-8") + vector.tobytes()).hexdigest()[:16]


def vector_schema(dimensions: int) -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("text", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
            pa.field("check", pa.string(), nullable=False),
        ]
    )


def vector_rows(vectors: dict[str, "np.ndarray"], dimensions: int) -> Any:
    import numpy as np
    import pyarrow as pa

    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(list(vectors.values()))), dimensions)
    checks = [vector_check(text, vector) for text, vector in vectors.items()]
    return pa.table([pa.array(list(vectors)), flat, pa.array(checks)], schema=vector_schema(dimensions))


def make_index(database: Path, pool: "pl.DataFrame", vectors: Sequence["np.ndarray"]) -> dict[str, Any]:
    """The table that holds exactly `pool` (row_id, prompt, answer) with `vectors`, one per row; written
    only if it is not there yet, or is not what it should be. Returns {table, pool, rows}: its name,
    which is of its content, the digest of that content, and the number of rows.
    """
    import lancedb
    import numpy as np

    rows = list(zip(pool["row_id"].to_list(), pool["prompt"].to_list(), strict=True))
    matrix = np.stack(vectors)
    digest = pool_digest(rows, matrix)
    name = f"index-{digest[:16]}"
    index = {"table": name, "pool": digest, "rows": len(rows)}
    with writer_lock(database, name):
        try:
            check_index(database, index)
        except CorruptArtifact:
            table = arrow_rows([row for row, _ in rows], [text for _, text in rows], matrix)
            lancedb.connect(database).create_table(name, table, mode="overwrite")
    return index


def similar_cases(
    database: Path,
    index: dict[str, Any],
    cases: "pl.DataFrame",
    pool: "pl.DataFrame",
    *,
    per_case: int,
) -> "pl.DataFrame":
    """Up to `per_case` nearest pool rows for each bad case, as a Neighbors table.

    cases: BadCases, all of them rows of the pool, so that their vectors are in the index. pool: the
    training rows; only they can be neighbours, so no evaluation row can. A bad case is no one's
    neighbour (it is trained on anyway), and a row near several bad cases is kept once, for the one it
    is most similar to. Raises CorruptArtifact if the index lost a row.
    """
    import numpy as np
    import polars as pl

    from schemas.tables import Neighbors

    schema = Neighbors.empty().schema
    if cases.height == 0 or per_case == 0:
        return pl.DataFrame(schema=schema)
    table = open_index(database, index)
    ids, matrix = index_content(table)
    place = {row: i for i, (row, _) in enumerate(ids)}
    if lost := [case for case in cases["row_id"] if case not in place]:
        raise CorruptArtifact(f"retrieval_index: {index['table']} in {database} lost the row {lost[0]}")
    vectors = np.stack([matrix[place[case]] for case in cases["row_id"]])
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


def verify_index(database: Path, index: dict[str, Any], digest: Callable[[Path], str]) -> None:
    """Check that an index still holds its pool. Raises CorruptArtifact.

    If all its files have the digests they had when it was made (`digest` gives one; it may remember),
    LanceDB need not even be loaded.
    """
    root = database / f"{index['table']}.lance"
    known = index["table_files"]
    if not all((root / name).is_file() and digest(root / name) == value for name, value in known.items()):
        check_index(database, index)


def check_index(database: Path, index: dict[str, Any]) -> None:
    """Read the whole index and compare it with its digest. Raises CorruptArtifact."""
    if pool_digest(*index_content(open_index(database, index))) != index["pool"]:
        raise CorruptArtifact(f"retrieval_index: {index['table']} in {database} is not the pool it was")


def table_files(database: Path, name: str) -> list[Path]:
    """All data and version files of a table, sorted."""
    return list_files(database / f"{name}.lance")


def pool_digest(rows: Sequence[tuple[str, str]], vectors: "np.ndarray") -> str:
    """Content of a pool: (row_id, prompt) of its rows and their vectors, in whatever order they come."""
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    return digest_json([[*rows[i], hashlib.sha256(vectors[i].tobytes()).hexdigest()] for i in order])


def index_content(table: "lancedb.table.Table") -> tuple[list[tuple[str, str]], "np.ndarray"]:
    """([(row_id, prompt)], (rows, dimensions)) of an index, in its own order."""
    columns = table.to_arrow()
    vectors = columns["vector"].combine_chunks().flatten().to_numpy().reshape(len(columns), -1)
    return list(zip(columns["row_id"].to_pylist(), columns["text"].to_pylist(), strict=True)), vectors


def open_index(database: Path, index: dict[str, Any]) -> "lancedb.table.Table":
    """The table of an index. Raises CorruptArtifact if it is gone or damaged."""
    import lancedb

    try:
        return lancedb.connect(database).open_table(index["table"])
    except (ValueError, RuntimeError, OSError) as error:
        raise CorruptArtifact(f"retrieval_index: {index['table']} in {database}: {error}") from None


def drop_table(database: Path, name: str) -> None:
    """Remove a table."""
    import lancedb

    with writer_lock(database, name):
        lancedb.connect(database).drop_table(name)


def open_or_create(database: Path, name: str, schema: Any) -> "lancedb.table.Table":
    import lancedb

    connection = lancedb.connect(database)
    try:
        return connection.open_table(name)
    except ValueError:
        return connection.create_table(name, schema=schema)


def arrow_schema(dimensions: int) -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("row_id", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
        ]
    )


def arrow_rows(row_ids: Sequence[str], texts: Sequence[str], vectors: "np.ndarray") -> Any:
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
