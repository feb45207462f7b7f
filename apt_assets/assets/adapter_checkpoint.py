from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apt_assets.answering import policy_context
from apt_assets.engine.stages import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from resources.digest import digest_json
from resources.row_store import Compute, RowTable

if TYPE_CHECKING:
    import polars as pl

    from resources.trainer import TrainingRecipe


def reference_rows(view: View) -> RowTable:
    """Log-probabilities of chosen and rejected answers under the reference model, by pair."""
    settings = view.settings.training
    context = {
        **policy_context(view, view.previous_adapter() if settings.reference == "previous" else None),
        "trl": view.stage.library_versions(("trl",)),
        "system_prompt": view.settings.policy.system_prompt,
        "batch_tokens": view.settings.policy.batch_tokens,
        "max_length": settings.max_length,
        "code": view.code("resources.trainer:make_trainer", "resources.trainer:reference_log_probs"),
    }
    return view.row_table("references", context)


def recipe_of(training: Any, policy: Any, learning_rate: float) -> "TrainingRecipe":
    """The recipe of these sections of an experiment, or of a stage's view of them, at this peak learning rate."""
    from resources.trainer import TrainingRecipe

    return TrainingRecipe(
        **training.model_dump(exclude={"learning_rate", "learning_rate_decay"}),
        learning_rate=learning_rate,
        batch_tokens=policy.batch_tokens,
        dtype=policy.dtype,
        quantization=policy.quantization,
        device=policy.device,
    )


def pair_keys(pairs: "pl.DataFrame") -> list[str]:
    return [digest_json(list(row))[:32] for row in pairs.select("prompt", "chosen", "rejected").iter_rows()]


def work(view: View) -> dict[str, int]:
    settings, pairs = view.settings.training, view.read("preference_pairs", "training_pairs")
    steps = {"steps": -(-pairs.height // settings.batch_size) * settings.epochs}
    if settings.objective == "sft":
        return steps
    return {"references": reference_rows(view).missing(pair_keys(pairs)), **steps}


@stage(
    inputs=["preference_pairs/training_pairs.parquet", "policy", "promoted_count"],
    settings=[
        "training",
        "policy.system_prompt",
        "policy.dtype",
        "policy.quantization",
        "policy.device",
        "policy.batch_tokens",
    ],
    libraries=["torch", "transformers", "peft", "trl"],
    work=work,
    group="training",
    kinds=["torch", "huggingface"],
)
def adapter_checkpoint(step: Step) -> None:
    """The LoRA adapter after training on this iteration's pairs (DPO + NLL, or plain fine-tuning: see
    `training.objective`), continued from the previous adapter. Safetensors only.
    """
    from resources.checkpoints import Checkpoints
    from resources.trainer import train_adapter

    settings, policy = step.settings.training, step.settings.policy
    rate = settings.learning_rate * settings.learning_rate_decay ** int(step.plan.inputs["promoted_count"])
    recipe = recipe_of(settings, policy, rate)
    pairs = step.read("preference_pairs", "training_pairs")

    def references(compute: Compute) -> Sequence[Any]:
        return step.fill(reference_rows(step), pair_keys(pairs), compute, ("reference model", "pairs")).values

    previous = step.previous_adapter()
    log = train_adapter(
        step.base_model(),
        None if previous is None else previous.folder,
        pairs,
        policy.system_prompt,
        recipe,
        step.out,
        step.progress("training", 0, "steps"),
        references,
        Checkpoints(step.unfinished, step.check),
    )
    step.write(log, "training_log")
    step.work["steps"] = log.height
    step.facts.update(steps=log.height, learning_rate=rate, last_loss=round(log["loss"][-1], 4))
