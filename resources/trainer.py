"""The trainer: DPO + NLL with LoRA, by TRL's DPOTrainer.

loss = -log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)) + w * NLL(chosen)

Sources: DPO, Rafailov et al. 2023, eq. 7; the NLL term, Pang et al. 2024 (arXiv 2404.19733). Log-
ratios are against the reference model: the previous policy (TRL keeps a frozen copy of its adapter
under the name "ref") or the base model (the adapter switched off).
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resources.policy_model import messages

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class TrainingRecipe:
    """Settings of one training run; learning_rate is the peak of this very run."""

    learning_rate: float
    beta: float
    nll_weight: float
    reference: Literal["previous", "base"]
    lora_rank: int
    lora_alpha: int
    batch_size: int
    epochs: int
    warmup_steps: int
    max_length: int
    seed: int
    dtype: str
    device: str


def train_adapter(
    model_dir: Path,
    previous_adapter: Path | None,
    pairs: "pl.DataFrame",
    system_prompt: str | None,
    recipe: TrainingRecipe,
    out: Path,
    progress: Callable[[int, int], None] = lambda step, total: None,
) -> "pl.DataFrame":
    """Train on `pairs` (prompt, chosen, rejected) from `previous_adapter`, or from a fresh LoRA if None.

    Writes adapter_model.safetensors and adapter_config.json to `out` and returns the TrainingLog.
    Raises ValueError if there is no pair. `progress` gets (optimiser step, of how many).
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    if pairs.height == 0:
        raise ValueError("there is no preference pair to train on")
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, recipe.dtype), use_safetensors=True)
    # A fresh adapter starts as the identity, so its "previous policy" is the base model as well.
    lora = None
    if previous_adapter is None:
        lora = LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
    else:
        model = PeftModel.from_pretrained(model, str(previous_adapter), is_trainable=True)

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            progress(state.global_step, state.max_steps)

    arguments = DPOConfig(
        output_dir=str(out / "trainer"),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=recipe.warmup_steps,
        per_device_train_batch_size=recipe.batch_size,
        num_train_epochs=recipe.epochs,
        max_length=recipe.max_length,
        beta=recipe.beta,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, recipe.nll_weight],
        seed=recipe.seed,
        use_cpu=recipe.device == "cpu",
        bf16=recipe.dtype == "bfloat16" and recipe.device != "cpu",
        # Answers are short, so memory is not what limits; recomputing would cost a third more time.
        gradient_checkpointing=False,
        save_strategy="no",
        report_to=[],
        logging_steps=1,
        disable_tqdm=True,
    )
    torch.manual_seed(recipe.seed)
    trainer = DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(as_conversations(pairs, system_prompt, tokenizer)),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[Report()],
    )
    # It prints every logged step as a dict; the training log has them as a table.
    trainer.remove_callback(PrinterCallback)
    if recipe.reference == "base":
        drop_previous_policy(trainer)
    with completion_positions_only():
        trainer.train()
    # Not trainer.save_model: that also writes training_args.bin, which is a pickle.
    trainer.model.save_pretrained(out, selected_adapters=["default"])
    (out / "README.md").unlink(missing_ok=True)
    forget_base_path(out / "adapter_config.json")
    return training_log(trainer.state.log_history)


def as_conversations(pairs: "pl.DataFrame", system_prompt: str | None, tokenizer: Any) -> list[dict[str, Any]]:
    """TRL's explicit-prompt preference format: conversational, or plain text without a template."""
    rows = pairs.select("prompt", "chosen", "rejected").iter_rows(named=True)
    if tokenizer.chat_template is None:
        lead = f"{system_prompt}\n" if system_prompt else ""
        return [{"prompt": f"{lead}{r['prompt']}\n", "chosen": r["chosen"], "rejected": r["rejected"]} for r in rows]
    return [
        {
            "prompt": messages(r["prompt"], system_prompt),
            "chosen": [{"role": "assistant", "content": r["chosen"]}],
            "rejected": [{"role": "assistant", "content": r["rejected"]}],
        }
        for r in rows
    ]


def drop_previous_policy(trainer: Any) -> None:
    """Make the base model the reference although training continues an adapter.

    TRL takes the frozen copy "ref" if there is one, else switches the adapter off (= base model).
    """
    if "ref" in trainer.model.peft_config:
        trainer.model.delete_adapter("ref")


@contextlib.contextmanager
def completion_positions_only() -> Iterator[None]:
    """Let TRL's fused head score completion tokens only, also on a CPU.

    TRL 1.16 does so on GPUs (`compact` in trl.trainer.utils) and scores every position elsewhere,
    for the sake of compilers that need fixed shapes. On a CPU the head is then most of a step: with
    prompts of 50 tokens and answers of 3 a step took 6.5 s, and 3.8 s with this. The masked
    positions contribute zero either way; tests/test_trainer.py holds the two to the same losses.
    Raises AttributeError if TRL no longer has the switch.
    """
    from trl.trainer import utils

    original = utils._use_triton
    utils._use_triton = lambda device: True
    try:
        yield
    finally:
        utils._use_triton = original


def forget_base_path(config: Path) -> None:
    """Take the base model's path out of an adapter's configuration: a path is not content."""
    content = json.loads(config.read_text(encoding="utf-8"))
    # peft writes a set in hash order, which differs from process to process.
    content = {key: sorted(value) if isinstance(value, list) else value for key, value in content.items()}
    config.write_text(json.dumps({**content, "base_model_name_or_path": None}, indent=1, sort_keys=True))


def training_log(history: list[dict[str, float]]) -> "pl.DataFrame":
    import polars as pl

    from schemas.tables import TrainingLog

    columns = {
        "step": "step",
        "loss": "loss",
        "margin": "rewards/margins",
        "reward_accuracy": "rewards/accuracies",
        "grad_norm": "grad_norm",
        "learning_rate": "learning_rate",
    }
    steps = [{name: entry[key] for name, key in columns.items()} for entry in history if "loss" in entry]
    return pl.DataFrame(steps, schema=TrainingLog.empty().schema)
