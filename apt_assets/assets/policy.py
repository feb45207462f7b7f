import json

from apt_assets.engine.execute import Step
from apt_assets.engine.stages import stage


@stage(
    inputs=["previous_adapter"],
    settings=["policy.dtype"],
    identities=["model"],
    version="1",
    group="policy",
    kinds=["huggingface", "json"],
)
def policy(step: Step) -> None:
    """M_t: which model answers in this iteration. The base model by content digest, and the adapter
    it carries by data version: that of the last promoted iteration, or none.
    """
    content = {
        "model": step.project.identity("model"),
        "adapter": step.plan.inputs["previous_adapter"],
        # The learning rate decays along the chain, so its length is part of what the policy is.
        "promoted": step.planner.promoted_count(step.iteration),
        "dtype": step.experiment.policy.dtype,
    }
    (step.out / "policy.json").write_text(json.dumps(content, indent=1))
    step.facts["starts_from"] = step.planner.promoted_before(step.iteration) or "the base model"
