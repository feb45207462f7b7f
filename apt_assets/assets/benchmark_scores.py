from apt_assets.benchmarking import score_policy
from apt_assets.engine.execute import Step
from apt_assets.engine.stages import ANSWERING, BENCHMARKS, GRADING, stage


@stage(
    inputs=[
        "adapter_checkpoint/adapter_model.safetensors",
        "adapter_checkpoint/adapter_config.json",
        "policy",
        "domain_dataset/train.parquet",
        "domain_dataset/validation.parquet",
        "domain_dataset/test.parquet",
    ],
    settings=[*ANSWERING, *GRADING, *BENCHMARKS],
    identities=["tasks"],
    libraries=["torch", "transformers", "peft", "lm-eval"],
    version="1",
    group="evaluation",
    kinds=["torch", "json"],
)
def benchmark_scores(step: Step) -> None:
    """The new adapter on the domain's validation and test rows and on the general lm-eval tasks,
    item by item. Validation decides the gate; test is reported and decides nothing.
    """
    heldout = {split: step.read("domain_dataset", split) for split in ("validation", "test")}
    golds = step.read("domain_dataset", "train")["answer"].to_list()
    score_policy(step, step.artifact("adapter_checkpoint"), heldout, golds)
