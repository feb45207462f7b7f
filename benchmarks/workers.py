"""Rows by as many processes of one thread as there are cores, against as many threads of one process.

    python -m benchmarks.workers

Greedy answers of the embedded model, at most 6 tokens, and texts of 64 tokens that it writes unasked. `start` is until
the first row of each worker is there, in one process until the model is: libraries and weights. A fresh process each,
in turn. What apt_assets/engine/spread.py goes by stands below the table.
"""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

from apt_assets.engine.job import Job
from apt_assets.engine.scope import SentScope
from apt_assets.engine.spread import weights
from apt_assets.rows import anchors, by_transformers
from apt_assets.settings.experiment import Experiment
from apt_assets.world.execution import Execution
from benchmarks.speed.contest import child, hold, ratio, save, spread
from benchmarks.speed.workload import CACHE, SYSTEM_PROMPT, terms
from resources import workers
from resources.threads import cores, set_threads

CASES = ("256 answers", "1024 answers", "64 texts")
TASK_ROWS = (32, 64, 128)
EXPERIMENT = Experiment(
    name="workers", policy={"dtype": "float32", "max_new_tokens": 6, "system_prompt": SYSTEM_PROMPT}
)


def work(case: str) -> tuple[Job, Sequence[Any]]:
    """(what computes rows, what of)."""
    number, what = case.split()
    if what == "texts":
        compute, kind = anchors.write, anchors.WRITTEN
        items: list[Any] = [(("chat", "document")[n % 2], str(n)) for n in range(int(number))]
    else:
        compute, kind = by_transformers.answer, by_transformers.ANSWERS
        items = [row["prompt"] for row in terms(int(number))]
    execution = Execution("packed", "", exact=True, shape_free=True, bits="", alone=True, tried="")
    found = {"base_model": CACHE / "policy", "execution": execution}
    return Job(compute, SentScope(EXPERIMENT, found, kind, {"adapter": None})), items


def in_one_process(case: str) -> dict[str, Any]:
    set_threads(cores())
    job, items = work(case)
    began = time.perf_counter()
    job(items[:4])
    started = time.perf_counter()
    values, _ = job(items)
    return {"seconds": time.perf_counter() - started, "start": started - began, "rows": digest(values)}


def by_workers(task_rows: int, case: str) -> dict[str, Any]:
    job, items = work(case)
    began = time.perf_counter()
    with closing(workers.each(cores(), job, [items[:4]] * cores())) as done:
        list(done)
    started = time.perf_counter()
    parts = [items[place : place + task_rows] for place in range(0, len(items), task_rows)]
    with closing(workers.each(cores(), job, parts)) as done:
        found = {part: values for part, (values, _) in done}
    seconds = time.perf_counter() - started
    values = [value for part in sorted(found) for value in found[part]]
    return {"seconds": seconds, "start": started - began, "rows": digest(values)}


def digest(values: Sequence[Any]) -> str:
    from resources.store.digest import digest_json

    return digest_json(json.loads(json.dumps(values)))


CONTESTANTS = {"threads": in_one_process, **{f"workers, {rows} rows": partial(by_workers, rows) for rows in TASK_ROWS}}


def report(runs: dict[str, Any]) -> str:
    lines = ["| work | | seconds | start, s | times as fast |", "|---|---|---|---|---|"]
    for case, its in runs.items():
        for name in CONTESTANTS:
            faster = f"**{ratio(its, name, 'threads'):.2f}**"
            lines.append(
                f"| {case} | {name} | {spread(its[name], 'seconds')} | {spread(its[name], 'start')} | {faster} |"
            )
    answered = statistics.median(run["seconds"] for run in runs["1024 answers"]["threads"])
    rate = 1024 * weights(CACHE / "policy") / answered
    return "\n".join([*lines, "", f"BYTES_A_SECOND = {rate:.2g}"])


def main() -> None:
    runs = hold("benchmarks.workers", CONTESTANTS, CASES, repeats=3)
    for case, its in runs.items():
        different = {run["rows"] for found in its.values() for run in found}
        assert len(different) == 1, f"{case}: rows differ"
    save("workers", {"runs": runs}, ["torch", "transformers"])
    print(report(runs))


if __name__ == "__main__":
    child(CONTESTANTS, sys.argv[1:]) if sys.argv[1:2] == ["run"] else main()
