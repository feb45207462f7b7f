import json
import shutil

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.settings.iterations import ADAPTER_PARTS
from resources.store.digest import digest_file


@stage(
    inputs=["gate/verdict.json", *(f"adapter_checkpoint/{part}" for part in ADAPTER_PARTS)],
    outputs=ADAPTER_PARTS,
    group="7_promotion",
    kinds=["huggingface"],
)
def promoted_adapter(step: Step) -> None:
    """The adapter people may serve: this iteration's, which passed the gate, at the scale at which it did. After a
    refused gate nothing is promoted, and the last promoted adapter stays the one to serve; nor is it before a person
    approves it, where the experiment asks for that (`gate.approval`): `apt-assets approve ITERATION`.
    """
    from resources.model.adapter import scale

    factor = json.loads(step.artifact("gate", "verdict.json").read_text())["scale"]
    if factor != 1:
        scale(step.artifact("adapter_checkpoint", ADAPTER_PARTS[1]).parent, factor, step.out)
    else:
        for part in ADAPTER_PARTS:
            shutil.copyfile(step.artifact("adapter_checkpoint", part), step.out / part)
    step.facts.update(adapter=digest_file(step.out / ADAPTER_PARTS[1]), scale=factor)
