"""How the data path scales: seconds of each step and peak memory for 10 k, 100 k and 1 M domain rows.

    python -m benchmarks.data_path [--rows 10000 100000 1000000]

Each size runs in a process of its own, in a new folder: a made-up JSONL domain is landed, an iteration
opened, planned and run through the real engine: `heldout_rows`, and `domain_dataset` to `preference_pairs`,
with `mining.questions: null`, so that every training row is asked. No model is loaded: the answers are made
up and put into the answers table through the table's own API, in batches of BATCH rows, and the base scores,
the index, the neighbours (one other row for each bad case) and the doubts are made-up artifacts. Writes
benchmarks/results/data_path.json and prints it as Markdown. Seconds are wall clock, and of all steps also the
CPU's (of all threads), which another program on the machine disturbs less; memory is the largest resident set
of the process (getrusage), in GB of 10^9 bytes, with the libraries it imports.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from apt_assets.engine.execute import run_stage
from apt_assets.engine.plan import ENGINE_VERSION
from apt_assets.engine.stage import STAGES
from apt_assets.engine.view import View
from apt_assets.landing.land import land_files
from apt_assets.loop.work import work_of
from apt_assets.method.doubt import answered_wrong, doubts
from apt_assets.project import Project
from apt_assets.rows.answers import answer_keys, answer_rows
from apt_assets.rows.policy import adapter_of
from apt_assets.settings.iterations import BASE
from apt_assets.study.measured_on import machine
from resources.store.rows import Batches
from resources.store.tables import read_table, write_table
from schemas.tables import Neighbors
from tests import tiny

RESULTS = Path(__file__).with_name("results") / "data_path.json"
SIZES = (10_000, 100_000, 1_000_000)
BATCH = 4096
KEY = "0001"
LABELS = [f"{part} {kind}" for part in ("Eye", "Ear", "Skin", "Heart", "Lung") for kind in ("injury", "disease")]
LABELS += ["Neoplasm", "Infection", "Pregnancy", "Poisoning", "Burn", "Blood", "Nerve", "Mind", "Bone", "Other"]
BAD = [
    '{"prompt": "no answer"}', "{broken", '{"prompt": 7, "answer": "Eye"}', "[1, 2]",
    '{"prompt": "Which one?", "answer": "Eye", "split": "dev"}', '{"prompt": "  ", "answer": "Eye"}',
]  # fmt: skip


def write_domain(path: Path, rows: int) -> None:
    """`rows` rows of about 70 characters, no two of them near duplicates, and one of 20 labels; 2 % with id and
    metadata, 1 % asked twice, 1 % not ASCII, and six bad ones."""
    draw = random.Random(rows)
    with path.open("w", encoding="utf-8") as file:
        for n in range(rows):
            if n % (rows // len(BAD)) == 7:
                file.write(BAD[(n // (rows // len(BAD))) % len(BAD)] + "\n")
                continue
            case = n - 1 if n % 100 == 50 else n
            word = "Befund für" if n % 100 == 33 else "finding in"
            place = f"week {case % 52}, ward {case % 97}, bed {case // 11}"
            row: dict[str, Any] = {
                "prompt": f"Case {case}: {word} {place}; which chapter, please?",
                "answer": LABELS[(case * 7919) % len(LABELS)],
            }
            if draw.random() < 0.02:
                row |= {"id": n, "metadata": {"source": f"ward {n % 97}", "year": 2000 + n % 26}}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def make_models(home: Path) -> None:
    """The tiny ones of the tests."""
    tiny.make_policy(home / "policy")
    tiny.make_encoder(home / "encoder")
    tiny.make_task(home / "tasks")


def open_project(home: Path, items: int | None = None) -> Project:
    """A project on them; items: of the general task."""
    content = {
        "name": "scale",
        "policy": {"model": str(home / "policy"), "dtype": "float32"},
        "retrieval": {"encoder": str(home / "encoder")},
        "mining": {"questions": None},
        "benchmarks": {"folder": str(home / "tasks"), "tasks": {"colours": items}},
    }
    (home / "scale.yaml").write_text(yaml.safe_dump(content))
    return Project.open(home / "scale.yaml")


def make_up_answers(project: Project) -> None:
    """Answer every training question: three of four with the gold, the others with another label."""
    planner = project.planner()
    view = View(project, planner.stage(KEY, "eval_predictions"), planner)
    train = view.read("domain_dataset", "train")
    golds = train["answer"].to_list()

    def compute(missing: list[int]) -> Batches[str]:
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            yield part, [golds[i] if i % 4 else LABELS[i % len(LABELS)] for i in part]

    answer_rows(view, adapter_of(view, "policy")).fill(answer_keys(train["prompt"].to_list()), compute)


def make_up(project: Project, name: str, table: pl.DataFrame | None = None, key: str = KEY) -> None:
    """Commit a made-up artifact of a stage: the table, or its files, which say nothing."""
    plan = project.planner().stage(key, name)
    assert plan.fingerprint is not None, plan.causes
    assert plan.facts is not None
    with project.store.workspace() as folder:
        if table is None:
            for file in STAGES[name].outputs:
                (folder / file).write_text(name)
        else:
            write_table(table, folder / f"{STAGES[name].main_table or name}.parquet")
        manifest = project.store.commit(
            folder, stage=name, fingerprint=plan.fingerprint, **plan.facts, facts={"rows": 1}, work={},
            row_tables=[], iteration=key, seconds=0.0, run_id="", created="", engine=ENGINE_VERSION,
        )  # fmt: skip
    project.store.point(project.experiment.name, key, manifest)


def neighbors_of(cases: pl.DataFrame, train: pl.DataFrame) -> pl.DataFrame:
    """One other training row for each bad case."""
    others = train.join(cases, on="row_id", how="anti").head(cases.height)
    return (
        others.with_columns(
            case_id=cases["row_id"].head(others.height), rank=pl.lit(1, pl.Int64), similarity=pl.lit(0.5)
        )
        .select(Neighbors.empty().columns)
        .cast(Neighbors.empty().schema)  # type: ignore[arg-type]
    )


def plan(project: Project) -> None:
    """Plan base and the iteration with all costs, as the command does."""
    planner = project.planner()
    for one in planner.plan(1):
        work_of(project, planner, one)


def measure(rows: int) -> dict[str, Any]:
    """Seconds of each step, and the peak memory after all of them."""
    seconds: dict[str, float] = {}
    cpu_seconds: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        started, cpu_started = time.perf_counter(), time.process_time()
        yield
        seconds[step] = round(time.perf_counter() - started, 3)
        cpu_seconds[step] = round(time.process_time() - cpu_started, 3)
        print(f"{rows} {step}: {seconds[step]} s, {peak_gb()} GB so far", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["APT_HOME"] = folder
        make_models(home)
        project = open_project(home)
        write_domain(home / "domain.jsonl", rows)

        def run(stage: str, key: str = KEY) -> None:
            with timed(stage):
                run_stage(project, key, stage, run_id="benchmark")

        before = peak_gb()
        with timed("land"):
            land_files([home / "domain.jsonl"], project.landing)
        with timed("open iteration"):
            project.open_iteration(KEY)
            project.landing_files(KEY)
        with timed("plan, nothing computed"):
            plan(project)
        run("heldout_rows", BASE)
        make_up(project, "base_scores", key=BASE)
        run("domain_dataset")
        run("policy")
        with timed("put answers into the table"):
            make_up_answers(project)
        with timed("plan, all answers there"):
            plan(project)
        run("eval_predictions")
        run("bad_cases")
        make_up(project, "retrieval_index")
        store, planner = project.store, project.planner()
        cases, domain = (planner.stage(KEY, name).manifest for name in ("bad_cases", "domain_dataset"))
        assert cases is not None
        assert domain is not None
        train = read_table(store.open(domain) / "train.parquet")
        bad = read_table(store.open(cases) / "bad_cases.parquet")
        make_up(project, "neighbors", neighbors_of(bad, train))
        run("similar_predictions")
        similar = project.planner().stage(KEY, "similar_predictions").manifest
        assert similar is not None
        answered = read_table(store.open(similar) / "similar_predictions.parquet")
        wrong = answered_wrong(bad, answered, project.experiment.assessor.bad_below)
        nearest: dict[str, Any] = {"case_id": pl.String, "row_id": pl.String, "similarity": pl.Float64}
        weighed = wrong.select("row_id", log_prob_gold=pl.lit(-1.0), log_prob_prediction=pl.lit(-1.0))
        make_up(project, "doubtful_golds", doubts(wrong, train, pl.DataFrame(schema=nearest), weighed))
        asked = train.height
        del train, bad, answered, wrong
        run("preference_pairs")
        with timed("plan, up to date"):
            plan(project)
        changed = open_project(home, items=2)
        assert changed.planner().stage(BASE, "base_scores").status == "stale"
        with timed("plan, base_scores stale"):
            plan(changed)
        pairs = project.planner().stage(KEY, "preference_pairs").manifest
        assert pairs is not None
        return {
            "rows": rows, "asked": asked, "pairs": pairs.facts["rows"], "seconds": seconds, "cpu_seconds": cpu_seconds,
            "peak_gb_before": before, "peak_gb": peak_gb(),
        }  # fmt: skip


def peak_gb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def in_child(rows: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.data_path", "--child", "--rows", str(rows)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def as_markdown(found: Sequence[dict[str, Any]]) -> str:
    """One row per step, one column per size; then how often the seconds of the size before they are."""
    sizes = [f"{one['rows']:,}".replace(",", " ") for one in found]
    ratios = [f"x {b} / {a}" for a, b in pairwise(sizes)]
    lines = [f"| seconds | {' | '.join([*sizes, *ratios])} |", "|---" * (1 + len(sizes) + len(ratios)) + "|"]
    table = {step: [one["seconds"][step] for one in found] for step in found[0]["seconds"]}
    for kind, name in (("seconds", "all"), ("cpu_seconds", "all, CPU seconds")):
        table[name] = [sum(one[kind].values()) for one in found]
    for step, taken in table.items():
        grown = [f"{b / a:.1f}" if a else "-" for a, b in pairwise(taken)]
        lines.append(f"| {step} | {' | '.join([*(f'{s:.2f}' for s in taken), *grown])} |")
    peaks = [f"{one['peak_gb']:.2f}" for one in found]
    return "\n".join([*lines, f"| peak memory, GB | {' | '.join([*peaks, *('-' for _ in ratios)])} |"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.rows[0])))
        sys.exit()
    sizes = [in_child(rows) for rows in options.rows]
    measured = {"sizes": sizes, "machine": machine(), "date": time.strftime("%Y-%m-%d")}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")
    print(as_markdown(measured["sizes"]))
