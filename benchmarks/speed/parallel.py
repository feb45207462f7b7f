"""Answers by several at a time: ours, llama.cpp and CTranslate2, each in its own parallel modes.

    python -m benchmarks.speed.parallel

The first case of the answers above, on all cores: `ours` by threads of one process, and by as many processes of one
thread (what rows go to where there are many of them; once every process has its model); llama.cpp with two slots,
whose questions share passes; CTranslate2, given the shared beginning, by threads of one batch, and with batches side by
side, one thread each.
"""

import sys
from functools import partial
from typing import Any

from benchmarks import workers
from benchmarks.speed.contest import child, hold, ratio, save, spread
from benchmarks.speed.generation import CASES, QUESTIONS, ctranslate2, llama_cpp, ours

CONTESTANTS = {
    "ours": ours,
    "ours, workers": lambda case: workers.by_workers(QUESTIONS // 4, f"{QUESTIONS} answers"),
    "llama.cpp": llama_cpp,
    "llama.cpp, 2 slots": partial(llama_cpp, slots=2),
    "CTranslate2": partial(ctranslate2, prefix=True),
    "CTranslate2, side by side": partial(ctranslate2, prefix=True, apart=True),
}


def report(runs: dict[str, Any]) -> str:
    lines = [f"| tool | seconds for {QUESTIONS} | ours is faster by | peak GB |", "|---|---|---|---|"]
    (its,) = runs.values()
    for name, found in its.items():
        faster = "-" if name == "ours" else f"**{ratio(its, 'ours', name):.1f}x**"
        peak = max(run["peak_gb"] for run in found)
        lines.append(f"| {name} | {spread(found, 'seconds', 1)} | {faster} | {peak:.1f} |")
    return "\n".join([*lines, "", "Peak memory is that of the process that asks: of workers, without them."])


def main() -> None:
    runs = hold("benchmarks.speed.parallel", CONTESTANTS, CASES[:1], repeats=3)
    save("parallel", {"runs": runs}, ("torch", "transformers", "ctranslate2", "xllamacpp"))
    print(report(runs))


if __name__ == "__main__":
    child(CONTESTANTS, sys.argv[1:]) if sys.argv[1:2] == ["run"] else main()
