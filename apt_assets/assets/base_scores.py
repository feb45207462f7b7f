from apt_assets.benchmarking import score_policy
from apt_assets.engine.execute import Step
from apt_assets.engine.stages import ANSWERING, BENCHMARKS, GRADING, stage


@stage(
    inputs=["landed_now"],
    settings=["data.validation", "data.test", "policy.dtype", *ANSWERING, *GRADING, *BENCHMARKS],
    identities=["model", "tasks"],
    libraries=["torch", "transformers", "lm-eval"],
    version="1",
    group="evaluation",
    kinds=["torch", "json"],
    partitioned=False,
)
def base_scores(step: Step) -> None:
    """The base model, without any adapter, on the same benchmarks: what the gate compares general
    ability with. Domain rows are those of all landed files.
    """
    from apt_assets.method.domain import build_domain
    from apt_assets.method.landing import read_landed

    data, folder = step.experiment.data, step.project.landing
    rows = (row for name in step.project.landed() for row in read_landed(folder / name))
    tables = build_domain(rows, data.validation, data.test)
    heldout = {split: tables[split] for split in ("validation", "test")}
    score_policy(step, None, heldout, tables["train"]["answer"].to_list())
