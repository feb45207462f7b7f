"""The loop of the embedded model on a Ray cluster of two nodes gives the data versions of this machine.

    python -m benchmarks.same_loop

Two iterations on 200 rows of the embedded domain, in two empty folders: with `compute.engine: local`, and with `ray` on
a cluster of two nodes of one worker each, on this machine. Exits with 1 if any stage's data version differs, or if a
plan has anything to compute afterwards.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from apt_assets import Project
from apt_assets.engine.plan import stages_of
from apt_assets.project import Project as Opened
from apt_assets.settings.iterations import BASE
from apt_assets.settings.reader import DEFAULT_EXPERIMENT, checked, read_experiment
from benchmarks.speed.contest import save, say
from benchmarks.speed.workload import CACHE

ROWS = 200
# As the embedded default, but for fewer rows of everything.
FEWER: dict[str, Any] = {
    "data": {"landing": "landing/icd10", "validation": 0.15, "test": 0.15},
    "mining": {"questions": 40},
    "pairs": {"max_bad_cases": 24},
    "anchor": {"texts": 16},
    "benchmarks": {"tasks": {"last_word": 20, "passages": 4}},
    "gate": {
        "domain_tolerance": 1.0,
        "general_tolerance": 1.0,
        "likelihood_tolerance": None,
        "perplexity_tolerance": None,
    },
}


def run_loop(home: Path, compute: dict[str, Any]) -> dict[str, Any]:
    """{seconds, versions: by stage and iteration, to_compute: stages that are not fresh afterwards}."""
    (home / ".apt").mkdir(parents=True)
    (home / ".apt" / "cache").symlink_to(CACHE.resolve())
    rows = (CACHE / "icd10.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (home / "rows.jsonl").write_text("".join(rows[:: len(rows) // ROWS]), encoding="utf-8")
    content = {**read_experiment(DEFAULT_EXPERIMENT), **FEWER, "compute": compute}
    project = Project(content, home=home)
    project.land(home / "rows.jsonl")
    started = time.monotonic()
    found = project.run(2)
    seconds = time.monotonic() - started
    assert found.passed, found.reason
    return {"seconds": round(seconds, 1), "versions": versions(content, home), "to_compute": to_compute(project)}


def versions(content: dict[str, Any], home: Path) -> dict[str, str]:
    opened = Opened(checked(content, "experiment"), home)
    planner, keys = opened.planner(), [BASE, *opened.store.iterations(opened.experiment.name)]
    found = {f"{stage} of {key}": planner.stage(key, stage).manifest for key in keys for stage in stages_of(key)}
    return {where: manifest.data_version for where, manifest in found.items() if manifest is not None}


def to_compute(project: Project) -> list[str]:
    left = project.plan(2).filter(pl.col("status") != "fresh")
    return [f"{row['stage']} of {row['iteration']}: {row['why']}" for row in left.iter_rows(named=True)]


def main() -> None:
    import ray
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as folder:
        here = run_loop(Path(folder) / "here", {"engine": "local"})
        say(f"here: {here['seconds']} s")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            nodes.add_node(num_cpus=1)
            there = run_loop(Path(folder) / "there", {"engine": "ray", "address": nodes.address})
        finally:
            ray.shutdown()  # the driver's part, before its nodes go
            nodes.shutdown()
    different = [stage for stage, version in here["versions"].items() if there["versions"].get(stage) != version]
    save("same_loop", {"here": here, "there": there, "different": different}, ["ray", "torch", "transformers", "trl"])
    left = [*here["to_compute"], *there["to_compute"]]
    stages = len(here["versions"])
    print(f"{stages} stages, {len(different)} differ: {', '.join(different) or '-'}; {len(left)} to compute afterwards")
    print(f"here {here['seconds']} s, on two nodes {there['seconds']} s")
    sys.exit(bool(different or left))


if __name__ == "__main__":
    main()
