"""What the tools work with: a copy of the source tree, models, rows and a general task.

The embedded model answers ICD-10 questions, fewer of them. The tiny policy is random; trained for a few
seconds it answers some questions right, names another colour, hedges, or says "unsure", so that every grade
from 1 to 5 but 4 occurs and a changed threshold or rubric changes something.
"""

import copy
import json
import random
import shutil
from pathlib import Path
from typing import Any

from resources.demo.downloads import prepare
from tests import tiny

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = ("apt_assets", "resources", "schemas", "benchmarks", "tests", "tasks", "experiments")
MODELS = {"tiny": 200, "embedded": 60}  # the rows of the first file
CACHE = REPOSITORY / ".apt" / "cache"
FIRST_FILE, SECOND_FILE = "rows.jsonl", "more.jsonl"

SETTINGS: dict[str, Any] = {
    "data": {"validation": 0.2, "test": 0.2, "near_duplicate_words": None},
    "policy": {"dtype": "float32", "device": "cpu", "system_prompt": None, "max_new_tokens": 16, "batch_tokens": 1024},
    "assessor": {"bad_below": 4},
    "retrieval": {"per_case": 1, "batch_size": 64},
    "pairs": {"replay_share": 1.0},
    "training": {
        "learning_rate": 1e-3,
        "learning_rate_decay": 0.5,
        "beta": 0.1,
        "nll_weight": 1.0,
        "reference": "previous",
        "lora_rank": 2,
        "lora_alpha": 4,
        "batch_size": 4,
        "epochs": 1,
        "warmup_steps": 0,
        "max_length": 256,
        "seed": 17,
    },
    "benchmarks": {"tasks": {"colours": None}},
    # What a gate says of a tiny model is not what is compared: it always passes.
    "gate": {**tiny.OPEN_GATE, "confidence": 0.95, "resamples": 2000},
    # The scripts have no anchor and no scales to try.
    "anchor": {"weight": 0.0},
    "promotion": {"scales": []},
}


def settings_for(model: str) -> dict[str, Any]:
    """Sections of an experiment, for the tools to change."""
    settings = copy.deepcopy(SETTINGS)
    if model == "embedded":
        settings["policy"] |= {"system_prompt": "Name the ICD-10 chapter in one word.", "max_new_tokens": 6}
        settings["training"] |= {"lora_rank": 16, "lora_alpha": 32, "max_length": 1024}
    return settings


def make_template(folder: Path, model: str) -> Path:
    """A source tree with world/policy, encoder, tasks and data in it; other/ holds what scenarios add.

    other/policy: weights to overwrite the policy with, of the tiny one. other/more.jsonl: 1 % new rows, for training.
    """
    source, other = folder / "source", folder / "other"
    for name in SOURCES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ("pyproject.toml", "workspace.yaml"):
        shutil.copy(REPOSITORY / name, source / name)
    (source / "dagster_home").mkdir()
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", source / "dagster_home")
    world, count = source / "world", MODELS[model]
    tiny.make_task(world / "tasks")
    (world / "data").mkdir()
    if model == "embedded":
        rows = embedded_models(world)
    else:
        rows = tiny.domain_rows(2 * count)
        tiny_models(world, other, rows)
    tiny.write_jsonl(other / FIRST_FILE, rows[:count])
    new = [row for row in rows[count:] if is_training_row(row)]
    tiny.write_jsonl(other / SECOND_FILE, new[: max(1, count // 100)])
    return folder


def tiny_models(world: Path, other: Path, rows: list[dict[str, str]]) -> None:
    for place, seed in ((world / "policy", 0), (other / "policy", 1)):
        warm_up(tiny.make_policy(place, seed), seed, rows)
    # Made beside the world: its files tell where they were made.
    tiny.make_encoder(world.parents[1] / "encoder")
    shutil.copytree(world.parents[1] / "encoder", world / "encoder")


def embedded_models(world: Path) -> list[dict[str, str]]:
    """Copies of the downloaded ones; returns the terms of the ICD-10 in a random order."""
    prepare(CACHE)
    for name in ("policy", "encoder"):
        shutil.copytree(CACHE / name, world / name)
    lines = (CACHE / "icd10.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [{"prompt": row["prompt"], "answer": row["answer"]} for row in random.Random(0).sample(rows, len(rows))]


def is_training_row(row: dict[str, str]) -> bool:
    from apt_assets.method.splits import row_id, splits_of

    shares = SETTINGS["data"]
    return splits_of([row_id(row["prompt"])], shares["validation"], shares["test"]) == ["train"]


def first_answer(number: int, seed: int) -> str:
    """What the policy of that seed learns to answer to row `number` before any tool sees it."""
    colours = list(tiny.COLOURS.values())
    right, wrong = colours[number % 5], colours[(number + 1) % 5]
    last = (number + seed) % 10
    if last in (0, 1, 5, 6):
        return right
    return {2: wrong, 7: wrong, 3: f"{right} or {wrong}", 8: f"{right} or {wrong}"}.get(last, "unsure")


def warm_up(folder: Path, seed: int, rows: list[dict[str, str]], steps: int = 400, batch: int = 32) -> None:
    """Teach the policy in `folder` its first answers to these rows, all weights, and save it in place."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    torch.manual_seed(seed)
    examples = []
    for number, row in enumerate(rows):
        turn = [{"role": "user", "content": row["prompt"]}]
        prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, first_answer(number, seed))]
        examples.append((ids[0], [*ids[1], tokenizer.eos_token_id]))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        chosen = [examples[i] for i in torch.randint(len(examples), (batch,)).tolist()]
        width = max(len(prompt) + len(said) for prompt, said in chosen)
        ids = torch.full((batch, width), tokenizer.pad_token_id)
        labels = torch.full((batch, width), -100)
        for i, (prompt, said) in enumerate(chosen):
            ids[i, : len(prompt) + len(said)] = torch.tensor(prompt + said)
            labels[i, len(prompt) : len(prompt) + len(said)] = torch.tensor(said)
        model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
