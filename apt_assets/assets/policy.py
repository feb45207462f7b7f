import json

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step


@stage(
    inputs=["previous_adapter"],
    settings=["policy.dtype"],
    identities=["base_model"],
    group="policy",
    kinds=["huggingface", "json"],
)
def policy(step: Step) -> None:
    """M_t: which model answers in this iteration. The base model and the adapter it carries, both by
    content: the adapter of the last promoted iteration, or else the initial one, or none.
    """
    content = {
        "base_model": step.identity("base_model"),
        "adapter": step.plan.inputs["previous_adapter"],
        "dtype": step.settings.policy.dtype,
    }
    (step.out / "policy.json").write_text(json.dumps(content, indent=1))
