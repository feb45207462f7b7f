"""Run the studies behind docs/evidence.md: experiments/studies/evidence-*.yaml.

    python -m benchmarks.evidence [--home FOLDER] [--jobs 2] [STUDY.yaml ...]
    python -m benchmarks.evidence --report                         # the tables of docs/evidence.md, from the results

Lands ROWS of each domain in the project (the same ones every time), runs the studies, and writes the results of
each to benchmarks/results/. Hours on two cores; stopped, it goes on where it was when called again.
"""

import argparse
import json
import os
import random
from pathlib import Path
from typing import Any

from apt_assets.landing.land import land_files
from apt_assets.report.markdown import table
from apt_assets.settings.experiment import REPOSITORY
from apt_assets.study.advice import sentence
from apt_assets.study.words import difference
from benchmarks.attack import attack_rows
from resources.demo import tickets
from resources.demo.downloads import prepare

# About half of them to train on, a sixth for validation, a third for the test. Tickets take four times as long.
ROWS = {"icd10": 1200, "attack": 1200, "tickets": 600}  # icd10-pool: all terms
SEED = 7
STUDIES = sorted((REPOSITORY / "experiments" / "studies").glob("evidence-*.yaml"))
RESULTS = Path(__file__).with_name("results")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", type=Path, default=STUDIES)
    parser.add_argument("--home", type=Path, default=REPOSITORY, help="the project's folder")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="only print the tables")
    asked = parser.parse_args()
    if asked.report:
        for study in asked.studies:
            print(report(json.loads((RESULTS / f"{study.stem}.json").read_text())))
        return
    home = asked.home.resolve()
    os.environ["APT_HOME"] = str(home)
    land(home)
    from apt_assets.engine.display import Lines
    from apt_assets.study.command import run_study

    for study in asked.studies:
        found = run_study(study, None, asked.jobs, Lines(), only_estimate=False)
        assert found is not None, "it was run"
        (RESULTS / f"{found['study']}.json").write_text(json.dumps(found, indent=1) + "\n")


def land(home: Path) -> None:
    """Each domain in landing/study-NAME; landing the same rows twice changes nothing."""
    cache = home / ".apt" / "cache"
    prepare(cache)
    made = home / ".apt" / "study"
    made.mkdir(exist_ok=True)
    terms = (cache / "icd10.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    lines = {
        "icd10": random.Random(SEED).sample(terms, ROWS["icd10"]),
        "icd10-pool": terms,
        "attack": map(line, attack_rows(cache, ROWS["attack"], SEED)),
        "tickets": map(line, tickets.tickets(ROWS["tickets"], SEED)),
    }
    for name, its in lines.items():
        (made / f"{name}.jsonl").write_text("".join(its), encoding="utf-8")
        land_files([made / f"{name}.jsonl"], home / "landing" / f"study-{name}")


def line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def report(found: dict[str, Any]) -> str:
    """Markdown: of every domain what the arms came to, and how they differ from the control."""
    machine, runs = found["machine"], found["runs"]
    done = f"{runs['done']} of {runs['of']} runs"
    lines = [f"## {found['study']}, {found['date']}, {machine['cores']} cores of {machine['cpu']}, {done}"]
    for name, domain in found["domains"].items():
        start, arms = domain["start"], domain["arms"]
        first = ["start", *(f"{100 * start[m]:.1f}" for m in ("test", "exact", "general"))]
        rows = [[*first, f"{start['gold']:.3f}", f"{start['perplexity']:.0f}", *["-"] * 6]]
        rows += [result_row(arm_name, arm) for arm_name, arm in arms.items()]
        columns = ("arm", "test %", "exact %", "general %", "gold, nats per character", "word perplexity")
        columns += ("labels", "rows trained", "tokens trained", "processor s", "its own", "learning rate")
        lines += [f"\n### {name}\n", table(columns, rows)]
        compared = [(n, arms[n]["against_control"]) for n in arms if "against_control" in arms[n]]
        rows = [[n, *(tested(against[m]) for m in ("test", "general"))] for n, against in compared]
        lines += [f"\nAgainst {found['control']}:\n", table(("arm", "test", "general"), rows)]
        if said := sentence(domain):
            lines += [f"\n{said}"]
    return "\n".join(lines)


def result_row(name: str, arm: dict[str, Any]) -> list[str]:
    scores, costs = arm["scores"], arm["costs"]
    shares = [f"{100 * scores[m]['mean']:.1f} ± {100 * half(scores[m]):.1f}" for m in ("test", "exact", "general")]
    rate = arm["chosen"]["training.learning_rate"]
    spent = [f"{costs[c]['mean']:,.0f}" for c in ("labels", "rows", "tokens", "cpu_seconds")]
    spent.append(f"{arm['own_costs']['cpu_seconds']['mean']:,.0f}")
    return [name, *shares, f"{scores['gold']['mean']:.3f}", f"{scores['perplexity']['mean']:.0f}", *spent, f"{rate:g}"]


def half(share: dict[str, Any]) -> float:
    """Half of the 95 % interval over seeds."""
    return (share["high"] - share["low"]) / 2


def tested(found: dict[str, Any]) -> str:
    return f"{difference(found)}, p {found['p_corrected']:.3g}"


if __name__ == "__main__":
    main()
