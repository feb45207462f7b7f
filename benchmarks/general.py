"""What the general tasks can see: the base model on every item of every task in tasks/.

    python -m benchmarks.general [--contamination] [TASK ...]

The embedded model in the dtype that `policy.dtype: auto` chooses here, scored by the function that `base_scores`
calls. Writes benchmarks/results/general.json, task by task:

    items, chance      of a task of choices: the accuracy of guessing
    accuracy, gold     as in scores.json, with standard errors (apt_assets/method/scores.py)
    word_perplexity    of a task of passages
    tokens             of an item, all choices or the whole passage
    default            items and tokens of one scoring with the default `benchmarks.tasks`
    contamination      items that a training pool knows, by pool (the embedded domain's, and the tickets of
                       benchmarks/evidence.py): whose text is a training prompt (exact), is one but for a word (near,
                       apt_assets/method/near.py), or has eight words in a row in common with one (eight_words).
                       Text: the question, and with its gold choice.

A task whose accuracy is about chance cannot show a loss. With tasks named, only these are measured and the other
numbers stay: on the same machine, libraries and dtype, or it is refused. With --contamination that part alone is
worked out anew, of all tasks; it needs no model and is the same on every machine.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from apt_assets.landing.records import read_landed
from apt_assets.method.domain import build_domain
from apt_assets.method.near import near_held_out
from apt_assets.method.scores import summarise
from apt_assets.method.splits import normalised
from apt_assets.report.markdown import table
from apt_assets.report.tables import interval
from apt_assets.rows.benchmark import as_tables
from apt_assets.settings.asking import native_dtype
from apt_assets.settings.experiment import REPOSITORY, Experiment
from apt_assets.settings.reader import DEFAULT_EXPERIMENT, load_experiment
from apt_assets.study.measured_on import machine
from benchmarks.evidence import ROWS, SEED
from resources.demo import tickets
from resources.model.lm_eval_tasks import Task, load_task, score_items
from resources.model.policy import Policy, load_policy
from schemas.tables import DomainItems

CACHE = REPOSITORY / ".apt" / "cache"
RESULTS = Path(__file__).with_name("results") / "general.json"
NEAR_WORDS = 5  # the default of data.near_duplicate_words
GRAM = 8  # words


def scored(policy: Policy, task: Task) -> dict[str, Any]:
    """The task's part of scores.json."""
    values: list[Any] = []
    tokens = Experiment(name="base").policy.batch_tokens
    # All items are asked for, and they come in their order.
    for _, its in score_items(policy, task, range(len(task.keys)), batch_tokens=tokens):
        values += its
        print(f"{task.name}: {len(values)} of {len(task.keys)}", flush=True)
    scores = summarise(DomainItems.empty(), *as_tables([(task, values)]))
    part: dict[str, Any] = scores["passages" if task.rolling else "general"][task.name]
    return part


def items_of(task: Task) -> list[dict[str, Any]]:
    (file,) = task.config["dataset_kwargs"]["data_files"].values()
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def tokens_of(item: dict[str, Any], task: Task, tokenizer: Any) -> int:
    """Of everything that is scored for it, what its choices share counted once."""
    from lm_eval.utils import apply_template

    if task.rolling:
        return len(tokenizer(item["text"])["input_ids"])
    question = apply_template(task.config["doc_to_text"], item)
    parts = [question, *(f" {choice}" for choice in item["choices"])]
    return sum(map(len, tokenizer(parts)["input_ids"]))


def texts_of(item: dict[str, Any]) -> list[str]:
    if "text" in item:
        return [item["text"]]
    return [item["question"], f"{item['question']} {item['choices'][item['gold']]}"]


def training_prompts() -> dict[str, pl.Series]:
    """Pool -> its prompts, normalised."""
    data = load_experiment(DEFAULT_EXPERIMENT).data
    tables = build_domain(read_landed(CACHE / "icd10.jsonl"), data.validation, data.test, data.near_duplicate_words)
    made = [row["prompt"] for row in tickets.tickets(ROWS["tickets"], SEED)]  # held-out ones too: more than the pool
    return {"icd10": normalised(tables["train"]["prompt"]), "tickets": normalised(pl.Series("prompt", made))}


def grams(text: str) -> Iterator[tuple[str, ...]]:
    words = text.split()
    return (tuple(words[n : n + GRAM]) for n in range(len(words) - GRAM + 1))


def contamination(items: list[dict[str, Any]], prompts: pl.Series) -> dict[str, int]:
    """{exact, near, eight_words}: numbers of items."""
    known = {gram for prompt in prompts for gram in grams(prompt)}
    rows = pl.DataFrame(
        [(number, text) for number, item in enumerate(items) for text in texts_of(item)],
        schema=["item", "prompt"],
        orient="row",
    )
    rows = rows.with_columns(normalised(rows["prompt"]), answer=pl.lit(""))
    pool = pl.DataFrame({"prompt": prompts}).with_columns(answer=pl.lit(""))
    near = rows[sorted(near_held_out(rows, pool, NEAR_WORDS))]
    return {
        "exact": rows.filter(pl.col("prompt").is_in(prompts.implode()))["item"].n_unique(),
        "near": near["item"].n_unique(),
        "eight_words": len({item for item, text, _ in rows.iter_rows() if any(g in known for g in grams(text))}),
    }


def with_contamination(found: dict[str, Any]) -> dict[str, Any]:
    """The same measurements with that part worked out anew, for every task."""
    pools = training_prompts()
    for name, its in found["tasks"].items():
        items = items_of(load_task(REPOSITORY / "tasks" / f"{name}.yaml", None, CACHE / "general"))
        its["contamination"] = {pool: contamination(items, prompts) for pool, prompts in pools.items()}
    return {**found, "training_prompts": {pool: len(prompts) for pool, prompts in pools.items()}}


def measure(named: list[str]) -> dict[str, Any]:
    """The named tasks, or all."""
    dtype = native_dtype("cpu")
    policy = load_policy(CACHE / "policy", dtype=dtype)
    usual = Experiment(name="default").benchmarks.tasks
    found: dict[str, Any] = {}
    for path in sorted((REPOSITORY / "tasks").glob("*.yaml")):
        if named and path.stem not in named:
            continue
        task = load_task(path, None, CACHE / "general")
        items = items_of(task)
        tokens = [tokens_of(item, task, policy.tokenizer) for item in items]
        found[task.name] = {
            "items": len(items),
            **({} if task.rolling else {"chance": sum(1 / len(item["choices"]) for item in items) / len(items)}),
            **scored(policy, task),
            "tokens": sum(tokens) / len(items),
        }
        if task.name in usual:
            number = usual[task.name] or len(items)
            found[task.name]["default"] = {"items": number, "tokens": sum(tokens[:number])}
    return {
        "tasks": found,
        "dtype": dtype,
        "machine": machine(),
        "libraries": {name: metadata.version(name) for name in ("torch", "transformers", "lm-eval")},
        "date": time.strftime("%Y-%m-%d"),
    }


def report(found: dict[str, Any]) -> str:
    columns = [
        "task",
        "items",
        "chance %",
        "accuracy %",
        "gold, nats per character",
        "word perplexity",
        "tokens an item",
    ]
    rows = []
    for name, its in found["tasks"].items():
        cells = ["-", "-", "-"]
        if "accuracy" in its:
            cells = [f"{100 * its['chance']:.1f}", interval(its["accuracy"]), f"{its['gold']:.3f}"]
        perplexity = f"{its['word_perplexity']:.1f}" if "word_perplexity" in its else "-"
        rows.append([name, str(its["items"]), *cells, perplexity, f"{its['tokens']:.0f}"])
    return table(columns, rows)


def merged(measured: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """The kept tasks with those measured now. Exits if the two do not compare."""
    for what in ("dtype", "machine", "libraries"):
        if measured[what] != kept[what]:
            sys.exit(f"{what} was {kept[what]}, now it is {measured[what]}: measure all tasks")
    return {**measured, "tasks": dict(sorted({**kept["tasks"], **measured["tasks"]}.items()))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="measure these alone; default: all")
    parser.add_argument("--contamination", action="store_true", help="only that part")
    asked = parser.parse_args()
    if asked.contamination:
        measured = json.loads(RESULTS.read_text())
    elif asked.tasks:
        measured = merged(measure(asked.tasks), json.loads(RESULTS.read_text()))
    else:
        measured = measure([])
    measured = with_contamination(measured)
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")
    print(report(measured))
