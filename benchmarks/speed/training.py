"""One optimiser step of preference training on 8 pairs: ours against TRL's DPOTrainer.

    python -m benchmarks.speed.training [CASE ...]

The embedded model, LoRA r = 16 on all linear layers, float32, all cores, the same pairs in the same
order. Seconds are the median of the steps after the first; ours also has the reference's
log-probabilities, computed once per pair before training, in seconds per 8 pairs. `trl` is TRL with its
defaults (bf16 switched off, as without bf16 instructions it is slower); `trl_plain` without gradient
checkpointing, which is faster and needs more memory.
"""

import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.speed.contest import add_cases, child, hold, ratio, save, say, spread
from benchmarks.speed.workload import CACHE, pairs

if TYPE_CHECKING:
    from resources.training.by_workers import Group
    from resources.training.trainer import TrainingRecipe

Rows = list[tuple[str, str, str]]

CASES = ("demo", "instruction", "questions", "answers")
STEPS, BATCH, RATE, SEED = 4, 8, 1e-4, 3


def middle(moments: list[float]) -> float:
    steps = sorted(b - a for a, b in itertools.pairwise(moments))
    return steps[len(steps) // 2]


def recipe() -> "TrainingRecipe":
    from resources.training.trainer import TrainingRecipe

    return TrainingRecipe(
        learning_rate=RATE, beta=0.1, nll_weight=1.0, reference="previous", lora_rank=16, lora_alpha=32,
        batch_size=BATCH, epochs=1, warmup_steps=0, max_length=512, batch_tokens=1024, seed=SEED, dtype="float32",
        device="cpu",
    )  # fmt: skip


def ours(case: str, group: "Group | None" = None) -> dict[str, Any]:
    return train_ours(CACHE / "policy", *pairs(case, STEPS * BATCH), recipe(), group)


def train_ours(
    model_dir: Path, system_prompt: str | None, rows: Rows, recipe: "TrainingRecipe", group: "Group | None" = None
) -> dict[str, Any]:
    """`train_adapter` on these pairs, (prompt, chosen, rejected); by the workers of a group, if there is one."""
    import polars as pl

    from resources.store.rows import collect
    from resources.training.by_workers import train_by_workers
    from resources.training.trainer import train_adapter

    moments: list[float] = []
    reference: list[float] = []

    def fill(compute: Any) -> Any:
        # The first pass of a process also warms the libraries up; it is not what is measured.
        collect(1, compute([0]))
        started = time.perf_counter()
        values = collect(len(rows), compute(list(range(len(rows)))))
        reference.append((time.perf_counter() - started) * recipe.batch_size / len(rows))
        return values

    with tempfile.TemporaryDirectory() as out:
        table = pl.DataFrame(rows, schema=["prompt", "chosen", "rejected"], orient="row")
        stamp = lambda step, total: moments.append(time.perf_counter())  # noqa: E731
        its = model_dir, None, table, system_prompt, recipe, Path(out), stamp, fill
        more = None, lambda fit: None, None, say  # no checkpoints, no anchor
        log = train_by_workers(group, *its, *more) if group else train_adapter(*its)
    step = middle(moments)
    return {"seconds": step, "with_reference": step + reference[0], "losses": log["loss"].to_list()}


def trl(case: str, checkpointing: bool = True) -> dict[str, Any]:
    return train_by_trl(CACHE / "policy", *pairs(case, STEPS * BATCH), recipe(), checkpointing)


def train_by_trl(
    model_dir: Path, system_prompt: str | None, rows: Rows, recipe: "TrainingRecipe", checkpointing: bool
) -> dict[str, Any]:
    """The same by TRL's trainer, as one would call it."""
    import polars as pl
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from resources.model.policy import load_base
    from resources.training.examples import as_conversations

    moments: list[float] = []

    class Stamp(TrainerCallback):
        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            moments.append(time.perf_counter())

    model, _ = load_base(model_dir, recipe.dtype, recipe.quantization, recipe.device, "plain")
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    table = pl.DataFrame(rows, schema=["prompt", "chosen", "rejected"], orient="row")
    with tempfile.TemporaryDirectory() as out:
        torch.manual_seed(recipe.seed)
        trainer = DPOTrainer(
            model=model,
            args=DPOConfig(
                output_dir=out, learning_rate=recipe.learning_rate, per_device_train_batch_size=recipe.batch_size,
                num_train_epochs=1, max_length=recipe.max_length, beta=recipe.beta, loss_type=["sigmoid", "sft"],
                loss_weights=[1.0, recipe.nll_weight], seed=recipe.seed, use_cpu=recipe.device == "cpu",
                bf16=recipe.dtype == "bfloat16", gradient_checkpointing=checkpointing, save_strategy="no",
                report_to=[], logging_steps=1, disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(as_conversations(table, system_prompt, tokenizer)),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=recipe.lora_rank, lora_alpha=recipe.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Stamp()],
        )  # fmt: skip
        trainer.train()
    tokens = [
        len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in trainer.train_dataset
    ]
    step = middle(moments)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": step, "with_reference": step, "losses": losses, "tokens": sum(tokens) / len(tokens)}


def trl_plain(case: str) -> dict[str, Any]:
    return trl(case, checkpointing=False)


CONTESTANTS = {"ours": ours, "trl": trl, "trl_plain": trl_plain}


def report(runs: dict[str, Any]) -> str:
    lines = [
        "| pairs | tokens | ours, s a step | reference, s | TRL | TRL, no checkpointing | faster than TRL | "
        "than without checkpointing | with the reference | peak GB: ours, TRL, no checkpointing |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case, its in runs.items():
        reference = sorted(run["with_reference"] - run["seconds"] for run in its["ours"])[len(its["ours"]) // 2]
        peaks = ", ".join(f"{max(run['peak_gb'] for run in its[name]):.1f}" for name in CONTESTANTS)
        both = [ratio(its, "ours", name, "with_reference") for name in ("trl", "trl_plain")]
        lines.append(
            f"| {case} | {its['trl'][0]['tokens']:.0f} | {spread(its['ours'], 'seconds')} | {reference:.2f} | "
            f"{spread(its['trl'], 'seconds')} | {spread(its['trl_plain'], 'seconds')} | "
            f"**{ratio(its, 'ours', 'trl'):.1f}x** | **{ratio(its, 'ours', 'trl_plain'):.1f}x** | "
            f"{both[0]:.1f}x, {both[1]:.1f}x | {peaks} |"
        )
    return "\n".join(lines)


def main() -> None:
    runs = add_cases("training", hold("benchmarks.speed.training", CONTESTANTS, sys.argv[1:] or CASES))
    gap = max(
        abs(a - b)
        for its in runs.values()
        for one, other in zip(its["ours"], its["trl_plain"], strict=True)
        for a, b in zip(one["losses"], other["losses"], strict=True)
    )
    save(
        "training",
        {"steps": STEPS, "batch": BATCH, "largest_loss_gap": gap, "runs": runs},
        ("torch", "trl", "peft", "transformers"),
    )
    print(report(runs))


if __name__ == "__main__":
    child(CONTESTANTS, sys.argv[1:]) if sys.argv[1:2] == ["run"] else main()
