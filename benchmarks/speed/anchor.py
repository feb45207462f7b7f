"""What the anchor costs: a training step with it, at the experiment's defaults, against one without.

    python -m benchmarks.speed.anchor [CASE ...]

The embedded model, LoRA r = 16 on all linear layers, DPO + NLL, 8 pairs a step, float32, all cores, in turn. Seconds
are the median of the steps after the first.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.settings.training import Anchor as Settings
from benchmarks.speed.contest import add_cases, child, hold, ratio, save, spread
from benchmarks.speed.training import BATCH, SEED, middle, recipe
from benchmarks.speed.workload import CACHE, pairs, terms

if TYPE_CHECKING:
    from resources.training.anchor import Anchor

CASES = ("demo", "instruction")
STEPS = 8


def train(case: str, anchored: bool) -> dict[str, Any]:
    import polars as pl

    from resources.training.trainer import train_adapter

    system_prompt, rows = pairs(case, STEPS * BATCH)
    moments: list[float] = []
    with tempfile.TemporaryDirectory() as out:
        train_adapter(
            CACHE / "policy", None, pl.DataFrame(rows, schema=["prompt", "chosen", "rejected"], orient="row"),
            system_prompt, recipe(), Path(out), lambda step, total: moments.append(time.perf_counter()),
            anchor=some_anchor() if anchored else None,
        )  # fmt: skip
    return {"seconds": middle(moments)}


def some_anchor() -> "Anchor":
    """Texts as long as the defaults have them; what is expected in them costs the same whatever it is."""
    import torch

    from resources.model.likely import likeliest
    from resources.model.policy import load_tokenizer
    from resources.training.anchor import Anchor, AnchorText

    settings, tokenizer = Settings(), load_tokenizer(CACHE / "policy")
    ids = tokenizer("; ".join(row["prompt"] for row in terms(400)))["input_ids"]
    length = settings.tokens
    logits = torch.randn(length, len(tokenizer), generator=torch.Generator().manual_seed(SEED))
    texts = [AnchorText(ids[n : n + length + 1], 1, *likeliest(logits)) for n in range(0, 16 * length, length)]
    return Anchor(texts, settings.weight, settings.form, settings.texts_per_step, SEED)


CONTESTANTS = {"free": lambda case: train(case, anchored=False), "anchored": lambda case: train(case, anchored=True)}


def report(runs: dict[str, Any]) -> str:
    lines = ["| pairs | s a step | anchored | times as long |", "|---|---|---|---|"]
    lines += [
        f"| {case} | {spread(its['free'], 'seconds')} | {spread(its['anchored'], 'seconds')} | "
        f"**{ratio(its, 'free', 'anchored'):.2f}** |"
        for case, its in runs.items()
    ]
    return "\n".join(lines)


def main() -> None:
    runs = add_cases("anchor", hold("benchmarks.speed.anchor", CONTESTANTS, sys.argv[1:] or CASES))
    save("anchor", {"runs": runs}, ["torch", "transformers", "trl", "peft"])
    print(report(runs))


if __name__ == "__main__":
    child(CONTESTANTS, sys.argv[1:]) if sys.argv[1:2] == ["run"] else main()
