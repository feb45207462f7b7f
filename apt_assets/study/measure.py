"""What one run of a study came to, read from the store: scores, labels, tokens, processor time."""

import math
from typing import TYPE_CHECKING, Any

import apt_assets.assets  # noqa: F401 - declares the stages
from apt_assets.driver import End, next_run
from apt_assets.engine.plan import Planner, stages_of
from apt_assets.engine.stages import BASE
from apt_assets.project import Project
from resources.artifact_store import Manifest

if TYPE_CHECKING:
    import polars as pl

SCORING = ("base_scores", "benchmark_scores")  # what a study costs, and not what a recipe costs


def is_complete(project: Project, iterations: int) -> bool:
    """Whether all of the iterations are up to date, or the loop has ended before; 0: whether what it starts from
    is scored."""
    planner = project.planner()
    if iterations == 0:
        return planner.stage(BASE, "base_scores").status == "fresh"
    return isinstance(next_run(project, planner, iterations), End)


def measure(project: Project, start: str | None) -> dict[str, Any]:
    """The outcome of a complete training run: that of the iteration with the best validation accuracy, the
    earlier of equal ones.

    start: folder of the adapter it started from, which is also its result if nothing was trained. Cost is of all
    iterations that ran: labels (rows whose gold answer was graded against or trained on), tokens and steps
    trained, and `parts`, from which the processor time of a cold run is worked out.
    """
    planner = project.planner()
    keys = project.store.iterations(project.experiment.name)
    scored = [key for key in keys if planner.stage(key, "benchmark_scores").status == "fresh"]
    every = {key: of_domain(project, planner, key) for key in scored or [BASE]}
    best = max(every, key=lambda key: every[key]["validation"])
    result = planner.stage(best, "adapter_checkpoint").manifest if scored else None
    return {
        "experiment": project.experiment.name,
        "iterations": len(scored),
        "best_iteration": best,
        "validation": every[best]["validation"],
        "by_iteration": every,
        "adapter": start if result is None else adapter_path(project, result),
        **labels(project, planner, scored),
        **training(project, planner, scored),
        "parts": parts(planner, scored),
    }


def measure_scores(project: Project) -> dict[str, Any]:
    """{scored: name of the experiment, MEASURES} of a complete scoring run."""
    planner = project.planner()
    _, general, passages = items(project, planner, BASE)
    words = int(passages["words"].sum())
    return {
        "scored": project.experiment.name,
        **of_domain(project, planner, BASE),
        "general": mean(general["correct"]),
        "gold": mean(general["gold"]),
        "margin": mean(general["margin"]),
        "perplexity": math.exp(-float(passages["nats"].sum()) / words) if words else None,
    }


# Shares 0-1; gold and margin in nats per character; perplexity per word over all passages, None without any.
MEASURES = ("validation", "test", "exact", "general", "gold", "margin", "perplexity")


def of_domain(project: Project, planner: Planner, key: str) -> dict[str, float]:
    """{validation, test, exact} of an iteration, or of BASE."""
    domain, _, _ = items(project, planner, key)
    validation, test = (domain.filter(split=split) for split in ("validation", "test"))
    return {
        "validation": mean(validation["grade"] >= 4),
        "test": mean(test["grade"] >= 4),
        "exact": mean(test["exact"]),
    }


def items(project: Project, planner: Planner, key: str) -> "tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]":
    """(DomainItems, GeneralItems, PassageItems) of an iteration, or of BASE."""
    from schemas.files import read_table

    manifest = planner.stage(key, "base_scores" if key == BASE else "benchmark_scores").manifest
    assert manifest is not None, "its scores are fresh"
    folder = project.artifact(manifest)
    domain, general, passages = (
        read_table(folder / f"{name}.parquet") for name in ("domain_items", "general_items", "passage_items")
    )
    return domain, general, passages


def mean(values: "pl.Series") -> float:
    return float(values.mean() or 0.0)  # type: ignore[arg-type]


def adapter_path(project: Project, manifest: Manifest) -> str:
    """Where an adapter lies, relative to the project's home: what `policy.initial_adapter` takes."""
    return str(project.store.folder(manifest).relative_to(project.home))


def labels(project: Project, planner: Planner, keys: list[str]) -> dict[str, int]:
    """{labels, labels_trained}: distinct training rows whose gold answer was read at all, and trained on."""
    read: set[str] = set()
    trained: set[str] = set()
    for key in keys:
        trained |= set(table(project, planner, key, "preference_pairs")["row_id"])
        for stage in ("eval_predictions", "neighbors"):
            read |= set(table(project, planner, key, stage)["row_id"])
    return {"labels": len(read | trained), "labels_trained": len(trained)}


def training(project: Project, planner: Planner, keys: list[str]) -> dict[str, int]:
    """{rows, tokens, steps} trained: pairs and tokens once for each epoch; a pair's prompt and answers count, a
    rejected answer only if it is another one and the objective reads it."""
    from resources.policy_model import Reader, encode, load_tokenizer

    settings, policy = project.experiment.training, project.experiment.policy
    reader = Reader(load_tokenizer(project.model), policy.system_prompt)
    rows = tokens = steps = 0
    for key in keys:
        pairs = table(project, planner, key, "preference_pairs")
        texts = pairs["chosen"].to_list()
        if settings.objective == "dpo":
            texts += [no for yes, no in pairs.select("chosen", "rejected").iter_rows() if yes != no]
        prompts = sum(len(encode(reader, prompt)) for prompt in pairs["prompt"])
        answers = sum(map(len, reader.tokenizer(texts, add_special_tokens=False)["input_ids"])) if texts else 0
        rows += pairs.height * settings.epochs
        tokens += (prompts + answers) * settings.epochs
        manifest = planner.stage(key, "adapter_checkpoint").manifest
        steps += manifest.work["steps"] if manifest else 0
    return {"rows": rows, "tokens": tokens, "steps": steps}


def parts(planner: Planner, keys: list[str]) -> list[dict[str, Any]]:
    """{stage, cpu_seconds, work} of every stage of these iterations but scoring, whoever computed it."""
    found = []
    for key in keys:
        for name in stages_of(key):
            manifest = planner.stage(key, name).manifest
            if name not in SCORING and manifest is not None:
                found.append({"stage": name, "cpu_seconds": manifest.cpu_seconds, "work": manifest.work})
    return found


def table(project: Project, planner: Planner, key: str, stage: str) -> "pl.DataFrame":
    from schemas.files import read_table

    manifest = planner.stage(key, stage).manifest
    assert manifest is not None, f"{stage} of a scored iteration is fresh"
    return read_table(project.artifact(manifest) / f"{stage}.parquet")
