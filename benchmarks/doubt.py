"""Do wrong golds gather among bad cases, are they found, and what is won by leaving them out or softening them?

    python -m benchmarks.doubt [--home FOLDER] [--jobs 2] [STUDY.yaml]

Lands the ICD-10 rows of benchmarks/evidence.py with a share of the training golds replaced by another label, drawn at
random; validation and test stay as they are. Runs experiments/studies/doubt.yaml on them, then reads in the store, by
iteration and arm, where the planted golds went and where they stand in the ranking of doubtful_golds. Writes
benchmarks/results/doubt.json. Some two hours of two cores; stopped, it goes on where it was.

    planted            of mined rows, bad cases, pairs by kind, bad cases that were left out, and pairs that were
                       softened: [rows, planted ones]
    weight             of planted ones, as a share of that of all pairs
    bad_case, similar  how well each kind was ranked. average_precision; found: share of planted ones among as many of
                       the first as there are; over: threshold -> those with more doubt: [rows, planted ones]
"""

import argparse
import json
import os
import random
from collections.abc import Set
from pathlib import Path
from typing import Any

import polars as pl
from sklearn.metrics import average_precision_score

from apt_assets.assets.domain_dataset import domain_of
from apt_assets.engine.display import Lines
from apt_assets.landing.land import land_files
from apt_assets.method.splits import row_id
from apt_assets.project import Project
from apt_assets.report.markdown import table
from apt_assets.settings.experiment import REPOSITORY
from apt_assets.settings.reader import load_experiment
from apt_assets.study.command import open_study, run_study
from apt_assets.study.file import Cell
from benchmarks import evidence
from resources.store.tables import read_table

STUDIES = REPOSITORY / "experiments" / "studies"
NOISE = {"icd10-noise-05": 0.05, "icd10-noise-10": 0.10}  # domain -> share of training golds that are wrong
KINDS = ("bad_case", "similar")  # whose golds are ranked
THRESHOLDS = (0.7, 0.8, 0.9, 0.95)
RESULTS = evidence.RESULTS / "doubt.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doubt", description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="?", type=Path, default=STUDIES / "doubt.yaml")
    parser.add_argument("--home", type=Path, default=REPOSITORY, help="the project's folder")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    home = asked.home.resolve()
    os.environ["APT_HOME"] = str(home)
    evidence.land(home)
    planted = {domain: land(home, domain) for domain in NOISE}
    studied = run_study(asked.study, None, asked.jobs, Lines(), only_estimate=False)
    assert studied is not None, "it was run"
    found = {**studied, "planted": traced(asked.study, home, planted)}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(evidence.report(found))
    print(report(found["planted"]))


# -- planting ------------------------------------------------------------------------------------------


def land(home: Path, domain: str) -> set[str]:
    """Land the domain's rows; returns the row_ids of those with a wrong gold."""
    rows = noisy(home / ".apt" / "study" / "icd10.jsonl", NOISE[domain])
    path = home / ".apt" / "study" / f"{domain}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    land_files([path], home / "landing" / f"study-{domain}")
    return {row_id(row["prompt"]) for row in rows if row["answer"] != row["metadata"]["gold"]}


def noisy(clean: Path, share: float) -> list[dict[str, Any]]:
    """The rows that the clean domain has in each split, a share of the training ones with another of its labels; with
    the split that each has there, and its gold as metadata. A larger share holds the wrong golds of a smaller one."""
    tables, _ = domain_of(load_experiment(STUDIES / "icd10.yaml"), [clean])
    labels, dice = sorted(set(tables["train"]["answer"])), random.Random(evidence.SEED)
    train = tables["train"].select("prompt", "answer").rows()
    wrong = {
        prompt: dice.choice([label for label in labels if label != gold])
        for prompt, gold in dice.sample(train, len(train))[: round(share * len(train))]
    }
    return [
        {"prompt": prompt, "answer": wrong.get(prompt, gold), "split": split, "metadata": {"gold": gold}}
        for split in ("train", "validation", "test")
        for prompt, gold in tables[split].select("prompt", "answer").rows()
    ]


# -- where they went -----------------------------------------------------------------------------------


def traced(file: Path, home: Path, planted: dict[str, set[str]]) -> dict[str, Any]:
    """domain -> arm -> iteration -> `of_iteration`, for each arm that mines, one for each seed."""
    study, _ = open_study(file)
    found: dict[str, Any] = {}
    for domain in study.domains:
        found[domain] = {"share": NOISE[domain], "rows": len(planted[domain]), "arms": {}}
        for arm in study.file.arms:
            by_iteration: dict[str, list[dict[str, Any]]] = {}
            for seed in study.file.seeds:
                project = Project(study.experiment(Cell(domain, arm, 0, seed)), home)
                if project.experiment.pairs.every_row:
                    continue
                for key in project.store.iterations(project.experiment.name):
                    if project.store.pointed(project.experiment.name, key, "preference_pairs") is not None:
                        by_iteration.setdefault(key, []).append(of_iteration(project, key, planted[domain]))
            if by_iteration:
                found[domain]["arms"][arm] = by_iteration
    return found


def of_iteration(project: Project, key: str, planted: Set[str]) -> dict[str, Any]:
    def rows(stage: str, file: str | None = None) -> pl.DataFrame:
        manifest = project.store.pointed(project.experiment.name, key, stage)
        assert manifest is not None, f"{stage} of {key} was computed"
        found = read_table(project.artifact(manifest) / f"{file or stage}.parquet")
        return found.with_columns(planted=pl.col("row_id").is_in(list(planted)))

    pairs, ranked = rows("preference_pairs"), rows("doubtful_golds", "doubtful")
    settings = project.experiment.pairs
    most = settings.max_doubt if settings.doubtful == "leave_out" else None
    own = {"mined": rows("eval_predictions"), "bad cases": ranked.filter(pl.col("kind") == "bad_case")}
    own |= {f"pairs, {kind}": pairs.filter(pl.col("kind") == kind) for kind in ("bad_case", "similar", "replay")}
    own["left out"] = ranked.filter(pl.col("doubt") > (1.0 if most is None else most))
    own["softened"] = pairs.filter(pl.col("weight") < 1)
    return {
        "planted": {name: counts(its) for name, its in own.items()},
        "weight": pairs.filter("planted")["weight"].sum() / pairs["weight"].sum() if pairs.height else None,
        **{kind: quality(ranked.filter(pl.col("kind") == kind)) for kind in KINDS},
    }


def quality(ranked: pl.DataFrame) -> dict[str, Any]:
    """How well planted golds are found among these DoubtfulGolds."""
    wrong = ranked["planted"].sum()
    return {
        "average_precision": float(average_precision_score(ranked["planted"], ranked["doubt"])) if wrong else None,
        "found": ranked["planted"].head(wrong).sum() / wrong if wrong else None,
        "over": {str(most): counts(ranked.filter(pl.col("doubt") > most)) for most in THRESHOLDS},
    }


def counts(rows: pl.DataFrame) -> list[int]:
    """[rows, planted ones]"""
    return [rows.height, rows["planted"].sum()]


# -- tables --------------------------------------------------------------------------------------------


def report(found: dict[str, Any]) -> str:
    lines = []
    for domain, its in found.items():
        lines.append(f"\n### {domain}: {its['rows']} wrong golds; all seeds together, planted of rows\n")
        went, ranking = [], []
        for arm, by_iteration in its["arms"].items():
            for key, seeds in by_iteration.items():
                counted = [seed["planted"] for seed in seeds]
                went.append([arm, key, *(share(counted, name) for name in counted[0]), mean(seeds, "weight")])
                for kind in KINDS:
                    ranked = [seed[kind] for seed in seeds]
                    over = (share([one["over"] for one in ranked], str(most)) for most in THRESHOLDS)
                    means = (mean(ranked, name) for name in ("average_precision", "found"))
                    ranking.append([arm, key, kind, *means, *over])
        lines.append(table(("arm", "iteration", *counted[0], "of all weight"), went))
        over = (f"doubt over {most}" for most in THRESHOLDS)
        lines.append("\n" + table(("arm", "iteration", "kind", "average precision", "found", *over), ranking))
    return "\n".join(lines)


def share(seeds: list[dict[str, list[int]]], name: str) -> str:
    rows, planted = (sum(seed[name][n] for seed in seeds) for n in (0, 1))
    return f"{planted} of {rows} ({planted / rows:.0%})" if rows else "-"


def mean(seeds: list[dict[str, Any]], name: str) -> str:
    known = [seed[name] for seed in seeds if seed[name] is not None]
    return f"{sum(known) / len(known):.2f}" if known else "-"


if __name__ == "__main__":
    main()
