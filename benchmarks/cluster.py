"""What a Ray cluster costs: rows as its tasks, against the same rows in one process.

    python -m benchmarks.cluster

Rows that cost nothing are computed and kept, 10, 1,000 and 100,000 of them, in tasks of at most 128; then greedy
answers of the embedded model, at most 6 tokens, by one and by two workers of one thread. A cluster of this machine's
own, a fresh one and a fresh process each, in turn. `start` is until the first row of each worker is there, libraries
and weights included. What follows for eight GPUs stands below the table; it is a projection, and no GPU was measured.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from apt_assets.engine.nodes import package_folders
from apt_assets.engine.spread import LEAST_ROWS, TASK_ROWS
from apt_assets.project import Project
from benchmarks.speed.contest import child, hold, ratio, save, spread
from benchmarks.workers import EXPERIMENT, digest, work
from resources import cluster
from resources.store.rows import Batches
from resources.threads import cores

STUBS = {f"{rows:,} rows": rows for rows in (10, 1_000, 100_000)}
ANSWERS = "256 answers"
ALL = {"here": 0, "one worker": 1, "two workers": 2}
ROWS, GPUS = 10_000_000, 8
RATES = (10, 100, 1_000)  # rows a second that a GPU may answer
Each = Callable[[Any, Sequence[Any]], Iterator[tuple[int, Any]]]


def compute(number: int, case: str) -> dict[str, Any]:
    """number: of workers; 0: this process."""
    # Of the module by its name, as the workers import it.
    free = import_module("benchmarks.cluster").stub
    job, items = (free, [f"question {n}" for n in range(STUBS[case])]) if case in STUBS else work(case)
    began = time.perf_counter()
    each = in_turn if number == 0 else by_workers(number)
    with closing(each(job, [items[:4]] * max(number, 1))) as warming:
        list(warming)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        table = Project(EXPERIMENT, Path(folder)).store.rows("answers", {"policy": "m"})
        keys = [f"{n:08}" for n in range(len(items))]
        values = table.fill(keys, partial(in_tasks, each, job, items, max(number, 1))).values
    return {"seconds": time.perf_counter() - started, "start": started - began, "rows": digest(values)}


def stub(items: Sequence[str]) -> tuple[list[str], list[str]]:
    return [f"an answer to {item}" for item in items], []


def in_turn(job: Any, parts: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    for position, part in enumerate(parts):
        yield position, job(part)


def by_workers(number: int) -> Each:
    cluster.connect(None, [*package_folders().values()])
    return partial(cluster.each, wants={"CPU": cores() // number})


def in_tasks(each: Each, job: Any, items: Sequence[Any], number: int, missing: Sequence[int]) -> Batches[Any]:
    size = max(min(-(-len(missing) // (2 * number)), TASK_ROWS), LEAST_ROWS)
    parts = [missing[start : start + size] for start in range(0, len(missing), size)]
    with closing(each(job, [[items[place] for place in part] for part in parts])) as found:  # type: ignore[type-var]
        for position, (values, _) in found:
            yield parts[position], values


CONTESTANTS = {name: partial(compute, number) for name, number in ALL.items()}


def report(found: dict[str, Any]) -> str:
    lines = ["| work | | seconds | start, s | times as fast |", "|---|---|---|---|---|"]
    for case, its in found["runs"].items():
        for name in its:
            faster = f"**{ratio(its, name, 'here'):.2f}**"
            lines.append(
                f"| {case} | {name} | {spread(its[name], 'seconds')} | {spread(its[name], 'start')} | {faster} |"
            )
    return "\n".join([*lines, "", *projection(found["runs"])])


def projection(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """ROWS rows by GPUS GPUs, by what a row costs the driver and how long workers take until they begin."""
    most = max(STUBS, key=lambda case: STUBS[case])
    a_row = statistics.median(run["seconds"] for run in runs[most]["two workers"]) / STUBS[most]
    start = statistics.median(run["start"] for run in runs[ANSWERS]["two workers"])
    scaling = ratio(runs[ANSWERS], "two workers", "one worker")
    lines = [
        f"Two workers answer {scaling:.2f} times as fast as one. A driver takes at most {1 / a_row:,.0f} rows a "
        f"second, and workers begin after {start:.0f} s. Projected for {ROWS:,} rows on {GPUS} GPUs, if that were all:",
        "",
        "| rows a second of one GPU | hours on one | hours on all | lost to Ray and the driver |",
        "|---|---|---|---|",
    ]
    for rate in RATES:
        alone, ideal = ROWS / rate, ROWS / (GPUS * rate)
        takes = start + max(ideal, ROWS * a_row)
        lines.append(f"| {rate:,} | {alone / 3600:.1f} | {takes / 3600:.2f} | {100 * (1 - ideal / takes):.1f} % |")
    return lines


def main() -> None:
    runs = hold("benchmarks.cluster", CONTESTANTS, [*STUBS, ANSWERS], repeats=3)
    for case, its in runs.items():
        different = {run["rows"] for each in its.values() for run in each}
        assert len(different) == 1, f"{case}: rows differ"
    found = {"runs": runs}
    save("cluster", found, ["ray", "torch", "transformers"])
    print(report(found))


if __name__ == "__main__":
    child(CONTESTANTS, sys.argv[1:]) if sys.argv[1:2] == ["run"] else main()
