from apt_assets.engine.execute import Step
from apt_assets.engine.stages import stage


@stage(
    inputs=["eval_predictions"],
    settings=["assessor.bad_below", "pairs.max_bad_cases"],
    version="1",
    group="mining",
    kinds=["polars"],
)
def bad_cases(step: Step) -> None:
    """What the policy gets wrong: answers graded below the threshold (paper: below 4)."""
    from apt_assets.method.mining import select_bad_cases

    predictions = step.read("eval_predictions")
    selected = select_bad_cases(predictions, step.experiment.assessor.bad_below)
    step.write(selected.head(step.experiment.pairs.max_bad_cases or selected.height))
    step.facts["rows"] = min(selected.height, step.experiment.pairs.max_bad_cases or selected.height)
    step.facts["rate"] = round(selected.height / max(predictions.height, 1), 4)
