"""What a busy machine costs: the same work alone and beside a busy loop on one core.

    python -m benchmarks.busy

The embedded model, float32, in one process with as many threads as there are cores. `step` is an optimiser step of the
training above, the median of those after the first, `answers` are greedy ones of at most 6 tokens to 64 questions. A
fresh process each, in turn; the loop begins when the libraries are loaded.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from benchmarks.speed.contest import child, hold, ratio, save, spread
from benchmarks.speed.workload import CACHE, SYSTEM_PROMPT, terms
from resources.threads import cores, set_threads

QUESTIONS, LONGEST = 64, 6
BOUND = 2.5  # times as long: more is not acceptable beside one busy loop
# It ends with the process that began it, however that ends.
LOOP = "import os\nbegan = os.getppid()\nwhile os.getppid() == began: pass"


@contextmanager
def busy_loop() -> Iterator[None]:
    """A process that keeps the last of our cores busy."""
    process = subprocess.Popen([sys.executable, "-c", LOOP])
    try:
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
        yield
    finally:
        process.kill()
        process.wait()


def step() -> float:
    """Seconds."""
    from benchmarks.speed import training

    return training.ours("demo")["seconds"]


def answers() -> float:
    """Seconds."""
    from resources.model.generation import generate
    from resources.model.policy import load_policy
    from resources.store.rows import collect

    policy = load_policy(CACHE / "policy", dtype="float32", system_prompt=SYSTEM_PROMPT)
    asked = [row["prompt"] for row in terms(QUESTIONS)]
    collect(4, generate(policy, asked[:4], max_new_tokens=2, batch_tokens=1024))
    started = time.perf_counter()
    collect(len(asked), generate(policy, asked, max_new_tokens=LONGEST, batch_tokens=1024))
    return time.perf_counter() - started


CASES: dict[str, Callable[[], float]] = {"step": step, "answers": answers}


def measure(beside: bool, case: str) -> dict[str, Any]:
    set_threads(cores())
    import torch  # noqa: F401 - loading them is not what is measured
    import transformers  # noqa: F401

    with busy_loop() if beside else nullcontext():
        return {"seconds": CASES[case]()}


CONTESTANTS = {"alone": partial(measure, False), "beside": partial(measure, True)}


def report(runs: dict[str, Any]) -> str:
    lines = ["| work | alone, s | beside a busy loop, s | times as long |", "|---|---|---|---|"]
    for case, its in runs.items():
        times = f"{ratio(its, 'alone', 'beside'):.2f}"
        seconds = " | ".join(spread(its[name], "seconds") for name in CONTESTANTS)
        lines.append(f"| {case} | {seconds} | **{times}** |")
    said = f"; missed by {', '.join(missed(runs))}." if missed(runs) else "."
    return "\n".join([*lines, "", f"At most {BOUND} times as long is what we want{said}"])


def missed(runs: dict[str, Any]) -> list[str]:
    return [case for case, its in runs.items() if ratio(its, "alone", "beside") > BOUND]


def main() -> None:
    runs = hold("benchmarks.busy", CONTESTANTS, CASES, repeats=3)
    save("busy", {"runs": runs}, ["torch", "transformers", "trl"])
    print(report(runs))
    sys.exit(bool(missed(runs)))


if __name__ == "__main__":
    child(CONTESTANTS, sys.argv[1:]) if sys.argv[1:2] == ["run"] else main()
