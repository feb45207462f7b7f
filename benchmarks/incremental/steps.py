"""The loop's steps without any cache or order of their own: what both rivals are made of.

A configuration is a mapping with the sections of an experiment file, and beside them
    model, encoder, tasks   folders
    files                   per iteration, the data files it uses: a list of lists of paths
Every iteration asks all of its training questions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    import numpy as np

    from resources.model.policy import Policy

Config = dict[str, Any]
HELD_OUT = ("validation", "test")
MEASURED = ("correct", "margin", "gold")


def read_domain(files: Sequence[str], config: Config) -> dict[str, pl.DataFrame]:
    """Data files -> train, validation and test (row_id, prompt, answer), each sorted by row_id."""
    from apt_assets.landing.records import read_landed
    from apt_assets.method.domain import build_domain

    shares = config["data"]
    parts = (part for name in files for part in read_landed(Path(name)))
    tables = build_domain(parts, shares["validation"], shares["test"], shares["near_duplicate_words"])
    return {split: tables[split] for split in ("train", *HELD_OUT)}


def open_policy(config: Config, adapter: Path | None) -> "Policy":
    from resources.model.policy import load_policy

    settings = config["policy"]
    return load_policy(
        Path(config["model"]),
        adapter,
        dtype=settings["dtype"],
        device=settings["device"],
        system_prompt=settings["system_prompt"],
    )


def answer(config: Config, policy: "Policy", prompts: Sequence[str]) -> list[str]:
    from resources.model.generation import generate
    from resources.store.rows import collect

    settings = {name: config["policy"][name] for name in ("max_new_tokens", "batch_tokens")}
    return collect(len(prompts), generate(policy, prompts, **settings))


def graded(questions: pl.DataFrame, answers: Sequence[str], train: pl.DataFrame) -> pl.DataFrame:
    """Questions with `prediction`, `grade` (1-5) and `exact`; competing labels are the training golds."""
    from resources.assessors.labels import grade_rows, labels_of

    prompts, golds = questions["prompt"].to_list(), questions["answer"].to_list()
    grades = grade_rows(prompts, answers, golds, labels_of(train["answer"].to_list()))
    return questions.select("row_id", "prompt", "answer", "also").with_columns(
        pl.Series("prediction", answers, dtype=pl.String),
        pl.Series("grade", [grade for grade, _ in grades], dtype=pl.Int8),
        pl.Series("exact", [exact for _, exact in grades], dtype=pl.Boolean),
    )


def graded_heldout(domain: dict[str, pl.DataFrame], answers: Sequence[str]) -> pl.DataFrame:
    """The held-out rows graded, with their `split`; answers in the order of `heldout_prompts`."""
    tables, start = [], 0
    for split in HELD_OUT:
        rows = domain[split]
        mine = answers[start : start + rows.height]
        start += rows.height
        tables.append(graded(rows, mine, domain["train"]).with_columns(split=pl.lit(split)))
    return pl.concat(tables)


def heldout_prompts(domain: dict[str, pl.DataFrame]) -> list[str]:
    return [prompt for split in HELD_OUT for prompt in domain[split]["prompt"]]


def embed(config: Config, texts: Sequence[str]) -> "np.ndarray":
    """(texts, dimensions); at least one text."""
    import numpy as np

    from resources.retrieval.encoder import Encoder
    from resources.store.rows import collect

    settings = {"device": config["policy"]["device"], "batch_size": config["retrieval"]["batch_size"]}
    encoder = Encoder(Path(config["encoder"]), **settings)
    return np.stack(collect(len(texts), encoder.embed(texts)))


def find_pairs(config: Config, train: pl.DataFrame, predictions: pl.DataFrame, vectors: "np.ndarray") -> pl.DataFrame:
    """Graded answers -> preference pairs of the bad cases, their nearest training rows, and replay.

    vectors: one per row of `train`, of length 1.
    """
    from apt_assets.method.mining import select_bad_cases
    from apt_assets.method.pairing import build_pairs

    bad_below = config["assessor"]["bad_below"]
    bad = select_bad_cases(predictions, bad_below)
    neighbors = nearest(bad, train, vectors, config["retrieval"]["per_case"])
    # Every training question was asked, so the neighbours' answers are there already.
    return build_pairs(
        bad, predictions, neighbors, predictions, bad_below=bad_below, replay_share=config["pairs"]["replay_share"]
    )


def nearest(bad: pl.DataFrame, train: pl.DataFrame, vectors: "np.ndarray", per_case: int) -> pl.DataFrame:
    """Up to `per_case` nearest rows of each bad case by cosine: never a bad case, each row once."""
    import numpy as np

    number = {row: i for i, row in enumerate(train["row_id"])}
    cases = set(bad["row_id"])
    others = [i for i, row in enumerate(train["row_id"]) if row not in cases]
    found: dict[int, tuple[float, str]] = {}
    for case in bad["row_id"] if others else []:
        similarity = vectors[others] @ vectors[number[case]]
        for i in np.argsort(-similarity, kind="stable")[:per_case]:
            row, value = others[i], float(similarity[i])
            if row not in found or value > found[row][0]:
                found[row] = (value, case)
    chosen = train[sorted(found)]
    return chosen.with_columns(pl.Series("case_id", [found[i][1] for i in sorted(found)], dtype=pl.String))


def train(config: Config, iteration: int, pairs: pl.DataFrame, previous: Path | None, out: Path) -> None:
    """Train the adapter of an iteration (from 1) into `out`; the learning rate decays along the chain."""
    from resources.training.trainer import TrainingRecipe, train_adapter

    settings = {**config["training"], **{key: config["policy"][key] for key in ("dtype", "device", "batch_tokens")}}
    settings["learning_rate"] *= settings.pop("learning_rate_decay") ** (iteration - 1)
    out.mkdir(parents=True, exist_ok=True)
    recipe = TrainingRecipe(**settings)
    train_adapter(Path(config["model"]), previous, pairs, config["policy"]["system_prompt"], recipe, out)


def score_tasks(config: Config, policy: "Policy") -> pl.DataFrame:
    """Every item of the general lm-eval tasks: task, item, correct, margin and gold (nats per character)."""
    from resources.model.lm_eval_tasks import load_tasks, score_items

    folder, rows = Path(config["tasks"]), []
    for task in load_tasks(folder, config["benchmarks"]["tasks"], folder):
        scored = score_items(policy, task, range(len(task.keys)), batch_tokens=config["policy"]["batch_tokens"])
        for items, values in scored:
            rows += [(task.name, item, *map(v.get, MEASURED)) for item, v in zip(items, values, strict=True)]
    return pl.DataFrame(rows, schema=["task", "item", *MEASURED], orient="row").sort("task", "item")


def gate(config: Config, own: Path, promoted: Path, base: Path) -> dict[str, Any]:
    """The verdict on the scores in folder `own`, against those of the promoted adapter and the base."""
    from apt_assets.method.gate import Scores, Tolerances, decide
    from schemas.tables import PassageItems

    def scores(folder: Path) -> Scores:
        domain, general = (pl.read_parquet(folder / f"{name}_items.parquet") for name in ("domain", "general"))
        return Scores(domain, general, pl.DataFrame(schema=PassageItems.empty().schema))

    before, tolerances = pl.read_parquet(promoted / "domain_items.parquet"), Tolerances(**config["gate"])
    return decide(scores(own), before, scores(base), tolerances, promoted=promoted.name, name="the base model")
