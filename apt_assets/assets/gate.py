import json

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.settings.iterations import BASE


@stage(
    inputs=[
        "benchmark_scores/domain_items.parquet",
        "benchmark_scores/general_items.parquet",
        "base_scores/general_items.parquet",
        "base_scores/start.json",
        "reference_scores",
    ],
    settings=["gate"],
    libraries=["polars", "numpy"],
    outputs=["verdict.json"],
    group="6_evaluation",
    asset=False,
)
def gate(step: Step) -> None:
    """May the adapter be promoted? Domain: validation accuracy not below the promoted adapter's.
    General: not worse than what the loop starts from, the base model or the initial adapter, by more
    than a tolerance, by a paired bootstrap.
    """
    from apt_assets.method.gate import decide

    compared_with = step.producer("reference_scores")
    start = json.loads(step.artifact("base_scores", "start.json").read_text())["start"]
    verdict = decide(
        step.read("benchmark_scores", "domain_items"),
        step.read("reference_scores", "domain_items"),
        step.read("benchmark_scores", "general_items"),
        step.read("base_scores", "general_items"),
        promoted=start if compared_with == (BASE, "base_scores") else "the promoted adapter",
        start=start,
        **step.settings.gate.model_dump(),
    )
    (step.out / "verdict.json").write_text(json.dumps(verdict, indent=1))
    step.facts.update(passed=verdict["passed"], reason=verdict["reason"])
