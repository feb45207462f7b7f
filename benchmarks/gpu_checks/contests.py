"""Checks against what people would use instead: TRL's trainer, lm-eval's HFLM, transformers' generate()."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gpu_checks.made import SYSTEM_PROMPT, pairs
from benchmarks.gpu_checks.setup import (
    BATCH,
    BATCH_TOKENS,
    NEW_TOKENS,
    Setup,
    answer_packed,
    furthest,
    judged,
    load,
    measured,
    need,
    recipe,
)  # fmt: skip
from tests import tiny

# The least share of first tokens that two programs say alike. Where they differ in one, all behind it may differ.
SAME_FIRST = {"float32": 1.0, "bfloat16": 0.8}


def training(setup: Setup, quantization: str = "none") -> dict[str, Any]:
    """Losses and seconds of LoRA steps of 8 pairs, packed: TRL's own, without gradient checkpointing."""
    from benchmarks.speed.training import train_by_trl, train_ours
    from resources.model.agreement import NATS

    its, rows, bound = recipe(setup, quantization=quantization), pairs(4 * BATCH), NATS[setup.dtype]
    with measured(setup) as peak:
        ours = train_ours(setup.weights, SYSTEM_PROMPT, rows, its)
    ours |= peak
    with measured(setup) as peak:
        trl = train_by_trl(setup.weights, SYSTEM_PROMPT, rows, its, checkpointing=False)
    trl |= peak
    off = furthest(ours["losses"], trl["losses"])
    return judged(off <= bound, loss_gap=off, bound=bound, ours=ours, trl=trl)


def nf4(setup: Setup) -> dict[str, Any]:
    """`training` on weights in 4 bits."""
    need("bitsandbytes")
    return training(setup, "nf4")


def scores(setup: Setup) -> dict[str, Any]:
    """Log-likelihoods of choices and passages, in nats a token: those of lm-eval's HFLM."""
    need("lm_eval")
    from benchmarks.speed.scoring import score_by_hflm, score_ours
    from resources.model.agreement import NATS
    from resources.model.lm_eval_tasks import load_tasks

    choices = ["blue", "a loud noise"]
    with tempfile.TemporaryDirectory() as folder:
        path = tiny.make_task(Path(folder) / "tasks")
        items = [{"question": text, "choices": choices, "gold": 0} for text in setup.questions]
        tiny.write_jsonl(path / "colours.jsonl", items)
        tasks = load_tasks(path, {"colours": None, "sayings": None}, Path(folder))
        with measured(setup):
            ours = score_ours(load(setup, "packed"), tasks, BATCH_TOKENS)
        with measured(setup):
            hflm = score_by_hflm(load(setup, "plain"), tasks, 16)
    # A token is a byte, and a choice begins with a blank.
    tokens = [len(choice) + 1 for _ in items for choice in choices] + [len(text) for text in tiny.SAYINGS]
    each = zip(ours.pop("log_likelihoods"), hflm.pop("log_likelihoods"), tokens, strict=True)
    off = [abs(a - b) / count for a, b, count in each]
    found, bound = max(off) if setup.dtype == "float32" else sum(off) / len(off), NATS[setup.dtype]
    return judged(found <= bound, nats_a_token=found, most=max(off), bound=bound, ours=ours, hflm=hflm)


def answers(setup: Setup) -> dict[str, Any]:
    """Greedy answers, packed, and their seconds: those of transformers' generate()."""
    with measured(setup) as peak:
        ours = answer_packed(setup)
    ours |= peak
    with measured(setup) as peak:
        theirs = answer_by_transformers(setup)
    theirs |= peak
    both = list(zip(ours.pop("answers"), theirs.pop("answers"), strict=True))
    first, same = (sum(a[:upto] == b[:upto] for a, b in both) / len(both) for upto in (1, None))
    bound = SAME_FIRST[setup.dtype]
    judgement = {"same_first_token": first, "bound": bound, "same_answers": same}
    return judged(first >= bound, **judgement, ours=ours, transformers=theirs)


def answer_by_transformers(setup: Setup) -> dict[str, Any]:
    from benchmarks.speed.generation import say_by_transformers, timed
    from resources.model.policy import encode

    policy = load(setup, "plain")
    policy.tokenizer.padding_side = "left"
    ids = [encode(policy, text) for text in setup.questions]
    return timed(lambda: say_by_transformers(policy.model, policy.tokenizer, ids, NEW_TOKENS), policy.tokenizer)
