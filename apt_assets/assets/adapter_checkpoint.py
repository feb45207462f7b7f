from apt_assets.engine.execute import Step
from apt_assets.engine.stages import stage


@stage(
    inputs=["preference_pairs", "policy"],
    settings=[
        "training",
        "policy.system_prompt",
        "policy.device",
    ],
    libraries=["torch", "transformers", "peft", "trl"],
    version="1",
    group="training",
    kinds=["torch", "huggingface"],
)
def adapter_checkpoint(step: Step) -> None:
    """The LoRA adapter after preference training (DPO + NLL) on this iteration's pairs, continued
    from the previous adapter. Safetensors only.
    """
    from resources.trainer import TrainingRecipe, train_adapter

    settings = step.experiment.training
    rate = settings.learning_rate * settings.learning_rate_decay ** step.planner.promoted_count(step.iteration)
    recipe = TrainingRecipe(
        **settings.model_dump(exclude={"learning_rate", "learning_rate_decay"}),
        learning_rate=rate,
        dtype=step.experiment.policy.dtype,
        device=step.experiment.policy.device,
    )
    log = train_adapter(
        step.project.model,
        step.previous_adapter(),
        step.read("preference_pairs"),
        step.experiment.policy.system_prompt,
        recipe,
        step.out,
        step.progress("training", 0, "steps"),
    )
    step.write(log, "training_log")
    step.facts.update(steps=log.height, learning_rate=rate, last_loss=round(log["loss"][-1], 4))
