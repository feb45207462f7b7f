"""Contestants in turn: A B C, A B C, ..., each in a process of its own, so that a machine whose speed
drifts is the same for all of them.

A benchmark module names its contestants and what each does; `hold` runs them and `ratios` compares
medians. A contestant prints one JSON object on its last line of stdout: `seconds` of the work (loading
left out), and whatever else it measured. Peak memory is the process's largest resident set, in GB of
10^9 bytes, libraries and weights included.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from apt_assets.study.measured_on import machine

RESULTS = Path(__file__).parents[1] / "results"
REPEATS = 5
Contestant = Callable[[], dict[str, Any]]


def hold(module: str, contestants: Iterable[str], cases: Iterable[str] = ("",), repeats: int = REPEATS) -> dict:
    """{case: {contestant: [what it printed, by repeat]}}, of `python -m module run CONTESTANT CASE`."""
    contestants, cases = list(contestants), list(cases)
    found: dict[str, dict[str, list]] = {case: {name: [] for name in contestants} for case in cases}
    for case in cases:
        for repeat in range(repeats):
            for name in contestants:
                started = time.monotonic()
                found[case][name].append(run_one(module, name, case))
                say(f"{module} {case} {repeat + 1}/{repeats} {name}: {time.monotonic() - started:.0f} s")
    return found


def run_one(module: str, name: str, case: str) -> dict[str, Any]:
    command = [sys.executable, "-m", module, "run", name, case]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def child(contestants: dict[str, Callable[[str], dict[str, Any]]], arguments: list[str]) -> None:
    """What `python -m module run CONTESTANT CASE` does."""
    import resource

    _, name, case = arguments
    found = contestants[name](case)
    print(json.dumps({**found, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}))


def median(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def spread(runs: list[dict[str, Any]], key: str, digits: int = 2) -> str:
    """Median [min, max]."""
    values = [run[key] for run in runs]
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def ratio(runs: dict[str, list[dict]], ours: str, other: str, key: str = "seconds") -> float:
    """Median over the repeats of other / ours, each pair measured one after the other."""
    return statistics.median(b[key] / a[key] for a, b in zip(runs[ours], runs[other], strict=True))


def files_of(name: str) -> list[Path]:
    """Where results are kept: those of processors with AVX-512, and those of others, which take twice as long."""
    return [RESULTS / f"{name}.json", RESULTS / f"{name}-no-avx512.json"]


def file_here(name: str) -> Path:
    """Where those of this machine are."""
    return files_of(name)["AVX-512" not in machine()["cpu"]]


def add_cases(name: str, runs: dict[str, Any]) -> dict[str, Any]:
    """These runs and those of other cases that were saved before, so that cases can be measured one by one."""
    path = file_here(name)
    return {**(json.loads(path.read_text())["runs"] if path.is_file() else {}), **runs}


def save(name: str, found: dict[str, Any], libraries: Iterable[str]) -> None:
    content = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "libraries": {library: metadata.version(library) for library in libraries},
        **found,
    }
    RESULTS.mkdir(exist_ok=True)
    file_here(name).write_text(json.dumps(content, indent=1) + "\n")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
