"""The general benchmark: local lm-eval tasks, scored through a policy that is already loaded.

Tasks are YAML files of the folder `benchmarks.tasks`, in lm-eval's own format. A `data_files` name
is looked up beside the YAML and then in the embedded data. lm-eval's own caches are not used: their
keys hold no model identity.
"""

import copy
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import polars as pl

    from resources.policy_model import Policy


class TaskError(ValueError):
    """A task file cannot be used; the message names the file and what is missing."""


def load_tasks(folder: Path, names: Iterable[str], data: Path) -> list[dict[str, Any]]:
    """The configurations of the named tasks, sorted by name, with absolute data files.

    Raises TaskError for a task that is missing, or not a multiple-choice task on local JSON lines.
    """
    return [load_task(folder / f"{name}.yaml", data) for name in sorted(names)]


def load_task(path: Path, data: Path) -> dict[str, Any]:
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise TaskError(f"no task file {path}; the folder has: {there or 'none'}")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if config.get("output_type") != "multiple_choice" or not isinstance(files, dict):
        raise TaskError(f"{path}: needs output_type multiple_choice and dataset_kwargs.data_files")
    for split, name in files.items():
        found = [folder / name for folder in (path.parent, data) if (folder / name).is_file()]
        if not found:
            raise TaskError(
                f"{path}: data file {name} is neither in {path.parent} nor in {data} "
                "(`make embedded` fetches the sets of the default tasks)"
            )
        files[split] = str(found[0].resolve())
    return config


def score_general(
    policy: "Policy",
    tasks: list[dict[str, Any]],
    *,
    items: dict[str, int | None],
    batch_size: int,
    log: Callable[[str], None] = lambda line: None,
) -> "pl.DataFrame":
    """Score the first `items[task]` items of every task (None: all); returns GeneralItems, sorted.

    An item is correct if its gold choice has the highest log-likelihood per character (lm-eval's
    acc_norm). Log-likelihoods are sums over the choice's tokens, in nats.
    """
    import polars as pl

    from schemas import empty_table

    schema = empty_table("general_items").schema
    rows = []
    for task in tasks:
        started = time.monotonic()
        samples = evaluate(policy, task, items[task["task"]], batch_size)
        for sample in samples:
            choices = sample["doc"]["choices"]
            scores = [float(response[0]) for response in sample["filtered_resps"]]
            per_character = [s / max(len(c), 1) for s, c in zip(scores, choices, strict=True)]
            gold = int(sample["target"])
            margin = per_character[gold] - max(s for i, s in enumerate(per_character) if i != gold)
            rows.append((task["task"], int(sample["doc_id"]), bool(sample["acc_norm"]), margin))
        rate = len(samples) / (time.monotonic() - started)
        log(f"{task['task']}: {len(samples)} items, {rate:.1f} items/s")
    table = pl.DataFrame(rows, schema=schema, orient="row").sort("task", "item")
    if any(not math.isfinite(margin) for margin in table["margin"]):
        raise RuntimeError("the policy gives log-likelihoods that are not finite: its weights are damaged")
    return table


def evaluate(policy: "Policy", task: dict[str, Any], items: int | None, batch_size: int) -> list[dict[str, Any]]:
    """lm-eval's samples of one task, of its first `items` items or of all."""
    # Local tasks only: without this, lm-eval and datasets ask the hub before they look at a file.
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    class Quiet(HFLM):
        """Without bars of its own: the stages report progress."""

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # HFLM sets the padding side that it needs on the tokenizer it is given.
    side = policy.tokenizer.padding_side
    # datasets keys its cache on path and modification time: a cache of its own, gone afterwards, cannot
    # hand out what a file used to hold.
    with tempfile.TemporaryDirectory() as cache:
        config = copy.deepcopy(task)
        config["dataset_kwargs"]["cache_dir"] = cache
        try:
            result = simple_evaluate(
                model=Quiet(pretrained=policy.model, tokenizer=policy.tokenizer, batch_size=batch_size),
                tasks=[config],
                task_manager=TaskManager(include_defaults=False),
                samples=None if items is None else {task["task"]: list(range(items))},
                bootstrap_iters=0,
                log_samples=True,
            )
        finally:
            policy.tokenizer.padding_side = side
    assert result is not None, "simple_evaluate returns None only off the main rank"
    return result["samples"][task["task"]]
