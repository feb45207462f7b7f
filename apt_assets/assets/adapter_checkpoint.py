from collections.abc import Sequence
from typing import Any

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows.references import pair_keys, recipe_of, reference_rows
from resources.store.rows import Compute


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
    from resources.training.checkpoints import Checkpoints
    from resources.training.trainer import train_adapter

    settings, policy = step.settings.training, step.settings.policy
    rate = settings.learning_rate * settings.learning_rate_decay ** int(step.plan.inputs["promoted_count"])
    recipe = recipe_of(settings, policy, rate)
    pairs = step.read("preference_pairs", "training_pairs")

    def references(compute: Compute) -> Sequence[Any]:
        return step.fill(reference_rows(step), pair_keys(pairs), compute, "reference model", "pairs").values

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
