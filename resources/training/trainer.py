"""The trainer: DPO + NLL, or plain fine-tuning (SFT), with LoRA, by TRL's DPOTrainer.

dpo: loss = -log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)) + w * NLL(chosen)
sft: loss = NLL(chosen)

Pairs may count less than others (resources/training/weights.py). The NLL is a mean over the tokens of a
batch's chosen answers, in nats, as in TRL's SFTTrainer. A log-ratio is a sum over an answer's tokens, or with
sigmoid_norm their mean. It is against the reference model: the previous policy, which is the adapter as it was
before the first step, or the base model. Its log-probabilities are computed once, before training; sft needs
none.

Sources: DPO, Rafailov et al. 2023, eq. 7; length-normalised, Lambert et al. 2024 (arXiv 2411.15124); the NLL
term, Pang et al. 2024 (arXiv 2404.19733).
"""

import contextlib
import gc
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.model.capabilities import unsuited_layers
from resources.model.held import BaseModel, take_base
from resources.model.no_room import Tell, set_tell
from resources.model.packing import set_shape_free
from resources.model.policy import Policy, beginning
from resources.model.scoring import Question, score_answers
from resources.store.rows import Batches, Compute, collect, renumber
from resources.training.anchor import Anchor, add_anchor
from resources.training.checkpoints import Checkpoints
from resources.training.examples import Fit, fit_of, tokenise_pairs
from resources.training.own_logits import score_by_logits
from resources.training.parts import Parts
from resources.training.recipe import TrainingRecipe
from resources.training.room import in_parts
from resources.training.shared_prompts import Along, completion_positions_only, give_reference, share_prompts
from resources.training.together import ALONE, Together, share_weights_out
from resources.training.weights import weigh_pairs

if TYPE_CHECKING:
    import polars as pl


class Diverged(ArithmeticError):
    """A loss or a gradient that is no finite number; the message says what to change."""


# Gets a computation of pairs; returns the value of every pair.
Fill = Callable[[Compute], Sequence[Any]]


def train_adapter(
    model_dir: Path,
    previous_adapter: Path | None,
    pairs: "pl.DataFrame",
    system_prompt: str | None,
    recipe: TrainingRecipe,
    out: Path,
    progress: Callable[[int, int], None] = lambda step, total: None,
    fill_reference: Fill | None = None,
    checkpoints: Checkpoints | None = None,
    fitted: Callable[[Fit], None] = lambda fit: None,
    anchor: Anchor | None = None,
    tell: Tell = lambda line: None,
    together: Together = ALONE,
) -> "pl.DataFrame":
    """Train on `pairs` (prompt, chosen, rejected) from `previous_adapter`, or from a fresh LoRA if None. A column
    `weight`, 0 to 1, says how much each counts (resources/training/weights.py); without it all count alike.

    Writes adapter_model.safetensors and adapter_config.json to `out` and returns the TrainingLog.
    Raises ValueError if there is no pair, or none with a prompt shorter than `max_length` tokens, and Diverged.
    `progress` gets (optimiser step, of how many). `fill_reference` may know log-probabilities of the
    reference model, [chosen, rejected] in nats for each pair; it is asked for all of them, under sft for
    none. `checkpoints`: where it keeps how far it is, and goes on from. `fitted` gets what of the pairs is trained,
    before anything is. `anchor`: what is added to the loss (resources/training/anchor.py); None: nothing. `tell` gets a
    line for people when a pass does not fit into memory and is split. Raises TooLittleMemory if it cannot be.
    `together`: the processes that do this with the same arguments, each with a folder and checkpoints of its own, and
    what they say is the same; resources/training/by_workers.py starts them.
    """
    from resources.training.fused_lora import fuse_lora

    trainer, known = with_references(
        model_dir, previous_adapter, pairs, system_prompt, recipe, out, progress, fill_reference, fitted, tell
    )
    known = [known[row] for row in trainer.train_dataset["row"]]
    give_reference(trainer, [chosen for chosen, _ in known], [rejected for _, rejected in known])
    along = Along() if recipe.path == "packed" else None
    if along is not None:
        fuse_lora(trainer.model)
        share_prompts(trainer.model.get_base_model().base_model, along)
    else:
        score_by_logits(trainer.model.get_base_model())
    if "weight" in pairs.columns:
        weigh_pairs(trainer, pairs["weight"].gather(trainer.train_dataset["row"]).to_list())
    parts = in_parts(trainer, model_dir, recipe, anchor, tell, together)
    if anchor is not None:
        add_anchor(trainer, anchor, along, parts)
    if together.in_step:
        share_weights_out(trainer.model.get_base_model())
    with completion_positions_only(), only_new_garbage():
        trainer.train(resume_from_checkpoint=checkpoints and keep_checkpoints(trainer, checkpoints, parts))
    # Not trainer.save_model: that also writes training_args.bin, which is a pickle.
    trainer.model.save_pretrained(out, selected_adapters=["default"])
    (out / "README.md").unlink(missing_ok=True)
    shutil.rmtree(out / "trainer")  # its output_dir, in which it keeps nothing
    forget_base_path(out / "adapter_config.json")
    return training_log(trainer.state.log_history, recipe.objective)


@contextlib.contextmanager
def only_new_garbage() -> Iterator[None]:
    """Let looks for garbage pass over what is there already, after one that does not: with the libraries in memory each
    of them takes a second, and Trainer makes some."""
    gc.collect()  # an encoder, say: training has the memory
    frozen = gc.get_freeze_count() > 0  # by somebody else, whose it stays
    if not frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


def with_references(
    model_dir: Path,
    previous_adapter: Path | None,
    pairs: "pl.DataFrame",
    system_prompt: str | None,
    recipe: TrainingRecipe,
    out: Path,
    progress: Callable[[int, int], None],
    fill_reference: Fill | None,
    fitted: Callable[[Fit], None],
    tell: Tell,
) -> tuple[Any, Sequence[Any]]:
    """(`make_trainer`'s, log-probabilities of the reference model of every pair); arguments as train_adapter's."""
    trainer = make_trainer(model_dir, previous_adapter, pairs, system_prompt, recipe, out, progress)
    set_tell(trainer.model, tell)
    fitted(fit_of(trainer.train_dataset, pairs.height, recipe.max_length))
    if recipe.objective == "sft":
        return trainer, [[0.0, 0.0]] * pairs.height  # TRL computes log-ratios all the same
    compute = partial(reference_log_probs, trainer, system_prompt, recipe)
    if fill_reference is not None:
        return trainer, fill_reference(compute)
    return trainer, collect(pairs.height, compute(list(range(pairs.height))))


def make_trainer(
    model_dir: Path,
    previous_adapter: Path | None,
    pairs: "pl.DataFrame",
    system_prompt: str | None,
    recipe: TrainingRecipe,
    out: Path,
    progress: Callable[[int, int], None],
) -> Any:
    """TRL's DPOTrainer for this recipe; its training set keeps each pair's position as `row`."""
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PrinterCallback, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    if pairs.height == 0:
        raise ValueError("there is no preference pair to train on")
    sft = recipe.objective == "sft"
    model, tokenizer = take_base(BaseModel(model_dir, recipe.dtype, recipe.quantization, recipe.device, recipe.path))
    # A fresh adapter starts as the identity, so its "previous policy" is the base model as well.
    lora = None
    if previous_adapter is None:
        lora = LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=recipe.lora_alpha,
            target_modules=recipe.lora_targets,
            exclude_modules=unsuited_layers(model) if recipe.lora_targets == "all-linear" else None,
            task_type="CAUSAL_LM",
        )
    else:
        model = PeftModel.from_pretrained(model, str(previous_adapter), is_trainable=True)
        # peft would ask the hub for the model that an adapter names, to see whether its vocabulary was another one.
        model.peft_config["default"].base_model_name_or_path = None

    class Pretokenised(DPOTrainer):
        """TRL's trainer, which would tokenise texts itself."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            progress(state.global_step, state.max_steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            # In float16 a step whose gradient is too large is left out, and the scale of the loss lowered.
            looked_at = ("loss",) if args.fp16 else ("loss", "grad_norm")
            if not all(math.isfinite(logs.get(name, 0.0)) for name in looked_at):
                raise Diverged(
                    f"training diverged at step {state.global_step} of {state.max_steps}: loss or gradient is not "
                    f"finite; lower training.learning_rate (this iteration's is {recipe.learning_rate:g})"
                )

    forget_launcher()
    arguments = DPOConfig(
        output_dir=str(out / "trainer"),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=recipe.warmup_steps,
        per_device_train_batch_size=recipe.batch_size,
        num_train_epochs=recipe.epochs,
        max_length=recipe.max_length,
        beta=recipe.beta,
        loss_type=["sft"] if sft else [recipe.loss, "sft"],
        loss_weights=[1.0] if sft else [1.0, recipe.nll_weight],
        seed=recipe.seed,
        use_cpu=recipe.device == "cpu",
        bf16=recipe.dtype == "bfloat16" and recipe.device != "cpu",
        fp16=recipe.dtype == "float16",
        # Of a mixture of experts. Its load-balancing loss is of a batch and not of a pair, so that 1 x 8 would not be
        # 8 x 1; LoRA leaves the experts themselves as they are.
        router_aux_loss_coef=0.0,
        gradient_checkpointing=False,  # see in_parts, where it is known what a step needs
        remove_unused_columns=False,  # of the training set, whose weights are read
        save_strategy="no",
        report_to=[],
        logging_steps=1,
        logging_nan_inf_filter=False,  # see Report
        disable_tqdm=True,
    )
    torch.manual_seed(recipe.seed)
    asked = Policy(model, tokenizer, system_prompt)
    trainer = Pretokenised(
        model=model,
        args=arguments,
        train_dataset=tokenise_pairs(asked, pairs, recipe.max_length, with_rejected=not sft),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[Report()],
    )
    without_dropout(trainer.model)
    if recipe.shape_free is not None:
        set_shape_free(trainer.model, recipe.shape_free)
    # It prints every logged step as a dict; the training log has them as a table.
    trainer.remove_callback(PrinterCallback)
    # TRL's frozen copy of the previous adapter: what it would say is computed before training.
    if "ref" in trainer.model.peft_config:
        trainer.model.delete_adapter("ref")
    return trainer


def forget_launcher() -> None:
    """Take what `accelerate launch` tells a script out of the environment: a precision, say, which is the recipe's to
    say, and which Trainer would take."""
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]


def without_dropout(model: Any) -> None:
    """Let a model compute in training as it does otherwise. TRL does so for layers of dropout; many models (OPT, BART)
    have it as a function of a number of theirs."""
    for it in (*model.modules(), model.config, model.config.get_text_config()):
        numbers = [name for name, value in vars(it).items() if isinstance(value, float) and "drop" in name]
        vars(it).update(dict.fromkeys(numbers, 0.0))


def keep_checkpoints(trainer: Any, checkpoints: Checkpoints, parts: Parts) -> str | None:
    """Keep a checkpoint now and then; returns the one to go on from, if there is one."""
    from transformers import TrainerCallback

    class Keep(TrainerCallback):
        # A step is logged after its end; its checkpoint has to know that.
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                checkpoints.after_step(trainer, parts)

    trainer.add_callback(Keep())
    return checkpoints.resume(trainer, parts)


def reference_log_probs(
    trainer: Any, system_prompt: str | None, recipe: TrainingRecipe, missing: Sequence[int]
) -> Batches[list[float]]:
    """[log p(chosen), log p(rejected)] in nats under the reference model, of the pairs at the given positions, pass by
    pass; [0, 0] for a pair that is left out. Good before the first step."""
    kept = {example["row"]: example for example in trainer.train_dataset}
    asked = [row for row in missing if row in kept]
    if cut := sorted(set(missing) - set(asked)):
        yield cut, [[0.0, 0.0]] * len(cut)
    base = trainer.model.disable_adapter() if recipe.reference == "base" else contextlib.nullcontext()
    with base:
        scored = score_answers(
            trainer.model,
            [as_question(kept[row], recipe.max_length) for row in asked],
            batch_tokens=recipe.batch_tokens,
            prefix=beginning(Policy(trainer.model, trainer.processing_class, system_prompt)),
        )
        for rows, scores in renumber(scored, asked):
            yield rows, [[log_prob for log_prob, _ in pair] for pair in scores]


def as_question(example: dict[str, Any], max_length: int) -> Question:
    """A pair's token ids, cut at the end as TRL's collator cuts them."""
    room = max_length - len(example["prompt_ids"])
    return Question(example["prompt_ids"], (example["chosen_ids"][:room], example["rejected_ids"][:room]))


def forget_base_path(config: Path) -> None:
    """Take the base model's path out of an adapter's configuration: a path is not content."""
    content = json.loads(config.read_text(encoding="utf-8"))
    # peft writes a set in hash order, which differs from process to process.
    content = {key: sorted(value) if isinstance(value, list) else value for key, value in content.items()}
    config.write_text(json.dumps({**content, "base_model_name_or_path": None}, indent=1, sort_keys=True))


def training_log(history: list[dict[str, float]], objective: str) -> "pl.DataFrame":
    import polars as pl

    from schemas.tables import TrainingLog

    columns = {
        "step": "step",
        "loss": "loss",
        "margin": "rewards/margins",
        "reward_accuracy": "rewards/accuracies",
        "grad_norm": "grad_norm",
        "learning_rate": "learning_rate",
        "anchor": "anchor",
    }
    if objective == "sft":
        # TRL logs rewards, of answers that were left out.
        columns = {name: key for name, key in columns.items() if not key.startswith("rewards/")}
    steps = [{name: entry.get(key) for name, key in columns.items()} for entry in history if "loss" in entry]
    return pl.DataFrame(steps, schema=TrainingLog.empty().schema)
