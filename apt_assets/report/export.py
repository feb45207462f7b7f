"""Export: what others load of an iteration, in the formats of peft, transformers, TRL and lm-eval."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from apt_assets.engine.plan import Planner
from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.report.model_card import Names, model_card
from apt_assets.report.show import parse_key, require_opened
from apt_assets.settings.experiment import UsageError
from resources.model.adapter import scale
from resources.yaml_file import read_yaml

What = Literal["adapter", "merged", "pairs", "results"]
DECIDED = ("held", "refused", "stopped")  # of a stage: no run computes it as things are


def export(project: Project, target: Path, iteration: int | None, what: What) -> str:
    """Write one of these to `target`, a new or empty folder; returns the iteration's key:

    adapter: adapter_model.safetensors and its configuration, for peft, with a model card.
    merged: base model + adapter in the policy's dtype, and the tokenizer, with a model card.
    pairs: train.jsonl in TRL's preference format with an explicit prompt, replay rows included.
    results: the general scores as lm-eval's own results file, and the domain's in scores.json.

    Raises UsageError if `target` holds files, if nothing is promoted, or if the iteration asked for has
    no up-to-date artifact of that kind.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target}: exists and is not an empty folder; name a new one")
    if what not in get_args(What):
        raise UsageError(f"export: {what!r} is none of {', '.join(get_args(What))}")
    planner = project.planner()
    key = wanted_key(project, planner, iteration)
    try:
        write(project, planner, key, what, target, Names.here(project))
    except BaseException:
        if target.is_dir():
            for path in target.iterdir():  # it was new or empty, and half of an export looks like one
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
    return key


def write(project: Project, planner: LoopPlanner, key: str, what: What, target: Path, names: Names) -> None:
    match what:
        case "pairs":
            source = fresh(project, planner, key, "preference_pairs")
            write_pairs(project, source / "preference_pairs.parquet", target)
        case "results":
            source = fresh(project, planner, key, planner.scored_by(key))
            write_results(project, key, source, target)
        case "adapter" | "merged":
            with adapter_folder(project, planner, key) as source:
                if what == "merged":
                    write_merged(project, source, target)
                else:
                    write_adapter(source, target, names)
            card = model_card(project, planner, key, names, merged=what == "merged")
            (target / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def adapter_folder(project: Project, planner: LoopPlanner, key: str) -> Iterator[Path]:
    """The folder with the adapter that an iteration stands for. One that passed its gate at a smaller scale and waits
    for a person, or was refused by one, is there for as long as the context is. Raises UsageError."""
    verdict = planner.verdict(key)
    factor = verdict.get("scale", 1) if verdict else 1
    if factor == 1 or planner.stage(key, "promoted_adapter").status not in ("held", "refused"):
        yield fresh(project, planner, key, planner.adapter_of(key))
        return
    trained = fresh(project, planner, key, "adapter_checkpoint")
    with tempfile.TemporaryDirectory() as folder:
        scale(trained, factor, Path(folder))
        yield Path(folder)


def fresh(project: Project, planner: Planner, key: str, stage: str) -> Path:
    """The verified folder of an artifact that is up to date. Raises UsageError."""
    plan = planner.stage(key, stage)
    if plan.status in DECIDED:
        raise UsageError(f"iteration {key} of {project.experiment.name} has no {stage}: {plan.note}")
    if plan.status != "fresh" or plan.manifest is None:
        raise UsageError(
            f"iteration {key} of {project.experiment.name} has no up-to-date {stage} ({plan.status}): "
            "run `apt-assets run`; `apt-assets plan` tells why"
        )
    return project.artifact(plan.manifest)


def write_adapter(source: Path, target: Path, names: Names) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.glob("adapter_*"):
        shutil.copyfile(file, target / file.name)
    config = target / "adapter_config.json"
    named = {**json.loads(config.read_text()), "base_model_name_or_path": names.base}
    config.write_text(json.dumps(named, indent=1))


def write_merged(project: Project, source: Path, target: Path) -> None:
    from resources.model.policy import load_base, with_adapter

    # Unquantised, whatever the adapter was trained on: merging into 4 bits would round it away.
    model, tokenizer = load_base(project.models.base_model, project.experiment.policy.dtype, "none", "cpu", "plain")
    with_adapter(model, source).merge_and_unload().save_pretrained(target)
    tokenizer.save_pretrained(target)


def write_pairs(project: Project, pairs: Path, target: Path) -> None:
    from transformers import AutoTokenizer

    from resources.store.tables import read_table
    from resources.training.examples import as_conversations

    rows = read_table(pairs)
    tokenizer = AutoTokenizer.from_pretrained(project.models.base_model, trust_remote_code=False)
    examples = as_conversations(rows, project.experiment.policy.system_prompt, tokenizer)
    origins = rows.select("row_id", "case_id", "kind", "grade", "weight").iter_rows(named=True)
    target.mkdir(parents=True, exist_ok=True)
    with (target / "train.jsonl").open("w", encoding="utf-8") as file:
        for example, origin in zip(examples, origins, strict=True):
            file.write(json.dumps({**example, **origin}, ensure_ascii=False) + "\n")


def write_results(project: Project, key: str, source: Path, target: Path) -> None:
    """lm-eval's file is written by lm-eval: `lm_eval.utils.make_table` and its loggers read it."""
    from lm_eval.loggers import EvaluationTracker

    scores = json.loads((source / "scores.json").read_text())
    found: dict[str, Any] = {"results": {}, "versions": {}, "n-shot": {}, "n-samples": {}, "higher_is_better": {}}

    def add(task: str, items: int, metric: str, value: float, error: float | None, *, higher_is_better: bool) -> None:
        config = read_yaml(project.tasks.folder / f"{task}.yaml")
        stderr = "N/A" if error is None else error
        found["results"][task] = {"alias": task, f"{metric},none": value, f"{metric}_stderr,none": stderr}
        found["versions"][task] = (config.get("metadata") or {}).get("version", "N/A")
        found["n-shot"][task] = config.get("num_fewshot") or 0
        found["n-samples"][task] = {"original": items, "effective": items}
        found["higher_is_better"][task] = {metric: higher_is_better}

    for task, its in scores["general"].items():
        if task != "all":
            accuracy = its["accuracy"]
            add(task, accuracy["n"], "acc_norm", accuracy["mean"], accuracy["se"], higher_is_better=True)
    for task, its in scores["passages"].items():
        add(task, its["n"], "word_perplexity", its["word_perplexity"], its["se"], higher_is_better=False)
    target.mkdir(parents=True, exist_ok=True)
    tracker = EvaluationTracker(output_path=str(target))
    model = {"pretrained": f"{project.experiment.name}-{key}"}
    tracker.general_config_tracker.log_experiment_args("apt-assets", model, None, None, False)
    tracker.save_results_aggregated(found)
    shutil.copyfile(source / "scores.json", target / "scores.json")


def wanted_key(project: Project, planner: Planner, iteration: int | None) -> str:
    """The key of an iteration that somebody asks for; None: the last promoted one. Raises UsageError."""
    if iteration is None:
        return last_promoted(project, planner)
    key = parse_key(str(iteration))
    require_opened(project, key)
    return key


def last_promoted(project: Project, planner: Planner) -> str:
    """The latest iteration whose promotion is up to date: its gate passed for the adapter of now."""
    opened = project.store.iterations(project.experiment.name)
    for key in reversed(opened):
        if planner.stage(key, "promoted_adapter").status == "fresh":
            return key
    last = planner.stage(opened[-1], "promoted_adapter") if opened else None
    way_out = last.note if last and last.status in DECIDED else "run `apt-assets run` first"
    raise UsageError(f"{project.experiment.name} has no up-to-date promoted adapter: {way_out}")
