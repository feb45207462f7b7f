import json

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step


@stage(inputs=["iteration", "gate", "adapter_checkpoint"], group="promotion", kinds=["json"])
def promoted_adapter(step: Step) -> None:
    """The adapter people may serve: this iteration's, which passed the gate. After a refused gate
    nothing is promoted, and the last promoted adapter stays the one to serve.
    """
    content = {"iteration": step.iteration, "adapter": step.plan.inputs["adapter_checkpoint"]}
    (step.out / "promotion.json").write_text(json.dumps(content, indent=1))
    step.facts["adapter"] = content["adapter"]
