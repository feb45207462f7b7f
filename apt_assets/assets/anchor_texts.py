from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows import anchors
from apt_assets.settings.experiment import UsageError


def work(view: View) -> dict[str, int]:
    settings = view.settings.anchor
    if settings.folder is not None:
        return {}
    return {"anchors": anchors.missing(view, anchors.origins(settings.texts, settings.chat_share))}


@stage(
    inputs=[],
    rows=anchors.KINDS,
    settings=["anchor.form", "anchor.texts", "anchor.chat_share", "anchor.folder"],
    identities=["base_model", "execution", "initial_adapter", "anchor_folder"],
    libraries=["polars"],
    outputs=["anchor_texts.parquet", "likely.safetensors"],
    work=work,
    memory=["anchors", "scores"],
    group="5_training",
    kinds=["torch", "polars"],
    partitioned=False,
)
def anchor_texts(step: Step) -> None:
    """What the model that the loop starts from says when nobody asks it anything, and what it expects in each place of
    it: training holds the policy to that (`anchor`), so that it forgets nothing. Or general text of your own.
    """
    from resources.model.own_texts import UnreadableText

    settings = step.settings.anchor
    try:
        texts = anchors.own_texts(step) if settings.folder is not None else anchors.written_texts(step)
    except UnreadableText as error:
        raise UsageError(f"anchor.folder: {error}") from None
    step.write(anchors.as_table(texts))
    anchors.save_likely(step, texts if settings.form == "kl" else [])
    step.facts["texts"] = len(texts)
