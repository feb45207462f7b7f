"""Run the studies behind docs/evidence.md: experiments/studies/evidence-*.yaml.

    python -m benchmarks.evidence [--home FOLDER] [--jobs 2] [STUDY.yaml ...]

Lands ROWS of each domain in the project (the same ones every time), runs the studies, and writes the results of
each to benchmarks/results/. Hours on two cores; stopped, it goes on where it was when called again.
"""

import argparse
import json
import os
import random
from pathlib import Path

from apt_assets.experiment import REPOSITORY
from apt_assets.land import land_files
from resources import tickets

# About half of them to train on, a sixth for validation, a third for the test. Tickets take four times as long.
ROWS = {"icd10": 1200, "tickets": 600}
SEED = 7
STUDIES = sorted((REPOSITORY / "experiments" / "studies").glob("evidence-*.yaml"))
RESULTS = Path(__file__).with_name("results")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", type=Path, default=STUDIES)
    parser.add_argument("--home", type=Path, default=REPOSITORY, help="the project's folder")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    home = asked.home.resolve()
    os.environ["APT_HOME"] = str(home)
    land(home)
    from apt_assets.display import Lines
    from apt_assets.study.command import run_study

    for study in asked.studies:
        found = run_study(study, None, asked.jobs, Lines(), only_estimate=False)
        assert found is not None, "it was run"
        (RESULTS / f"{found['study']}.json").write_text(json.dumps(found, indent=1) + "\n")


def land(home: Path) -> None:
    """Both domains in landing/study-icd10 and landing/study-tickets; landing the same rows twice changes nothing."""
    cache = home / ".apt" / "cache"
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.symlink_to(REPOSITORY / ".apt" / "cache")
    made = home / ".apt" / "study"
    made.mkdir(exist_ok=True)
    terms = (cache / "icd10.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (made / "icd10.jsonl").write_text("".join(random.Random(SEED).sample(terms, ROWS["icd10"])), encoding="utf-8")
    rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in tickets.tickets(ROWS["tickets"], SEED))
    (made / "tickets.jsonl").write_text("".join(rows), encoding="utf-8")
    for name in ("icd10", "tickets"):
        land_files([made / f"{name}.jsonl"], home / "landing" / f"study-{name}")


if __name__ == "__main__":
    main()
