"""What exact products cost: the same work in each mode of MKL.

    python -m benchmarks.speed.exact [CASE ...]

The embedded model in float32, all cores; a fresh process for each mode, since MKL reads MKL_CBWR once. `pass` is a
forward pass of 1,024 tokens, the median of five after the first, and `step` an optimiser step of the training above.
Intel's modes are Intel's alone: on other processors MKL takes AUTO instead, as "in force" shows.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.speed.contest import add_cases, child, hold, ratio, save, spread
from benchmarks.speed.workload import CACHE
from resources.processor import MODE, choose_mode, read_cpuinfo

MODES = ("", "AVX512,STRICT", "AVX2,STRICT", "AUTO,STRICT", "COMPATIBLE")
PASSES, TOKENS = 5, 1024


def forward_pass() -> float:
    """Seconds."""
    import torch

    from resources.model.packing import Pack, Row
    from resources.model.policy import load_policy

    model = load_policy(CACHE / "policy", dtype="float32").model
    ids = torch.randint(model.config.vocab_size, (TOKENS // 32, 32), generator=torch.Generator().manual_seed(0))
    pack = Pack([], [Row(row) for row in ids.tolist()])
    seconds = []
    with torch.inference_mode():
        for _ in range(PASSES + 1):
            started = time.perf_counter()
            model(input_ids=pack.ids, position_ids=pack.positions, layout=pack, use_cache=False, logits_to_keep=16)
            seconds.append(time.perf_counter() - started)
    return sorted(seconds[1:])[PASSES // 2]


def training_step() -> float:
    """Seconds."""
    from benchmarks.speed import training

    return training.ours("demo")["seconds"]


CASES: dict[str, Callable[[], float]] = {"pass": forward_pass, "step": training_step}


def measure(mode: str, case: str) -> dict[str, Any]:
    os.environ.pop(MODE, None)
    if mode:
        os.environ[MODE] = mode
    seconds = CASES[case]()
    from resources.model.mkl import mkl_mode

    ours = mode == choose_mode(read_cpuinfo())
    return {"seconds": seconds, "in_force": mkl_mode(), "ours": ours}


CONTESTANTS = {mode or "default": partial(measure, mode) for mode in MODES}


def report(runs: dict[str, Any]) -> str:
    lines = ["| work | MKL_CBWR | in force | s | of the default's time |", "|---|---|---|---|---|"]
    for case, its in runs.items():
        for name, found in its.items():
            cost = f"{ratio(its, 'default', name):.2f}"
            ours = " (ours)" if found[0]["ours"] else ""
            lines.append(f"| {case} | {name}{ours} | {found[0]['in_force']} | {spread(found, 'seconds')} | {cost} |")
    return "\n".join(lines)


def main() -> None:
    runs = add_cases("exact", hold("benchmarks.speed.exact", CONTESTANTS, sys.argv[1:] or CASES))
    save("exact", {"runs": runs}, ("torch", "trl", "transformers"))
    print(report(runs))


if __name__ == "__main__":
    child(CONTESTANTS, sys.argv[1:]) if sys.argv[1:2] == ["run"] else main()
