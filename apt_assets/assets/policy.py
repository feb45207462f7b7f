import json
import shutil

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.rows.policy import adapter_of, initial_adapter
from apt_assets.settings.iterations import ADAPTER_PARTS


@stage(
    inputs=["previous_adapter", "promoted_count"],
    settings=["policy.dtype"],
    identities=["base_model", "execution"],
    passes_on=["base_model", "execution"],
    outputs=["policy.json", *ADAPTER_PARTS],
    group="2_policy",
    kinds=["huggingface", "json"],
)
def policy(step: Step) -> None:
    """M_t: which model answers in this iteration. The base model by content, and the adapter that it carries: that of
    the last promoted iteration, or else the initial one, or none. What is below reads the adapter here.
    """
    promoted = step.producer("previous_adapter") is not None
    adapter = adapter_of(step, "previous_adapter") if promoted else initial_adapter(step)
    if adapter is not None:
        for part in ADAPTER_PARTS:
            shutil.copyfile(adapter.folder / part, step.out / part)
    content = {
        "base_model": step.identity("base_model"),
        "execution": step.identity("execution"),
        "adapter": step.plan.inputs["previous_adapter"],
        "promotions": int(step.plan.inputs["promoted_count"]),
        "dtype": step.settings.policy.dtype,
    }
    (step.out / "policy.json").write_text(json.dumps(content, indent=1))
