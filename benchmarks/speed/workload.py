"""The rows that the benchmarks work on: terms of the embedded domain, in a fixed order."""

import json
import random
from typing import Any

from apt_assets.settings.experiment import REPOSITORY

CACHE = REPOSITORY / ".apt" / "cache"
SYSTEM_PROMPT = "Name the ICD-10 chapter in one word."


def terms(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (CACHE / "icd10.jsonl").read_text(encoding="utf-8").splitlines()]
    return random.Random(seed).sample(rows, count)


def pairs(case: str, count: int) -> tuple[str | None, list[tuple[str, str, str]]]:
    """(system prompt, [(prompt, chosen, rejected)]) of a training case.

    demo: the embedded default's own pairs, about 45 tokens. instruction: the same questions under a
    system prompt that lists the chapters, about 120 tokens. questions: nothing shared but the template,
    long questions, short answers, about 120 tokens. answers: answers as long as the questions, about 120.
    """
    rows = terms(6 * count)
    labels = sorted({row["answer"] for row in rows})
    wrong = [f"The chapter is {labels[n % len(labels)]}" for n in range(count)]
    some = rows[:count]
    if case in ("demo", "instruction"):
        listed = f"{SYSTEM_PROMPT} Say nothing else. The chapters are: {', '.join(labels)}. The diagnosis is:"
        asked = [(row["prompt"], row["answer"], no) for row, no in zip(some, wrong, strict=True)]
        return (SYSTEM_PROMPT if case == "demo" else listed), asked
    several = ["; ".join(row["prompt"] for row in rows[6 * n : 6 * n + 6]) for n in range(count)]
    if case == "questions":
        return None, [(text, row["answer"], no) for text, row, no in zip(several, some, wrong, strict=True)]
    halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in several]
    return None, [(one, other, other[::-1][: len(other) // 2]) for one, other in halves]
