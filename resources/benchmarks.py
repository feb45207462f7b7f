"""The general benchmark: local lm-eval tasks, scored through a policy that is already loaded.

Tasks are YAML files of the folder `benchmarks.tasks`, in lm-eval's own format. A `data_files` name
is looked up beside the YAML and then in the embedded data. lm-eval's own caches are not used: their
keys hold no model identity.
"""

import copy
import json
import logging
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from resources.digest import digest_json
from resources.scoring import Question, Scores, score_answers

if TYPE_CHECKING:
    from resources.policy_model import Policy

COMMIT_ITEMS = 200  # items scored between two commits: lm-eval takes about a second to set up
FEWSHOT_SEED = 1234  # simple_evaluate's


class TaskError(ValueError):
    """A task file cannot be used; the message names the file and what is missing."""


@dataclass(frozen=True)
class Task:
    """One task: lm-eval's configuration with absolute data files, and the items to score.

    keys: one per item, in order: the digest of the configuration and the item, so that an item is
    scored again only if its text or the way it is asked changed.
    """

    name: str
    config: dict[str, Any]
    keys: tuple[str, ...]


def load_tasks(folder: Path, items: dict[str, int | None], data: Path) -> list[Task]:
    """The named tasks, sorted by name, each with its first `items[name]` items (None: all).

    Raises TaskError for a task that is missing, or not a multiple-choice task on local JSON lines.
    """
    return [load_task(folder / f"{name}.yaml", items[name], data) for name in sorted(items)]


def load_task(path: Path, items: int | None, data: Path) -> Task:
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise TaskError(f"no task file {path}; the folder has: {there or 'none'}")
    config = read_yaml(path)
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if config.get("output_type") != "multiple_choice" or not isinstance(files, dict):
        raise TaskError(f"{path}: needs output_type multiple_choice and dataset_kwargs.data_files")
    split = config.get("test_split")
    if split not in files:
        raise TaskError(f"{path}: test_split {split!r} is not one of dataset_kwargs.data_files: {', '.join(files)}")
    _, *found = task_files(path, data)
    for name, file in zip(files.values(), found, strict=True):
        if not file.is_file():
            raise TaskError(
                f"{path}: data file {name} is neither in {path.parent} nor in {data} "
                "(`make embedded` fetches the sets of the default tasks)"
            )
    lines = found[list(files).index(split)].read_text(encoding="utf-8").splitlines()
    asked = [line for line in lines if line.strip()][:items]
    if items is not None and len(asked) < items:
        raise TaskError(f"{path}: has {len(asked)} items, but benchmarks.tasks asks for {items}")
    keys = tuple(digest_json([config, line]) for line in asked)
    absolute = {name: str(file.resolve()) for name, file in zip(files, found, strict=True)}
    config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": absolute}
    return Task(path.stem, config, keys)


def task_files(path: Path, data: Path) -> list[Path]:
    """A task's YAML file and its data files, each beside the YAML or else in `data`; they may be missing."""
    try:
        names = list(((read_yaml(path).get("dataset_kwargs") or {}).get("data_files") or {}).values())
    except (OSError, AttributeError, yaml.YAMLError):
        return [path]
    return [path, *(path.parent / n if (path.parent / n).is_file() else data / n for n in names)]


def task_identity(path: Path, data: Path, digest: Callable[[Path], str]) -> Any:
    """What a task is, by content: its configuration as parsed, so that a comment is no change, and the
    digests of its data files. A file that is missing or not YAML has an identity too: it cannot be scored."""
    _, *files = task_files(path, data)
    try:
        config = json.loads(json.dumps(read_yaml(path), default=str))
    except (OSError, yaml.YAMLError) as error:
        config = f"unreadable: {type(error).__name__}"
    return [config, [digest(file) if file.is_file() else "missing" for file in files]]


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def score_items(
    policy: "Policy",
    task: Task,
    items: Sequence[int],
    *,
    batch_tokens: int,
    on_batch: Callable[[Sequence[int], list[dict[str, Any]]], None],
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Score the items at the given positions; `on_batch` gets positions and {correct, margin} of each
    few hundred of them, `progress` the number scored after each pass.

    An item is correct if its gold choice has the highest log-likelihood per character (lm-eval's
    acc_norm). Its margin is the gold's log-likelihood per character minus the best other choice's,
    in nats. Raises RuntimeError for log-likelihoods that are not finite.
    """
    for start in range(0, len(items), COMMIT_ITEMS):
        part = list(items[start : start + COMMIT_ITEMS])
        scored = {}

        def so_far(done: int, start: int = start) -> None:
            progress(start + done)

        for sample in evaluate(policy, task, part, batch_tokens, so_far):
            choices = sample["doc"]["choices"]
            scores = [float(response[0]) for response in sample["filtered_resps"]]
            per_character = [s / max(len(c), 1) for s, c in zip(scores, choices, strict=True)]
            gold = int(sample["target"])
            margin = per_character[gold] - max(s for i, s in enumerate(per_character) if i != gold)
            if not math.isfinite(margin):
                raise RuntimeError("the policy gives log-likelihoods that are not finite: its weights are damaged")
            scored[int(sample["doc_id"])] = {"correct": bool(sample["acc_norm"]), "margin": margin}
        on_batch(part, [scored[item] for item in part])


def evaluate(
    policy: "Policy",
    task: Task,
    items: list[int],
    batch_tokens: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """lm-eval's samples of the given items of one task."""
    # Local tasks only: without this, lm-eval and datasets ask the hub before they look at a file.
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    class PackedLM(HFLM):
        """lm-eval's own requests, truncation and metrics; the choices of an item are scored as branches of
        its context, so that an item's log-likelihoods do not depend on which others are scored."""

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self.items = [request.doc_id for request in requests]
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: Any = None) -> Any:
            asked: dict[Any, list[int]] = {}
            for place, (item, (_, context, answer)) in enumerate(zip(self.items, requests, strict=True)):
                kept = tuple(context[-(self.max_length + 1 - len(answer)) :])
                asked.setdefault((item, kept), []).append(place)
            questions = [
                Question(list(context), tuple(requests[i][2] for i in its)) for (_, context), its in asked.items()
            ]
            results: list[Any] = [None] * len(requests)
            by_question, done = list(asked.values()), set()

            def on_batch(numbers: list[int], scored: list[Scores]) -> None:
                for number, scores in zip(numbers, scored, strict=True):
                    for place, score in zip(by_question[number], scores, strict=True):
                        results[place] = score
                        done.add(self.items[place])
                progress(len(done))

            score_answers(policy.model, questions, batch_tokens=batch_tokens, on_batch=on_batch)
            return results

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # HFLM sets the padding side that it needs on the tokenizer it is given.
    side = policy.tokenizer.padding_side
    # datasets keys its cache on path and modification time: a cache of its own, gone afterwards, cannot
    # hand out what a file used to hold.
    with tempfile.TemporaryDirectory() as cache:
        config = copy.deepcopy(task.config)
        config["dataset_kwargs"]["cache_dir"] = cache
        loaded = TaskManager(include_defaults=False).load([config])
        for each in loaded["tasks"].values():
            each.set_fewshot_seed(FEWSHOT_SEED)
        try:
            # What simple_evaluate calls; it would go on to spend a second on listing installed packages.
            result = lm_eval.evaluate(
                lm=PackedLM(pretrained=policy.model, tokenizer=policy.tokenizer),
                task_dict=loaded,
                samples={config["task"]: items},
                bootstrap_iters=0,
            )
        finally:
            policy.tokenizer.padding_side = side
    assert result is not None, "lm-eval returns None only off the main rank"
    return result["samples"][config["task"]]
