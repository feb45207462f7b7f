from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows import anchors
from apt_assets.settings.experiment import UsageError


def work(view: View) -> dict[str, int]:
    settings = view.settings.anchor
    if settings.folder is not None:
        return {}
    keys = anchors.written_keys(anchors.origins(settings.texts, settings.chat_share))
    return {"anchors": anchors.written_rows(view).missing(keys)}


def measured_by(view: View) -> list[str]:
    """What a policy is measured by: held-out questions with their answers, and items of the general benchmark."""
    rows = [view.read("heldout_rows", split) for split in ("validation", "test")]
    held_out = [f"{prompt} {answer}" for table in rows for prompt, answer in table.select("prompt", "answer").rows()]
    tasks = view.outside("benchmark_tasks").load(view.settings.benchmarks.tasks)
    return held_out + [text for task in tasks for text in task.texts()]


@stage(
    inputs=["heldout_rows"],
    rows=anchors.KINDS,
    settings=["anchor.form", "anchor.texts", "anchor.chat_share", "anchor.folder", "benchmarks.tasks"],
    identities=["base_model", "execution", "initial_adapter", "anchor_folder", "benchmark_tasks"],
    libraries=["polars"],
    outputs=["anchor_texts.parquet", "anchor_left_out.parquet", "likely.safetensors"],
    work=work,
    group="5_training",
    kinds=["torch", "polars"],
    partitioned=False,
)
def anchor_texts(step: Step) -> None:
    """What the model that the loop starts from says when nobody asks it anything: training holds the policy to it
    (`anchor`), so that it forgets nothing. Or general text of your own. Texts that hold something of a held-out row or
    of a general item are left out.
    """
    from resources.model.own_texts import UnreadableText

    settings = step.settings.anchor
    try:
        texts = anchors.own_texts(step) if settings.folder is not None else anchors.written_texts(step)
    except UnreadableText as error:
        raise UsageError(f"anchor.folder: {error}") from None
    kept, left_out = anchors.screened(texts, measured_by(step) if texts else [])
    if texts and not kept:
        raise UsageError("anchor: every text holds something of a held-out row or a general item: name others")
    step.write(anchors.as_table(kept))
    step.write(left_out, "anchor_left_out")
    anchors.save_likely(step, kept if settings.form == "kl" else [])
    step.facts.update(texts=len(kept), left_out=left_out.height)
