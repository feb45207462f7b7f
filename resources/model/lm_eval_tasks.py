"""The general benchmark: local lm-eval tasks, scored through a policy that is already loaded.

Tasks are YAML files of the folder `benchmarks.folder`, in lm-eval's own format. A `data_files` name
is looked up beside the YAML and then in the embedded data. lm-eval's own caches are not used: their
keys hold no model identity.
"""

import copy
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.model.control_tokens import around
from resources.model.prompts import end_tokens
from resources.model.scoring import Question, score_answers
from resources.model.task_items import Asking, Items, TaskError, check_items, lines_of
from resources.store.digest import digest_file, digest_json
from resources.store.rows import Batches, collect
from resources.words import letters
from resources.yaml_file import NotYaml, read_yaml

if TYPE_CHECKING:
    from resources.model.prompts import Policy

COMMIT_ITEMS = 200  # items that are scored and yielded together: lm-eval takes about a second to set up
FEWSHOT_SEED = 1234  # simple_evaluate's
CHOICE, ROLLING = "multiple_choice", "loglikelihood_rolling"  # the output types that are supported
EVERY = "all"  # what the scores of all tasks together are called
# What lm-eval makes of all items, which is not read. Its word perplexity would overflow where a text has few spaces.
METRICS = {CHOICE: "acc_norm", ROLLING: "bits_per_byte"}


@dataclass(frozen=True)
class Task:
    """One task: lm-eval's configuration with absolute data files, and the items to score.

    rolling: its items are passages whose every token is scored, not questions with choices.
    keys: one per item, in order: the digest of the configuration and the item, so that an item is
    scored again only if its text or the way it is asked changed; of all data files as well, if it is
    asked with examples out of them (num_fewshot). lines: all items of its data as they stand there,
    those beyond the keys too.
    """

    name: str
    config: dict[str, Any]
    keys: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def rolling(self) -> bool:
        return bool(self.config["output_type"] == ROLLING)


def texts_of(task: Task) -> list[str]:
    """All that each line of a task's data says."""
    return [" ".join(strings_in(json.loads(line))) for line in task.lines]


def strings_in(item: Any) -> Iterator[str]:
    """The texts of an item, in order, but for what names it."""
    if isinstance(item, str):
        yield item
    elif isinstance(item, list | dict):
        parts = item if isinstance(item, list) else [value for key, value in item.items() if key != "id"]
        for part in parts:
            yield from strings_in(part)


def load_tasks(folder: Path, items: dict[str, int | None], data: Path) -> list[Task]:
    """The named tasks, sorted by name, each with its first `items[name]` items (None: all).

    Raises TaskError for a task that is missing, or neither multiple-choice nor rolling, or not on local JSON
    lines.
    """
    return [load_task(folder / f"{name}.yaml", items[name], data) for name in sorted(items)]


def load_task(path: Path, items: int | None, data: Path) -> Task:
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise TaskError(f"no task file {path}; the folder has: {there or 'none'}")
    try:
        config = read_yaml(path)
    except NotYaml as error:
        raise TaskError(str(error)) from None
    if not isinstance(config, dict) or not isinstance(config.get("dataset_kwargs"), dict):
        config = {}
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if config.get("output_type") not in METRICS or not isinstance(files, dict):
        raise TaskError(
            f"{path}: needs output_type multiple_choice or loglikelihood_rolling, and dataset_kwargs.data_files"
        )
    for split, name in files.items():
        if not isinstance(name, str):
            raise TaskError(f"{path}: dataset_kwargs.data_files.{split}: needs the name of one file")
    if path.stem == EVERY:
        raise TaskError(f"{path}: {EVERY} is what scores of all tasks together are called: name it otherwise")
    if "include" in config:
        raise TaskError(f"{path}: include: other files are not read; write what they say into this one")
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
    file = found[list(files).index(split)]
    lines = lines_of(file)
    asked = lines[:items]
    if items is not None and len(asked) < items:
        raise TaskError(f"{path}: has {len(asked)} items, but benchmarks.tasks asks for {items}")
    its = Items(lines)
    asking = Asking(config, config["output_type"] == ROLLING, its.features)
    check_items(str(file), asking, enumerate(its[: len(asked)], 1))
    shots = [[digest_file(file) for file in found]] if config.get("num_fewshot") else []
    keys = tuple(digest_json([config, line, *shots]) for line in asked)
    absolute = {name: str(file.resolve()) for name, file in zip(files, found, strict=True)}
    config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": absolute}
    config["task"] = config.get("task") or path.stem
    return Task(path.stem, config, keys, tuple(lines))


def task_files(path: Path, data: Path) -> list[Path]:
    """A task's YAML file and its data files, each beside the YAML or else in `data`; they may be missing."""
    try:
        names = list(((read_yaml(path).get("dataset_kwargs") or {}).get("data_files") or {}).values())
    except (OSError, AttributeError, NotYaml):
        return [path]
    names = [name for name in names if isinstance(name, str)]
    return [path, *(path.parent / n if (path.parent / n).is_file() else data / n for n in names)]


def task_identity(path: Path, data: Path, digest: Callable[[Path], str]) -> Any:
    """What a task is, by content: its configuration as parsed, so that a comment is no change, and the
    digests of its data files. A file that is missing or not YAML has an identity too: it cannot be scored."""
    _, *files = task_files(path, data)
    try:
        config = json.loads(json.dumps(read_yaml(path), default=str))
    except (OSError, NotYaml) as error:
        config = f"unreadable: {type(error).__name__}"
    return [config, [digest(file) if file.is_file() else "missing" for file in files]]


def score_items(policy: "Policy", task: Task, items: Sequence[int], *, batch_tokens: int) -> Batches[dict[str, Any]]:
    """Score the items at the given positions (`of_choices` or `of_passage`), in ascending order; yields a few hundred
    at a time. Raises RuntimeError for log-likelihoods that are not finite, TaskError for an item that cannot be
    scored."""
    score = of_passage if task.rolling else of_choices
    check_asked(task, items)
    items = sorted(items)  # lm-eval reads them in this order, but numbers them in the order given
    for start in range(0, len(items), COMMIT_ITEMS):
        part = items[start : start + COMMIT_ITEMS]
        scored = {int(sample["doc_id"]): score(sample) for sample in evaluate(policy, task, part, batch_tokens)}
        yield part, [scored[item] for item in part]


def draw_anew_for_each_item(task: Any) -> None:
    """Give every item of one of lm-eval's tasks the examples of a first draw: lm-eval goes on with one generator from
    item to item, so that an item's score would depend on which others are scored."""
    if sampler := getattr(task, "sampler", None):  # a task without data for examples has none
        draw = sampler.sample

        def sample(*arguments: Any, **named: Any) -> Any:
            sampler.set_rnd(FEWSHOT_SEED)
            return draw(*arguments, **named)

        sampler.sample = sample


def of_choices(sample: dict[str, Any]) -> dict[str, Any]:
    """{correct, margin, gold} of one of lm-eval's samples.

    An item is correct if its gold choice has the highest log-likelihood per character (lm-eval's
    acc_norm). gold is the gold's log-likelihood per character, margin that minus the best other
    choice's, in nats.
    """
    place, scores = sample["target"], [float(response[0]) for response in sample["filtered_resps"]]
    per_character = [s / len(c) for s, c in zip(scores, sample["choices"], strict=True)]
    gold = finite(per_character[place])
    margin = finite(gold - max(s for i, s in enumerate(per_character) if i != place))
    # Of equal ones the first, as lm-eval has it.
    return {"correct": per_character.index(max(per_character)) == place, "margin": margin, "gold": gold}


def of_passage(sample: dict[str, Any]) -> dict[str, Any]:
    """{nats, words}: minus the log-likelihood of the whole text, and how many words lm-eval counts in it, where the
    letters of a script without spaces are words.

    exp(sum of nats / sum of words) over a task's items is lm-eval's word_perplexity, except that lm-eval takes a
    Chinese passage for a word or two.
    """
    from lm_eval.api.task import Task as LmEvalTask

    (response,) = sample["filtered_resps"]
    return {"nats": -finite(float(response)), "words": int(LmEvalTask.count_words(letters(sample["target"])))}


def finite(value: float) -> float:
    if not math.isfinite(value):
        raise RuntimeError("the policy gives log-likelihoods that are not finite: its weights are damaged")
    return value


def evaluate(policy: "Policy", task: Task, items: list[int], batch_tokens: int) -> list[dict[str, Any]]:
    """lm-eval's samples of the given items of one task; of choices with these, as `choices`, and the gold's number as
    `target`. Raises TaskError for a task that lm-eval cannot read."""
    config = as_lm_eval_reads_it(task)
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class PackedLM(HFLM):
        """lm-eval's own requests, truncation, windows and metrics; the choices of an item are scored as
        branches of its context, so that its log-likelihoods do not depend on which others are scored."""

        def tok_encode(self, string: str, *arguments: Any, **named: Any) -> list[int]:
            # As a question is read: what the tokenizer puts behind a text would stand between context and answer.
            ids: list[int] = super().tok_encode(string, *arguments, **named)
            return ids[: -len(after)] if after and ids[-len(after) :] == after else ids

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self.items = [request.doc_id for request in requests]
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            windows = [
                (place, *make_disjoint_window(window))
                for place, request in enumerate(requests)
                for window in get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.max_length,
                    context_len=1,
                )
            ]
            self.items = [requests[place].doc_id for place, _, _ in windows]
            scored = self._loglikelihood_tokens([(None, context, answer) for _, context, answer in windows])
            totals = [0.0] * len(requests)
            for (place, _, _), (log_probability, _) in zip(windows, scored, strict=True):
                totals[place] += log_probability
            return totals

        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: Any = None) -> Any:
            asked: dict[Any, list[int]] = {}
            for place, (item, (_, context, answer)) in enumerate(zip(self.items, requests, strict=True)):
                kept = tuple(context[-(self.max_length + 1 - len(answer)) :])
                asked.setdefault((item, kept), []).append(place)
            questions = [
                Question(list(context), tuple(requests[i][2] for i in its)) for (_, context), its in asked.items()
            ]
            scored = collect(len(questions), score_answers(policy.model, questions, batch_tokens=batch_tokens))
            results: list[Any] = [None] * len(requests)
            for places, scores in zip(asked.values(), scored, strict=True):
                for place, score in zip(places, scores, strict=True):
                    results[place] = score
            return results

    _, after = around(policy.tokenizer)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # HFLM sets the padding side that it needs on the tokenizer it is given.
    side = policy.tokenizer.padding_side
    try:
        loaded = TaskManager(include_defaults=False).load([config])
    except Exception as error:  # whatever lm-eval says to the rest of a configuration
        raise TaskError(f"task {task.name}: lm-eval cannot read it ({type(error).__name__}: {error})") from error
    (its,) = loaded["tasks"].values()
    draw_anew_for_each_item(its)
    try:
        # What simple_evaluate calls; it would go on to spend a second on listing installed packages.
        result = lm_eval.evaluate(
            lm=PackedLM(pretrained=policy.model, tokenizer=policy.tokenizer, prefix_token_id=start_token(policy)),
            task_dict=loaded,
            samples={task.config["task"]: items},
            bootstrap_iters=0,
        )
    finally:
        policy.tokenizer.padding_side = side
    assert result is not None, "lm-eval returns None only off the main rank"
    samples: list[dict[str, Any]] = result["samples"][task.config["task"]]
    return samples if task.rolling else [{**one, "choices": config["doc_to_choice"](one["doc"])} for one in samples]


def start_token(policy: "Policy") -> int | None:
    """What stands before a text without context, where the tokenizer names no token for it; None: it does."""
    if {policy.tokenizer.bos_token_id, policy.tokenizer.eos_token_id} != {None}:
        return None
    return min(end_tokens(policy.model, policy.tokenizer), default=None)


def check_asked(task: Task, items: Sequence[int]) -> None:
    """Raise TaskError if one of these items cannot be scored, or one that may be an example."""
    splits, asking = read_by_us(task)
    for split, its in splits.items():
        tested = items if split == task.config["test_split"] else ()
        places = range(len(its)) if task.config.get("num_fewshot") else tested
        check_items(f"task {task.name}: {split}", asking, ((place + 1, its[place]) for place in places))


def read_by_us(task: Task) -> tuple[dict[str, Items], Asking]:
    """The items as they stand in the task's files, by split, and how they are asked."""
    # Local tasks only: without this, lm-eval and datasets ask the hub, as soon as they are imported.
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    from lm_eval.utils import apply_template

    files, tested = task.config["dataset_kwargs"]["data_files"], task.config["test_split"]
    splits = {split: Items(task.lines if split == tested else lines_of(Path(file))) for split, file in files.items()}
    return splits, Asking(task.config, task.rolling, splits[tested].features, apply_template)


def as_lm_eval_reads_it(task: Task) -> dict[str, Any]:
    """Its configuration, with the items and what is asked of them by `read_by_us`, and the one metric that is used."""
    splits, asking = read_by_us(task)
    config = copy.deepcopy(task.config)
    del config["dataset_kwargs"]
    if isinstance(own := config.get("fewshot_config"), dict):
        config["fewshot_config"] = {**own, **replace(asking, config={**task.config, **own}).parts()}
    metrics = [{"metric": METRICS[config["output_type"]]}]
    return {**config, **asking.parts(), "custom_dataset": lambda **_: splits, "metric_list": metrics}
