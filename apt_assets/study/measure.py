"""What one run of a study came to, read from the store: scores, labels, tokens, processor time."""

import math
from typing import TYPE_CHECKING, Any

import apt_assets.assets  # noqa: F401 - declares the stages
from apt_assets.driver import End, next_run
from apt_assets.engine.plan import Planner, stages_of
from apt_assets.engine.stages import BASE
from apt_assets.experiment import load_experiment
from apt_assets.method.gate import decide
from apt_assets.project import Project
from resources.artifact_store import Manifest

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

SCORING = ("base_scores", "benchmark_scores")  # what a study costs, and not what a recipe costs


def is_complete(project: Project, iterations: int) -> bool:
    """Whether all of the iterations are up to date, or the loop has ended before."""
    return isinstance(next_run(project, project.planner(), iterations), End)


def measure(project: Project, domain_file: "Path", start: str) -> dict[str, Any]:
    """The outcome of a complete run: that of the iteration with the best validation accuracy, the earlier of
    equal ones.

    domain_file: the domain's own experiment file, whose gate is asked whether it would promote the result;
    start: what the run started from, for the gate's sentence. Cost is of all iterations that ran: labels
    (rows whose gold answer was graded against or trained on), tokens and steps trained, and `parts`, from
    which the processor time of a cold run is worked out.
    """
    planner = project.planner()
    keys = project.store.iterations(project.experiment.name)
    scored = [key for key in keys if planner.stage(key, "benchmark_scores").status == "fresh"]
    base = scores_of(project, planner, BASE)
    every = [scores_of(project, planner, key) for key in scored] or [base]
    best = max(every, key=lambda scores: scores["validation"])
    trained = [planner.stage(key, "adapter_checkpoint").manifest for key in scored]
    folder = trained[every.index(best)] if trained else None
    return {
        "experiment": project.experiment.name,
        "iterations": len(scored),
        "best_iteration": best["iteration"],
        **{name: best[name] for name in MEASURES},
        "start": {name: base[name] for name in MEASURES},
        "by_iteration": [{name: one[name] for name in ("iteration", *MEASURES)} for one in every],
        "adapter": None if folder is None else adapter_path(project, folder),
        "gate": own_gate(project, planner, best["iteration"], domain_file, start),
        **labels(project, planner, scored),
        **training(project, planner, scored),
        "parts": parts(planner, scored),
    }


MEASURES = ("validation", "test", "exact", "general", "gold", "margin", "perplexity")


def scores_of(project: Project, planner: Planner, key: str) -> dict[str, Any]:
    """{iteration, MEASURES} of an iteration: shares 0-1; gold and margin in nats per character; perplexity per
    word, over all passages, None if the experiment has none."""
    domain, general, passages = items(project, planner, key)
    by_split = {split: domain.filter(split=split) for split in ("validation", "test")}
    words = int(passages["words"].sum())
    return {
        "iteration": key,
        "validation": mean(by_split["validation"]["grade"] >= 4),
        "test": mean(by_split["test"]["grade"] >= 4),
        "exact": mean(by_split["test"]["exact"]),
        "general": mean(general["correct"]),
        "gold": mean(general["gold"]),
        "margin": mean(general["margin"]),
        "perplexity": math.exp(-float(passages["nats"].sum()) / words) if words else None,
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


def own_gate(project: Project, planner: Planner, key: str, domain_file: "Path", start: str) -> dict[str, Any] | None:
    """{passed, reason}: whether the gate of the domain's own experiment file would promote this iteration,
    against what the run started from; None if nothing was trained."""
    if key == BASE:
        return None
    domain, general, _ = items(project, planner, key)
    before, before_general, _ = items(project, planner, BASE)
    settings = load_experiment(domain_file).gate.model_dump()
    verdict = decide(domain, before, general, before_general, promoted=start, start=start, **settings)
    return {"passed": verdict["passed"], "reason": verdict["reason"]}


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
