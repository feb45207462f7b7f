"""Measure `apt-assets run` on the embedded default, cold and again, and print the README's table.

    python -m benchmarks.demo [--keep FOLDER] [--dtype float32]

Works in a new folder next to nothing else: an empty store, the downloads of this checkout. With --keep
it stays: `APT_HOME=FOLDER make demo` then finds everything done. --dtype has it as on a processor that
chooses another one by itself. Writes benchmarks/results/demo.json, or demo_DTYPE.json (scores, seconds per
stage, wall-clock seconds of both runs, peak memory of the first) and prints it as Markdown. Peak memory is
the largest resident set of one process (getrusage of the children), in GB of 10^9 bytes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import yaml

from apt_assets.report.markdown import table
from apt_assets.report.tables import SCORE_COLUMNS, general_rows, score_rows, second_rows
from apt_assets.settings.experiment import REPOSITORY
from apt_assets.settings.reader import DEFAULT_EXPERIMENT, read_experiment
from apt_assets.study.measured_on import machine

RESULTS = Path(__file__).with_name("results")
LIBRARIES = ("torch", "transformers", "trl", "peft", "lm-eval", "lancedb", "sentence-transformers", "dagster")


def timed_run(environment: dict[str, str], experiment: Path) -> dict:
    """One `apt-assets run` of two iterations: its JSON, with wall-clock seconds added."""
    command = [sys.executable, "-m", "apt_assets.cli", "run", "--iterations", "2", "--json"]
    started = time.monotonic()
    result = subprocess.run(
        [*command, "--experiment", str(experiment)], env=environment, stdout=subprocess.PIPE, text=True
    )
    seconds = time.monotonic() - started
    if result.returncode not in (0, 1):
        sys.exit(result.returncode)
    return {**json.loads(result.stdout), "wall_seconds": round(seconds, 1)}


def measure(home: Path, dtype: str | None) -> dict:
    environment, experiment = {**os.environ, "APT_HOME": str(home)}, DEFAULT_EXPERIMENT
    if dtype:
        content = read_experiment(experiment)
        content["policy"]["dtype"], experiment = dtype, home / experiment.name
        experiment.write_text(yaml.safe_dump(content))
    (home / ".apt").mkdir()
    (home / ".apt" / "cache").symlink_to(REPOSITORY / ".apt" / "cache")
    land = [sys.executable, "-m", "apt_assets.cli", "land", str(REPOSITORY / ".apt/cache/icd10.jsonl")]
    subprocess.run([*land, "--experiment", str(experiment)], env=environment, check=True)
    cold = timed_run(environment, experiment)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    again = timed_run(environment, experiment)
    return {
        **cold,
        "peak_gb": round(peak, 2),
        "again": {"wall_seconds": again["wall_seconds"], "computed": again["computed"]},
        "machine": machine(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "date": time.strftime("%Y-%m-%d"),
    }


def report(found: dict) -> str:
    where, again = found["machine"], found["again"]
    verdict = "every gate passed" if found["passed"] else found["reason"]
    return "\n\n".join(
        [
            table(SCORE_COLUMNS, score_rows(found)),
            table(*general_rows(found)),
            table(*second_rows(found)),
            f"{found['date']}, {where['cores']} cores of {where['cpu']}, no GPU: {found['wall_seconds']:.0f} s "
            f"in all, peak memory {found['peak_gb']} GB; {verdict}. Run again: {again['wall_seconds']:.1f} s, "
            f"{len(again['computed'])} stages computed.",
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="new folder for everything made; default: temporary, removed")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    asked = parser.parse_args()
    if kept := asked.keep:
        if kept.exists():
            parser.error(f"--keep: {kept} exists")
        kept.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        measured = measure((kept or Path(temporary)).resolve(), asked.dtype)
    name = f"demo_{asked.dtype}.json" if asked.dtype else "demo.json"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(json.dumps(measured, indent=1) + "\n")
    print(report(measured))
