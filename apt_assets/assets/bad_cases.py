from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step

COLUMNS = ("row_id", "prompt", "answer", "also", "prediction", "grade", "exact")  # all are taken over


@stage(
    inputs=["eval_predictions"],
    settings=["assessor.bad_below", "pairs.max_bad_cases"],
    libraries=["polars"],
    outputs=["bad_cases.parquet"],
    lineage={name: [f"eval_predictions.{name}"] for name in COLUMNS},
    group="3_mining",
    kinds=["polars"],
)
def bad_cases(step: Step) -> None:
    """What the policy gets wrong: answers graded below the threshold (paper: below 4)."""
    from apt_assets.method.mining import near_threshold, select_bad_cases

    predictions, bad_below = step.read("eval_predictions"), step.settings.assessor.bad_below
    selected = select_bad_cases(predictions, bad_below)
    most = step.settings.pairs.max_bad_cases or selected.height
    step.write(selected.head(most))
    step.facts["rows"] = min(selected.height, most)
    step.facts["rate"] = round(selected.height / max(predictions.height, 1), 4)
    step.facts["near_threshold"] = round(near_threshold(predictions, bad_below), 4)
