"""Similar cases from pools of 10,000 to 1,000,000 rows: exact search against LanceDB's, flat and indexed.

    python -m benchmarks.retrieval [--sizes 10000 100000 1000000] [--methods product flat ivf_pq ...]

The vectors are made up: 384 dimensions, length 1, a mixture of Gaussians in two levels. 64 topics; a
hundredth as many clusters as rows, each around one topic; rows around the clusters. Two rows of one
cluster have a cosine of about 0.67, of one topic 0.33, others 0. They are drawn in random order. Real
embeddings are less regular, so take the recall of an index as an example.

The job is that of one iteration: 256 rows of the pool (as bad cases are) and the 10 nearest rows of each,
which includes the row itself where an index is compared. Every method has its own process and, but for
`product`, its own copy of the table. *Build* is what has to be done before the first query (embedding
apart, whose vectors are read from a file), *upsert* what 1 % new rows then cost. Recall is against a
float32 product with all rows. An index is tried with several settings; the table shows the fastest with a
recall of 0.97, or the best if there is none. Peak memory is the resident set of the process (getrusage),
in MB of 10^6 bytes; Python with its libraries, about 300, is in it, and in *build* the file of made-up
vectors, which is mapped. For exact search it is that of the whole stage.

Prints Markdown; adds to benchmarks/results/retrieval.json, so that sizes can be measured one by one.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from apt_assets.report import markdown
from apt_assets.study.measured_on import machine
from resources.retrieval.retriever import make_pool, nearest, similar_cases, verify_pool
from resources.retrieval.vector_folder import VectorFolder
from resources.store.digest import list_files
from resources.store.file_digests import FileDigests
from resources.store.rows import Batches
from resources.store.tables import read_table, write_table
from schemas.tables import BadCases

RESULTS = Path(__file__).with_name("results") / "retrieval.json"
DIMENSIONS, QUERIES, MANY, NEAREST, RECALL = 384, 256, 2048, 10, 0.97
TABLE = "vectors-measured"
# What may be tried at query time, the cheapest first.
SETTINGS = {
    "flat": [{}],
    "ivf_pq": [{"nprobes": n, "refine_factor": r} for n in (10, 20, 50, 100) for r in (10, 30)],
    "ivf_rq": [{"nprobes": n, "refine_factor": r} for n in (10, 20, 50) for r in (5, 10, 20)],
    "ivf_hnsw_sq": [{"nprobes": n, "refine_factor": 5, "ef": 200} for n in (5, 20, 50)],
}


# -- made-up data ------------------------------------------------------------------------------------


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_vectors(path: Path, rows: int) -> None:
    """(rows + 1 %, dimensions) into an .npy file, block by block; the last ones are the new rows."""
    random = np.random.default_rng(rows)
    topics = unit(random.standard_normal((64, DIMENSIONS)))
    number = max(rows // 100, 64)
    around = unit(random.standard_normal((number, DIMENSIONS)))
    clusters = unit(topics[random.integers(0, 64, number)] + around)
    total = rows + rows // 100
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(total, DIMENSIONS))
    for start in range(0, total, 10_000):
        size = min(10_000, total - start)
        away = unit(random.standard_normal((size, DIMENSIONS), dtype=np.float32))
        out[start : start + size] = unit(clusters[random.integers(0, number, size)] + 0.7 * away)
    out.flush()


def text_of(number: int) -> str:
    return f"question number {number} of the made-up pool"


def questions(start: int, end: int) -> pl.DataFrame:
    """Rows as of train.parquet; row n has the id n, in hex."""
    numbers = range(start, end)
    texts = {"row_id": [f"{n:016x}" for n in numbers], "prompt": [text_of(n) for n in numbers]}
    return pl.DataFrame(texts).with_columns(answer=pl.lit("gold"), also=pl.lit(None, pl.String))


class Lookup:
    """In the place of the encoder: the vectors of the file."""

    def __init__(self, path: Path):
        self.vectors = np.load(path, mmap_mode="r")

    def embed(self, texts: list[str]) -> Batches[np.ndarray]:
        for start in range(0, len(texts), 64):
            numbers = [int(text.split()[2]) for text in texts[start : start + 64]]
            yield range(start, start + len(numbers)), list(np.array(self.vectors[numbers]))


# -- in a process of its own -------------------------------------------------------------------------


def make(folder: Path, rows: int) -> dict[str, Any]:
    make_vectors(folder / "vectors.npy", rows)
    return {}


def open_table(folder: Path) -> VectorFolder:
    return VectorFolder(folder / "db", TABLE, FileDigests(folder / "digests.json").files)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in list_files(folder))


def drawn(rows: int, number: int) -> np.ndarray:
    return np.sort(np.random.default_rng(1).choice(rows, min(number, rows // 10), replace=False))


def timed(function: Any, *given: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = function(*given)
    return time.perf_counter() - started, result


def store_pool(folder: Path, start: int, end: int) -> None:
    """What the stage retrieval_index does for rows 0..end, those from `start` on being new."""
    table, rows = open_table(folder), questions(0, end)
    computed = table.fill(rows["prompt"].to_list(), Lookup(folder / "vectors.npy").embed)
    assert computed == end - start
    write_table(make_pool(table, rows), folder / "pool.parquet")
    (folder / "mark.json").write_text(json.dumps(table.mark()))


def build(folder: Path, rows: int) -> dict[str, Any]:
    seconds, _ = timed(store_pool, folder, 0, rows)
    return {"build_seconds": seconds, "bytes": size_of(folder / "db") + (folder / "pool.parquet").stat().st_size}


def upsert(folder: Path, rows: int) -> dict[str, Any]:
    before = {path: path.stat().st_size for path in list_files(folder / "db")}
    seconds, _ = timed(store_pool, folder, rows, rows + rows // 100)
    added = sum(path.stat().st_size for path in list_files(folder / "db") if path not in before)
    return {"upsert_seconds": seconds, "upsert_bytes": added, "list_bytes": (folder / "pool.parquet").stat().st_size}


def search(folder: Path, rows: int, number: int = QUERIES) -> dict[str, Any]:
    """What the stage neighbors does, from its files to its table."""

    def ask() -> float:
        pool = questions(0, rows)
        asked = pool[drawn(rows, number)].with_columns(
            prediction=pl.lit("wrong"), grade=pl.lit(1, dtype=pl.Int8), exact=pl.lit(False)
        )
        cases = BadCases.validate(asked)
        started = time.perf_counter()
        similar_cases(open_table(folder), read_table(folder / "pool.parquet"), cases, pool, per_case=NEAREST)
        return time.perf_counter() - started

    return {"query_seconds": ask(), "queries": min(number, rows // 10)}


def search_many(folder: Path, rows: int) -> dict[str, Any]:
    return search(folder, rows, MANY)


def again(folder: Path, rows: int) -> dict[str, Any]:
    """What a run that changes nothing does, a whole check, and the count that `plan` shows."""
    mark, texts = json.loads((folder / "mark.json").read_text()), questions(0, rows)["prompt"].to_list()
    unchanged, same = timed(open_table(folder).unchanged_since, mark)
    assert same
    whole, _ = timed(verify_pool, open_table(folder), read_table(folder / "pool.parquet"))
    count, missing = timed(open_table(folder).missing, texts)
    assert missing == 0
    (folder / "db" / f"{TABLE}.checked.json").unlink()
    anew, _ = timed(verify_pool, open_table(folder), read_table(folder / "pool.parquet"))
    return {"unchanged_seconds": unchanged, "verify_seconds": whole, "missing_seconds": count, "anew_seconds": anew}


def exact(folder: Path, rows: int) -> dict[str, Any]:
    """The search alone, as an index is asked; writes the truth it is compared with."""
    table, vectors = open_table(folder), np.load(folder / "vectors.npy", mmap_mode="r")
    places = table.rows("text").sort("place")
    number = places["text"].str.split(" ").list.get(2).cast(pl.Int64).to_numpy()
    queries = np.array(vectors[drawn(rows, QUERIES)])

    def ask() -> list[list[int]]:
        query, position, _ = nearest(queries, table.blocks(places["place"].to_numpy()), number, NEAREST)
        return [number[position[query == q]].tolist() for q in range(len(queries))]

    seconds, found = timed(ask)
    truth = in_float32(vectors, queries, rows)
    (folder / "truth.json").write_text(json.dumps(truth))
    return {"query_seconds": seconds, "recall": recall(found, truth)}


def in_float32(vectors: np.ndarray, queries: np.ndarray, rows: int) -> list[list[int]]:
    best = [np.empty((len(queries), 0))] * 2
    for start in range(0, rows, 10_000):
        scores = queries @ vectors[start : min(start + 10_000, rows)].T
        top = np.argpartition(-scores, NEAREST, axis=1)[:, :NEAREST]
        found = np.take_along_axis(scores, top, 1)
        best = [np.hstack([best[0], found]), np.hstack([best[1], top + start])]
        order = np.argsort(-best[0], axis=1, kind="stable")[:, :NEAREST]
        best = [np.take_along_axis(one, order, 1) for one in best]
    return best[1].astype(int).tolist()


def recall(found: list[list[int]], truth: list[list[int]]) -> float:
    return sum(len(set(f) & set(t)) for f, t in zip(found, truth, strict=True)) / sum(map(len, truth))


def lance(folder: Path, rows: int, method: str) -> dict[str, Any]:
    """LanceDB's own search in a copy of the table, with an index unless it is `flat`."""
    import lancedb
    from lancedb.index import HnswSq, IvfPq, IvfRq

    table = lancedb.connect(folder / "db").open_table(TABLE)
    partitions = max(rows // 2000, 16)
    given: dict[str, Any] = {
        "ivf_pq": IvfPq(distance_type="cosine", num_partitions=partitions, num_sub_vectors=48),
        "ivf_rq": IvfRq(distance_type="cosine", num_partitions=partitions),
        "ivf_hnsw_sq": HnswSq(distance_type="cosine", num_partitions=max(rows // 50_000, 1)),
    }
    before, found = size_of(folder / "db"), {"build_seconds": 0.0, "upsert_seconds": None}
    if method != "flat":
        found["build_seconds"], _ = timed(lambda: table.create_index("vector", config=given[method]))
        found["bytes"] = size_of(folder / "db") - before
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    queries, truth = np.array(vectors[drawn(rows, QUERIES)]), json.loads((folder / "truth.json").read_text())
    tried = []
    ask_lance(table, queries[:64], SETTINGS[method][0])  # the first query reads the index
    for settings in SETTINGS[method]:
        seconds, hits = timed(ask_lance, table, queries, settings)
        tried.append({**settings, "query_seconds": seconds, "recall": recall(hits, truth)})
    good = [one for one in tried if one["recall"] >= RECALL]
    best = min(good, key=lambda one: one["query_seconds"]) if good else max(tried, key=lambda one: one["recall"])
    found |= {**best, "tried": tried}
    if method != "flat":
        rows_of = pl.DataFrame({"n": range(rows, rows + rows // 100)})["n"].to_list()
        found["upsert_seconds"], _ = timed(add_to_index, table, rows_of, np.array(vectors[rows:]))
    return found


def ask_lance(table: Any, queries: np.ndarray, settings: dict[str, int]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in queries]
    for start in range(0, len(queries), 64):
        query = table.search(queries[start : start + 64], vector_column_name="vector").distance_type("cosine")
        for name, value in settings.items():
            query = {"nprobes": query.nprobes, "refine_factor": query.refine_factor, "ef": query.ef}[name](value)
        hits = query.select(["text", "_distance"]).limit(NEAREST).to_arrow()
        asked = hits["query_index"].to_pylist() if "query_index" in hits.column_names else [0] * len(hits)
        for number, text in zip(asked, hits["text"].to_pylist(), strict=True):
            found[start + number].append(int(text.split()[2]))
    return found


def add_to_index(table: Any, numbers: list[int], vectors: np.ndarray) -> None:
    from resources.retrieval.lance_rows import table_rows

    table.add(table_rows([text_of(n) for n in numbers], vectors, TABLE))
    table.optimize()


PHASES = {f.__name__: f for f in (make, build, search, search_many, again, exact, upsert)}


def child(what: str, folder: Path, rows: int) -> None:
    import lancedb  # noqa: F401 - so that importing is not measured
    import pandera.polars  # noqa: F401

    found = PHASES[what](folder, rows) if what in PHASES else lance(folder, rows, what)
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps(found))


# -- all of them -------------------------------------------------------------------------------------


def run(what: str, folder: Path, rows: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.retrieval", "--child", what, str(folder), str(rows)]
    print(f"{rows} rows: {what}", file=sys.stderr, flush=True)
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def measure(rows: int, methods: list[str], results: dict[str, Any]) -> None:
    mine = results.setdefault(str(rows), {})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "product"
        folder.mkdir()
        run("make", folder, rows)  # not here: a process begins with the peak memory of the one that started it
        measured = {what: run(what, folder, rows) for what in ("build", "exact", "search", "search_many", "again")}
        for method in (method for method in methods if method != "product"):
            copy = Path(temporary) / method
            shutil.copytree(folder, copy)
            mine[method] = run(method, copy, rows)
            shutil.rmtree(copy)
            save(results)
        if "product" in methods:
            mine["product"] = {**measured, "upsert": run("upsert", folder, rows)}
            save(results)


def save(results: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def report(results: dict[str, Any]) -> str:
    stages, methods = [], []
    for size in sorted((key for key in results if key.isdigit()), key=int):
        mine, one = results[size], results[size]["product"]
        stages.append(
            [
                f"{int(size):,}",
                *(f"{one[what][f'{name}_seconds']:.2f}" for what, name in (("build", "build"), ("upsert", "upsert"))),
                f"{one['upsert']['upsert_bytes'] / 1e6:.1f} + {one['upsert']['list_bytes'] / 1e6:.1f}",
                f"{one['build']['bytes'] / 1e6:.0f}",
                f"{one['search']['query_seconds']:.2f}",
                f"{one['search_many']['query_seconds']:.2f} ({one['search_many']['queries']})",
                *(f"{one['again'][f'{name}_seconds']:.3f}" for name in ("unchanged", "missing", "anew")),
                " / ".join(f"{one[what]['peak_mb']:.0f}" for what in ("build", "upsert", "search")),
            ]
        )
        alone = one["exact"]["query_seconds"]
        methods.append([f"{int(size):,}", "exact, in blocks", "-", f"{alone:.2f}", f"{one['exact']['recall']:.4f}",
                        "-", f"{one['search']['peak_mb']:.0f}", "-", "-"])  # fmt: skip
        for name in SETTINGS:
            if found := mine.get(name):
                saved = (alone - found["query_seconds"]) / QUERIES
                pays = f"{found['build_seconds'] / saved:,.0f} queries" if saved > 0 and name != "flat" else "never"
                given = ", ".join(f"{key} {found[key]}" for key in ("nprobes", "refine_factor", "ef") if key in found)
                methods.append(
                    [
                        f"{int(size):,}",
                        f"{name} ({given})" if given else name,
                        f"{found['build_seconds']:.1f}",
                        f"{found['query_seconds']:.2f}",
                        f"{found['recall']:.4f}",
                        "-" if found["upsert_seconds"] is None else f"{found['upsert_seconds']:.2f}",
                        f"{found['peak_mb']:.0f}" if "peak_mb" in found else "-",
                        f"{found['bytes'] / 1e6:.0f}" if "bytes" in found else "-",
                        pays,
                    ]
                )
    where = results["machine"]
    return "\n\n".join(
        [
            f"{where['date']}, {where['cores']} cores of {where['cpu']}, lancedb {where['lancedb']}.",
            "The stages, without embedding. Seconds: the pool stored (*build*), stored with 1 % new rows (*upsert*; "
            f"MB of vectors + of the list of rows written), neighbours of {QUERIES} and of {MANY} cases, a run that "
            "changes nothing, `plan`'s count, and comparing every row anew.",
            markdown.table(
                ["rows", "build s", "upsert s", "upsert MB", "disk MB", f"{QUERIES} cases s", f"{MANY} cases s",
                 "unchanged s", "count s", "all anew s", "peak MB build / upsert / search"], stages,
            ),
            f"The search alone, {QUERIES} queries for {NEAREST} rows. *pays from*: for how many queries to one pool "
            "building the index is made up for.",
            markdown.table(
                ["rows", "method", "build s", f"{QUERIES} queries s", "recall@10", "upsert s", "peak MB",
                 "index MB", "pays from"], methods,
            ),
        ]
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--methods", nargs="+", choices=["product", *SETTINGS], default=["product", *SETTINGS])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], Path(arguments.child[1]), int(arguments.child[2]))
    else:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        known["machine"] = {
            **machine(), "date": time.strftime("%Y-%m-%d"),
            **{name: metadata.version(name) for name in ("lancedb", "numpy")},
        }  # fmt: skip
        for rows in arguments.sizes:
            measure(rows, arguments.methods, known)
        print(report(known))
