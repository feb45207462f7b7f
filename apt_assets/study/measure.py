"""What one run of a study came to, read from the store: scores, labels, tokens, processor time."""

import math
from itertools import compress
from typing import TYPE_CHECKING, Any

from apt_assets.engine.plan import stages_of
from apt_assets.loop.next_run import End, next_run
from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.report.results import facts
from apt_assets.settings.iterations import BASE
from resources.store.manifest import Manifest

if TYPE_CHECKING:
    import polars as pl

# What a study costs, and not what a recipe costs.
SCORING = ("base_scores", "heldout_rows", "benchmark_scores")


def is_complete(project: Project, iterations: int) -> bool:
    """Whether all of the iterations are up to date, or the loop has ended before; 0: whether what it starts from
    is scored."""
    planner = project.planner()
    if iterations == 0:
        return planner.stage(BASE, "base_scores").status == "fresh"
    return isinstance(next_run(project, planner, iterations), End)


def measure(project: Project, start: str | None, iterations: int) -> dict[str, Any]:
    """The outcome of a complete training run of so many iterations, at most: that of the one with the best
    validation accuracy, the earlier of equal ones.

    start: folder of the adapter it started from, which is also its result if nothing was trained. What was `spent` is
    of all iterations that ran; `spent_until` holds it by iteration, with those before.
    """
    planner = project.planner()
    # An arm with fewer iterations and otherwise equal settings is the same experiment.
    keys = project.store.iterations(project.experiment.name)[:iterations]
    scored = [key for key in keys if planner.stage(key, "benchmark_scores").status == "fresh"]
    every = {key: of_domain(scores_of(planner, key)) for key in scored or [BASE]}
    best = max(every, key=lambda key: every[key]["validation"])
    result = planner.stage(best, "adapter_checkpoint").manifest if scored else None
    return {
        "experiment": project.experiment.name,
        "iterations": len(scored),
        "best_iteration": best,
        "validation": every[best]["validation"],
        "by_iteration": every,
        "adapter": start if result is None else path_of(project, result),
        **spent(project, planner, keys),
        "spent_until": {key: spent(project, planner, keys[: keys.index(key) + 1]) for key in scored},
    }


def spent(project: Project, planner: LoopPlanner, keys: list[str]) -> dict[str, Any]:
    """What these iterations cost: labels (ids of rows whose gold answer was graded against or trained on), tokens and
    steps trained, and `parts`, from which the processor time of a cold run is worked out."""
    return {
        **trained_on(project, planner, keys),
        "epochs": project.experiment.training.epochs,
        "parts": parts(project, planner, keys),
    }


def measure_scores(project: Project) -> dict[str, Any]:
    """{scored: folder of the item tables, MEASURES} of a complete scoring run."""
    planner = project.planner()
    scores, scored = scores_of(planner, BASE), planner.stage(BASE, "base_scores").manifest
    assert scored is not None, "it is complete"
    general, passages = scores["general"]["all"], scores["passages"].values()
    words = sum(task["words"] for task in passages)
    nats = sum(task["words"] * math.log(task["word_perplexity"]) for task in passages)
    return {
        "scored": path_of(project, scored),
        **of_domain(scores),
        "general": general["accuracy"]["mean"],
        "gold": general["gold"],
        "margin": general["margin"],
        "perplexity": math.exp(nats / words) if words else None,
    }


# Shares 0-1; gold and margin in nats per character; perplexity per word over all passages, None without any.
MEASURES = ("validation", "test", "exact", "general", "gold", "margin", "perplexity")


def scores_of(planner: LoopPlanner, key: str) -> dict[str, Any]:
    """`method.scores.summarise` of an iteration, or of BASE."""
    return facts(planner, key, planner.scored_by(key))


def of_domain(scores: dict[str, Any]) -> dict[str, float]:
    """{validation, test, exact} of a summary."""
    validation, test = scores["domain"]["validation"], scores["domain"]["test"]
    parts = {"validation": validation["lenient"], "test": test["lenient"], "exact": test["exact"]}
    return {name: share["mean"] for name, share in parts.items()}


def path_of(project: Project, manifest: Manifest) -> str:
    """Where an artifact lies, relative to the project's home: of an adapter, what `policy.initial_adapter` takes."""
    return str(project.artifact(manifest).relative_to(project.home))


def trained_on(project: Project, planner: LoopPlanner, keys: list[str]) -> dict[str, Any]:
    """{labels, labels_trained, rows, tokens, steps}.

    labels: ids of the training rows whose gold answer was read at all; labels_trained: trained on. Rows, pairs, and
    tokens count once for each epoch: of a pair its prompt and chosen answer, and the rejected one if it is another
    and the objective reads it.
    """
    import polars as pl

    from resources.model.policy import Reader, encode, load_tokenizer

    settings, policy = project.experiment.training, project.experiment.policy
    reader = Reader(load_tokenizer(project.models.base_model), policy.system_prompt)
    read: set[str] = set()
    trained: set[str] = set()
    rows = tokens = steps = 0
    for key in keys:
        for stage in ("eval_predictions", "neighbors"):
            if (rows_read := table(project, planner, key, stage)) is not None:
                read |= set(rows_read["row_id"])
        pairs = table(project, planner, key, "preference_pairs")
        if pairs is None:  # no bad case was found: the answers were read all the same
            continue
        lengths = [len(encode(reader, prompt)) for prompt in pairs["prompt"]]
        fits = [length < settings.max_length for length in lengths]
        pairs, prompts = pairs.filter(pl.Series(fits, dtype=pl.Boolean)), sum(compress(lengths, fits))
        trained |= set(pairs["row_id"])
        texts = pairs["chosen"].to_list()
        if settings.objective == "dpo":
            texts += [no for yes, no in pairs.select("chosen", "rejected").iter_rows() if yes != no]
        answers = sum(map(len, reader.tokenizer(texts, add_special_tokens=False)["input_ids"])) if texts else 0
        rows += pairs.height * settings.epochs
        tokens += (prompts + answers) * settings.epochs
        manifest = planner.stage(key, "adapter_checkpoint").manifest
        steps += manifest.work["steps"] if manifest else 0
    ids = {"labels": sorted(read | trained), "labels_trained": sorted(trained)}
    return {**ids, "rows": rows, "tokens": tokens, "steps": steps}


def parts(project: Project, planner: LoopPlanner, keys: list[str]) -> list[dict[str, Any]]:
    """{stage, fingerprint, cpu_seconds, work, answered_before} of anchor_texts and every stage of these iterations but
    scoring, whoever computed it; what iterations share counts once.

    answered_before: how many of its rows an earlier stage of the same iteration had answered.
    """
    found: dict[str, dict[str, Any]] = {}
    for key in [BASE, *keys]:
        for name in stages_of(key):
            plan = planner.stage(key, name)
            if name in SCORING or plan.status != "fresh" or plan.manifest is None or plan.fingerprint is None:
                continue
            seconds, work = plan.manifest.cpu_seconds, plan.manifest.work
            before = answered_before(project, planner, key) if name == "similar_predictions" else 0
            one = {"stage": name, "fingerprint": plan.fingerprint, "cpu_seconds": seconds, "work": work}
            one["answered_before"] = before
            found.setdefault(plan.fingerprint, one)
    return list(found.values())


def answered_before(project: Project, planner: LoopPlanner, key: str) -> int:
    """Similar cases that were among the questions of the same iteration, so that their answers were there."""
    similar, mined = (table(project, planner, key, stage) for stage in ("neighbors", "eval_predictions"))
    return 0 if similar is None or mined is None else similar.join(mined, on="row_id", how="semi").height


def table(project: Project, planner: LoopPlanner, key: str, stage: str) -> "pl.DataFrame | None":
    """Its rows; None if the iteration ended before it."""
    from resources.store.tables import read_table

    plan = planner.stage(key, stage)
    if plan.status != "fresh" or plan.manifest is None:
        return None
    return read_table(project.artifact(plan.manifest) / f"{stage}.parquet")
