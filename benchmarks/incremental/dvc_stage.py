"""One stage of the DVC pipeline: `python -m benchmarks.incremental.dvc_stage STAGE ITERATION`.

Reads params.yaml and the files of earlier stages below out/, writes its own; no cache, no order.
ITERATION is 1, 2, ... or base, the model without an adapter. `pipeline.py` declares who reads what.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from benchmarks.incremental import steps
from benchmarks.incremental.steps import HELD_OUT, Config

OUT = Path("out")
BASE = "base"


def folder_of(iteration: str) -> Path:
    return OUT / (iteration if iteration == BASE else f"{int(iteration):04d}")


def previous_of(iteration: str) -> Path:
    """Folder of the iteration before, or of base."""
    return folder_of(BASE if iteration == "1" else str(int(iteration) - 1))


def adapter_of(folder: Path) -> Path | None:
    return None if folder.name == BASE else folder / "adapter"


def read_domain(out: Path) -> dict[str, pl.DataFrame]:
    return {split: pl.read_parquet(out / f"{split}.parquet") for split in ("train", *HELD_OUT)}


def domain(config: Config, iteration: str, out: Path) -> None:
    files = config["files"][-1 if iteration == BASE else int(iteration) - 1]
    for split, rows in steps.read_domain(files, config).items():
        rows.write_parquet(out / f"{split}.parquet")


def answer(config: Config, iteration: str, out: Path) -> None:
    prompts = pl.read_parquet(out / "train.parquet")["prompt"].to_list()
    policy = steps.open_policy(config, adapter_of(previous_of(iteration)))
    write_answers(steps.answer(config, policy, prompts), out / "answers.parquet")


def grade(config: Config, iteration: str, out: Path) -> None:
    rows = pl.read_parquet(out / "train.parquet")
    answers = pl.read_parquet(out / "answers.parquet")["answer"].to_list()
    steps.graded(rows, answers, rows).write_parquet(out / "eval_predictions.parquet")


def embed(config: Config, iteration: str, out: Path) -> None:
    prompts = pl.read_parquet(out / "train.parquet")["prompt"].to_list()
    np.save(out / "vectors.npy", steps.embed(config, prompts), allow_pickle=False)


def pairs(config: Config, iteration: str, out: Path) -> None:
    rows = pl.read_parquet(out / "train.parquet")
    predictions = pl.read_parquet(out / "eval_predictions.parquet")
    found = steps.find_pairs(config, rows, predictions, np.load(out / "vectors.npy", allow_pickle=False))
    found.write_parquet(out / "preference_pairs.parquet")
    found.select("prompt", "chosen", "rejected").write_parquet(out / "training_pairs.parquet")


def train(config: Config, iteration: str, out: Path) -> None:
    rows = pl.read_parquet(out / "training_pairs.parquet")
    steps.train(config, int(iteration), rows, adapter_of(previous_of(iteration)), out / "adapter")


def heldout(config: Config, iteration: str, out: Path) -> None:
    policy = steps.open_policy(config, adapter_of(out))
    prompts = steps.heldout_prompts(read_domain(out))
    write_answers(steps.answer(config, policy, prompts), out / "heldout_answers.parquet")


def general(config: Config, iteration: str, out: Path) -> None:
    policy = steps.open_policy(config, adapter_of(out))
    steps.score_tasks(config, policy).write_parquet(out / "general_items.parquet")


def score(config: Config, iteration: str, out: Path) -> None:
    answers = pl.read_parquet(out / "heldout_answers.parquet")["answer"].to_list()
    steps.graded_heldout(read_domain(out), answers).write_parquet(out / "domain_items.parquet")


def gate(config: Config, iteration: str, out: Path) -> None:
    verdict = steps.gate(config, out, previous_of(iteration), folder_of(BASE))
    print(verdict["reason"])
    if not verdict["passed"]:
        sys.exit(1)
    (out / "verdict.txt").write_text(verdict["reason"] + "\n")


def write_answers(answers: list[str], path: Path) -> None:
    pl.DataFrame({"answer": answers}, schema={"answer": pl.String}).write_parquet(path)


STAGES = {s.__name__: s for s in (domain, answer, grade, embed, pairs, train, heldout, general, score, gate)}

if __name__ == "__main__":
    name, iteration = sys.argv[1:]
    out = folder_of(iteration)
    out.mkdir(parents=True, exist_ok=True)
    STAGES[name](yaml.safe_load(Path("params.yaml").read_text()), iteration, out)
