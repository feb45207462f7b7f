"""What a study will cost, before it starts: rows and steps of each arm, and seconds by a probe of this machine."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_assets.method.counterfactual import TRIES
from apt_assets.project import Project
from apt_assets.rows.references import recipe_of
from apt_assets.settings.experiment import Experiment, UsageError
from apt_assets.study.file import Cell, Study
from apt_assets.study.wanted import training_runs
from resources.threads import set_threads

PROBED = 24  # questions, items and pairs
FIXED = 12.0  # seconds to start a process and load models, a run
KINDS = ("answers", "scores", "steps")
START = "the start"


@dataclass(frozen=True)
class Sizes:
    """Rows of a domain's splits, and items of its general benchmark."""

    train: int
    held_out: int
    items: int


def most_work(experiment: Experiment, sizes: Sizes, iterations: int) -> dict[str, int]:
    """The most answers and steps that one training run can take: as if every answer were bad and nothing shared."""
    mining, pairs, training = experiment.mining, experiment.pairs, experiment.training
    asked = min(mining.questions or sizes.train, sizes.train)
    bad = min(pairs.max_bad_cases or asked, asked)
    similar = min(bad * experiment.retrieval.per_case, sizes.train)
    replay = sizes.train if pairs.replay_share is None else round((bad + similar) * pairs.replay_share)
    rows = min(bad + similar + replay, sizes.train)
    tried = similar * TRIES if pairs.counterfactual == "sampled" else 0
    return {
        "answers": iterations * (asked + similar + tried + sizes.held_out),
        "steps": iterations * -(-rows // training.batch_size) * training.epochs,
    }


def sizes_of(project: Project) -> Sizes:
    """Raises UsageError if nothing of the domain could decide or be compared."""
    from apt_assets.landing.records import read_landed
    from apt_assets.method.domain import build_domain

    data = project.experiment.data
    files = (part for name in project.landed() for part in read_landed(project.landing / name))
    tables = build_domain(files, data.validation, data.test, data.near_duplicate_words)
    tasks = project.tasks.load(project.experiment.benchmarks.tasks)
    where = project.experiment_file
    for split in ("validation", "test"):
        if tables[split].height == 0:
            raise UsageError(f"{where}: no {split} rows have landed: raise data.{split}, or land some")
    if not any(task.keys for task in tasks if not task.rolling):
        raise UsageError(f"{where}: benchmarks.tasks: a study needs one task of choices at least")
    held_out = tables["validation"].height + tables["test"].height
    return Sizes(tables["train"].height, held_out, sum(len(task.keys) for task in tasks))


def probe(project: Project, threads: int) -> dict[str, float]:
    """Seconds of one answer, one scored item and one training step on this machine with so many threads, if its
    experiment says nothing else, by doing a few of each with the project's own settings, in this process. Needs landed
    data."""
    set_threads(project.experiment.policy.threads or threads)
    import polars as pl

    from apt_assets.landing.records import read_landed
    from resources.model.generation import generate
    from resources.model.lm_eval_tasks import score_items
    from resources.model.policy import load_policy
    from resources.store.rows import collect
    from resources.training.trainer import train_adapter

    experiment = project.experiment
    settings, training = experiment.policy, experiment.training
    project.find_out(["execution"])
    execution = project.outside("execution")
    parts = (part.rows for name in project.landed() for part in read_landed(project.landing / name))
    rows = next(part for part in parts if part.height)
    rows = rows.sample(min(PROBED, rows.height), seed=0)
    policy = load_policy(
        project.models.base_model,
        dtype=settings.dtype,
        quantization=settings.quantization,
        device=settings.device,
        system_prompt=settings.system_prompt,
        path=execution.path,
        shape_free=execution.shape_free,
    )
    spent = {}
    started = time.monotonic()
    prompts, tokens = rows["prompt"].to_list(), settings.batch_tokens
    collect(len(prompts), generate(policy, prompts, max_new_tokens=settings.max_new_tokens, batch_tokens=tokens))
    spent["answers"] = (time.monotonic() - started) / rows.height
    tasks = project.tasks.load(experiment.benchmarks.tasks)
    spent["scores"] = 0.0
    if tasks:
        task = max(tasks, key=lambda one: len(one.keys))
        items = list(range(min(PROBED, len(task.keys))))
        started = time.monotonic()
        collect(len(items), score_items(policy, task, items, batch_tokens=tokens))
        spent["scores"] = (time.monotonic() - started) / len(items)
    recipe = recipe_of(training, settings, training.learning_rate, execution)
    pairs = rows.select("prompt", chosen="answer", rejected=pl.col("answer").reverse())
    # At least two steps: what a step takes is told between their ends.
    pairs = pl.concat([pairs] * max(1, -(-2 * training.batch_size // pairs.height)))
    moments: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train_adapter(
            project.models.base_model, None, pairs, settings.system_prompt, recipe, Path(folder),
            progress=lambda step, total: moments.append(time.monotonic()),
            anchor=some_anchor(experiment, policy, prompts),
        )  # fmt: skip
    spent["steps"] = (moments[-1] - moments[0]) / max(len(moments) - 1, 1)
    return spent


def some_anchor(experiment: Experiment, policy: Any, prompts: list[str]) -> Any:
    """An anchor that costs what the experiment's does, on texts of these prompts; None if it has none."""
    from resources.model.policy import encode
    from resources.training.anchor import Anchor, AnchorText

    settings = experiment.anchor
    if not settings.texts:
        return None
    ids = [token for prompt in prompts for token in encode(policy, prompt)]
    texts = [AnchorText((ids * settings.tokens)[n : n + settings.tokens + 1], 1) for n in range(len(prompts))]
    return Anchor(texts, settings.weight, "nll", settings.texts_per_step, experiment.training.seed)


def estimate(
    study: Study, projects: dict[str, Project], refused: dict[tuple[str, str], str], threads: int
) -> list[dict[str, Any]]:
    """[{domain, arm, runs, answers, scores, steps, seconds}], the most each arm can take, and what they are measured
    against (START); seconds of one process with so many threads. Without the texts of an anchor."""
    found = []
    runs, seeds = training_runs(study), len(study.file.seeds)
    for domain, project in projects.items():
        sizes, rates = sizes_of(project), probe(project, threads)
        start = {"answers": sizes.held_out, "scores": sizes.items, "steps": 0}
        found.append({"domain": domain, "arm": START, "runs": 1, **start, "seconds": seconds_of(start, 1, rates)})
        for arm in study.file.arms:
            if (domain, arm) in refused:
                continue
            cells = [Cell(domain, arm, candidate, study.file.seeds[0]) for candidate in range(len(study.candidates))]
            works = [most_work(study.experiment(cell), sizes, study.iterations(cell)) for cell in cells]
            # Each candidate runs once, and with the other seeds the one that wins: at most the largest.
            kinds = {kind: [work[kind] for work in works] for kind in works[0]}
            total = {kind: sum(amounts) + (seeds - 1) * max(amounts) for kind, amounts in kinds.items()}
            total["scores"] = seeds * sizes.items
            seconds = seconds_of(total, runs + seeds, rates)
            found.append({"domain": domain, "arm": arm, "runs": runs + seeds, **total, "seconds": seconds})
    return found


def seconds_of(work: dict[str, int], runs: int, rates: dict[str, float]) -> float:
    return runs * FIXED + sum(work[kind] * rates[kind] for kind in KINDS)
