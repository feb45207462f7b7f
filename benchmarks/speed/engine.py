"""What the engine costs when there is nothing to do, against importing Dagster.

    python -m benchmarks.speed.engine

Whole processes, wall clock, in turn: `import dagster`, `import torch` for comparison, loading the code
location, `apt-assets --help`, `plan` and a `run` that finds all stages of three iterations fresh, which
the first run computed on the tests' tiny models.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.speed.contest import ratio, save, say, spread
from tests import tiny

REPEATS = 7
ITERATIONS = 3
# What Dagster does with the module: the definitions are built when they are asked for, and bound.
LOAD = "from apt_assets import definitions as d; d.build_definitions(d.Project.open()).get_repository_def()"


def make_experiment(home: Path) -> Path:
    tiny.make_policy(home / "policy")
    tiny.make_encoder(home / "encoder")
    tiny.make_task(home / "tasks")
    tiny.write_jsonl(home / "landing" / "colours.jsonl", tiny.domain_rows(100))
    content = {
        "name": "engine",
        "data": {"near_duplicate_words": None},  # the made-up questions differ in their number only
        "policy": {"model": str(home / "policy"), "dtype": "float32", "max_new_tokens": 4},
        "retrieval": {"encoder": str(home / "encoder")},
        "mining": {"questions": 20},
        "training": {"lora_rank": 2, "lora_alpha": 4, "warmup_steps": 0},
        "benchmarks": {"folder": str(home / "tasks"), "tasks": {"colours": None}},
        # What the gate says about random models is not what this is about.
        "gate": tiny.OPEN_GATE,
    }
    (home / "engine.yaml").write_text(yaml.safe_dump(content))
    return home / "engine.yaml"


def commands(experiment: Path) -> dict[str, list[str]]:
    cli = [sys.executable, "-m", "apt_assets.cli"]
    chosen = ["--iterations", str(ITERATIONS), "--experiment", str(experiment)]
    return {
        "import dagster": [sys.executable, "-c", "import dagster"],
        "import torch": [sys.executable, "-c", "import torch"],
        "code location": [sys.executable, "-c", LOAD],
        "--help": [*cli, "--help"],
        "plan": [*cli, "plan", *chosen],
        "run, nothing to do": [*cli, "run", *chosen],
    }


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["APT_HOME"] = folder
        experiment = make_experiment(Path(folder))
        os.environ["APT_EXPERIMENT"] = str(experiment)
        found = commands(experiment)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in found}
        for repeat in range(REPEATS + 1):
            for name, command in found.items():
                started = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                # The first round computes the loop, and warms the disk cache up.
                if repeat:
                    runs[name].append({"seconds": time.perf_counter() - started})
            say(f"engine {repeat}/{REPEATS}")
    return runs


def report(runs: dict[str, Any]) -> str:
    return "\n".join(
        [
            "| process | seconds | of `import dagster` |",
            "|---|---|---|",
            *(
                f"| {name} | {spread(its, 'seconds')} | {ratio(runs, 'import dagster', name):.2f} |"
                for name, its in runs.items()
            ),
        ]
    )


def main() -> None:
    runs = measure()
    save("engine", {"iterations": ITERATIONS, "runs": runs}, ("dagster",))
    print(report(runs))


if __name__ == "__main__":
    main()
