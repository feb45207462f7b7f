from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.settings.experiment import UsageError


def measured_by(view: View) -> list[str]:
    """What the policy is measured by: held-out questions with their answers, and the data of the general tasks."""
    from resources.model.lm_eval_tasks import texts_of

    rows = [view.read("domain_dataset", split) for split in ("validation", "test")]
    held_out = [f"{prompt} {answer}" for table in rows for prompt, answer in table.select("prompt", "answer").rows()]
    tasks = view.outside("benchmark_tasks").load(view.settings.benchmarks.tasks)
    return held_out + [text for task in tasks for text in texts_of(task)]


@stage(
    inputs=["anchor_texts/anchor_texts.parquet", "domain_dataset/validation.parquet", "domain_dataset/test.parquet"],
    settings=["benchmarks.tasks"],
    identities=["benchmark_tasks"],
    libraries=["polars"],
    outputs=["screened_texts.parquet", "texts_left_out.parquet"],
    group="5_training",
    kinds=["polars"],
)
def screened_texts(step: Step) -> None:
    """The anchor texts that this iteration is held to: those that hold nothing of a held-out row or of a general item,
    by their place among anchor_texts; with what the others hold.
    """
    import polars as pl

    from apt_assets.method.screening import held
    from schemas.tables import ScreenedTexts, TextsLeftOut

    texts = step.read("anchor_texts")
    found = held(texts["text"].to_list(), measured_by(step) if texts.height else [])
    kept = pl.DataFrame({"place": [place for place in range(texts.height) if place not in found]})
    if texts.height and kept.is_empty():
        raise UsageError("anchor: every text holds something of a held-out row or a general item; raise anchor.texts")
    rows = [(place, texts["origin"][place], texts["text"][place], run) for place, run in found.items()]
    step.write(kept.cast(ScreenedTexts.empty().schema))
    step.write(pl.DataFrame(rows, schema=TextsLeftOut.empty().schema, orient="row"), "texts_left_out")
    step.facts.update(texts=kept.height, left_out=len(rows))
