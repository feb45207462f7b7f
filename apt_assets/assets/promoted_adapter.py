import shutil

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.settings.iterations import ADAPTER_PARTS


@stage(
    inputs=["gate", *(f"adapter_checkpoint/{part}" for part in ADAPTER_PARTS)],
    outputs=ADAPTER_PARTS,
    group="7_promotion",
    kinds=["huggingface"],
)
def promoted_adapter(step: Step) -> None:
    """The adapter people may serve: this iteration's, which passed the gate. After a refused gate
    nothing is promoted, and the last promoted adapter stays the one to serve.
    """
    for part in ADAPTER_PARTS:
        shutil.copyfile(step.artifact("adapter_checkpoint", part), step.out / part)
    step.facts["adapter"] = step.files("adapter_checkpoint")[ADAPTER_PARTS[1]]
