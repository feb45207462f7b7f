from apt_assets.engine.stages import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View


def work(view: View) -> dict[str, int]:
    settings, rows = view.settings.training, view.read("preference_pairs", "training_pairs").height
    return {"steps": -(-rows // settings.batch_size) * settings.epochs}


@stage(
    inputs=["preference_pairs/training_pairs.parquet", "policy", "promoted_count"],
    settings=["training", "policy.system_prompt", "policy.dtype", "policy.device"],
    libraries=["torch", "transformers", "peft", "trl"],
    work=work,
    group="training",
    kinds=["torch", "huggingface"],
)
def adapter_checkpoint(step: Step) -> None:
    """The LoRA adapter after preference training (DPO + NLL) on this iteration's pairs, continued
    from the previous adapter. Safetensors only.
    """
    from resources.trainer import TrainingRecipe, train_adapter

    settings, policy = step.settings.training, step.settings.policy
    rate = settings.learning_rate * settings.learning_rate_decay ** int(step.plan.inputs["promoted_count"])
    recipe = TrainingRecipe(
        **settings.model_dump(exclude={"learning_rate", "learning_rate_decay"}),
        learning_rate=rate,
        dtype=policy.dtype,
        device=policy.device,
    )
    previous = step.previous_adapter()
    log = train_adapter(
        step.base_model(),
        None if previous is None else previous.folder,
        step.read("preference_pairs", "training_pairs"),
        policy.system_prompt,
        recipe,
        step.out,
        step.progress("training", 0, "steps"),
    )
    step.write(log, "training_log")
    step.work["steps"] = log.height
    step.facts.update(steps=log.height, learning_rate=rate, last_loss=round(log["loss"][-1], 4))
