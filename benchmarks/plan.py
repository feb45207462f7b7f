"""How long `plan` takes on 10, 50 and 200 iterations, as a command and as a function.

    python -m benchmarks.plan

The store is made up: every artifact of every stage of the iterations is committed through the real
planner and store, on the tiny models of the tests, so that nothing has to be trained. Prints the median
of several runs with minimum and maximum, with everything fresh and after a changed threshold, and writes
benchmarks/results/plan.json. Seconds are wall clock; the command's include starting Python. The function is called
again and again in one process, as a sensor does, which reads a manifest once.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from apt_assets.engine.plan import ENGINE_VERSION, stages_of
from apt_assets.engine.stage import STAGES
from apt_assets.loop.work import work_of
from apt_assets.project import Project
from apt_assets.settings.iterations import BASE, key_of
from apt_assets.study.measured_on import machine
from tests import tiny

RESULTS = Path(__file__).with_name("results") / "plan.json"
ITERATIONS = (10, 50, 200)
WHAT = ("fresh", "threshold changed")


def make_project(home: Path) -> Path:
    """An experiment file, its models and its data; no iteration yet."""
    tiny.make_policy(home / "policy")
    tiny.make_encoder(home / "encoder")
    tiny.make_task(home / "tasks")
    tiny.write_jsonl(home / "landing" / "colours.jsonl", tiny.domain_rows(2000))
    write_experiment(home, bad_below=4)
    return home / "plan.yaml"


def go_on(experiment: Path, iterations: int) -> None:
    """Make this many iterations up to date, with made-up artifacts."""
    project = Project.open(experiment)
    opened = len(project.store.iterations("plan"))
    for key in [*([] if opened else [BASE]), *(key_of(t) for t in range(opened + 1, iterations + 1))]:
        if key != BASE:
            project.open_iteration(key)
        for name in stages_of(key):
            commit(project, key, name)


def write_experiment(home: Path, bad_below: int) -> None:
    content = {
        "name": "plan",
        "data": {"near_duplicate_words": None},  # the made-up questions differ in their number only
        "policy": {"model": str(home / "policy"), "dtype": "float32"},
        "retrieval": {"encoder": str(home / "encoder")},
        "assessor": {"bad_below": bad_below},
        "benchmarks": {"folder": str(home / "tasks"), "tasks": {"colours": None}},
    }
    (home / "plan.yaml").write_text(yaml.safe_dump(content))


def commit(project: Project, key: str, name: str) -> None:
    plan = project.planner().stage(key, name)
    assert plan.fingerprint is not None, (key, name, plan.causes)
    assert plan.facts is not None
    with project.store.workspace() as folder:
        for file in STAGES[name].outputs:
            (folder / file).write_text(plan.fingerprint)
        if name == "gate":
            (folder / "verdict.json").write_text(json.dumps({"passed": True, "reason": "made up", "checks": []}))
        manifest = project.store.commit(
            folder, stage=name, fingerprint=plan.fingerprint, **plan.facts, facts={"rows": 1}, work={},
            row_tables=[], iteration=key, seconds=0.0, run_id="", created="", engine=ENGINE_VERSION,
        )  # fmt: skip
    project.store.point("plan", key, manifest)


def seconds(function: Callable[[], Any], times: int) -> dict[str, float]:
    """{median, min, max} wall-clock seconds of several calls."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return {"median": statistics.median(taken), "min": min(taken), "max": max(taken)}


def measure() -> dict[str, Any]:
    found: dict[str, Any] = machine()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["APT_HOME"] = folder
        experiment = make_project(home)
        for iterations in ITERATIONS:
            write_experiment(home, bad_below=4)
            go_on(experiment, iterations)
            found[str(iterations)] = {}
            for what, bad_below in zip(WHAT, (4, 3), strict=True):
                write_experiment(home, bad_below)
                found[str(iterations)][what] = measure_one(experiment, iterations)
    return found


def measure_one(experiment: Path, iterations: int) -> dict[str, dict[str, float]]:
    """Seconds of `plan` on so many iterations: {command, function}."""
    project = Project.open(experiment)
    flags = ["--iterations", str(iterations), "-e", str(experiment)]
    command = [sys.executable, "-m", "apt_assets.cli", "plan", *flags]

    def plan() -> None:
        planner = project.planner()
        for one in planner.plan(iterations):
            work_of(project, planner, one)

    plan()
    run = seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), 7)
    return {"command": run, "function": seconds(plan, 20)}


if __name__ == "__main__":
    measured = measure()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"{measured['cores']} cores of {measured['cpu']}")
    for iterations in map(str, ITERATIONS):
        for what in WHAT:
            for how, unit, scale in (("command", "s", 1), ("function", "ms", 1000)):
                taken = {name: scale * value for name, value in measured[iterations][what][how].items()}
                told = f"{taken['median']:.2f} {unit} [{taken['min']:.2f}, {taken['max']:.2f}]"
                print(f"{iterations} iterations, {what}, {how}: {told}")
