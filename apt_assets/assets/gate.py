import json

from apt_assets.engine.execute import Step
from apt_assets.engine.stages import BASE, stage


@stage(
    inputs=[
        "benchmark_scores/domain_items.parquet",
        "benchmark_scores/general_items.parquet",
        "base_scores/domain_items.parquet",
        "base_scores/general_items.parquet",
        "promoted_scores",
    ],
    settings=["gate"],
    version="1",
    group="evaluation",
)
def gate(step: Step) -> None:
    """May the adapter be promoted? Domain: validation accuracy not below the promoted adapter's.
    General: not worse than the base model by more than a tolerance, by a paired bootstrap.
    """
    from apt_assets.method.gate import decide

    promoted = step.planner.promoted_before(step.iteration)
    stage_name, where = ("benchmark_scores", promoted) if promoted else ("base_scores", BASE)
    verdict = decide(
        step.read("benchmark_scores", "domain_items"),
        step.read(stage_name, "domain_items", iteration=where),
        step.read("benchmark_scores", "general_items"),
        step.read("base_scores", "general_items"),
        promoted=f"the promoted adapter of {promoted}" if promoted else "the base model",
        **step.experiment.gate.model_dump(),
    )
    (step.out / "verdict.json").write_text(json.dumps(verdict, indent=1))
    step.facts.update(passed=verdict["passed"], reason=verdict["reason"])
