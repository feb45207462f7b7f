import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from apt_assets.drawing import plots
from apt_assets.engine.nodes import check_of
from apt_assets.engine.spread import connect, wants_of
from apt_assets.engine.stage import Look, Plot, stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows.policy import adapter_of
from apt_assets.rows.references import (
    REFERENCES,
    pair_keys,
    recipe_of,
    reference_adapter,
    reference_rows,
    references_of,
)
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import ADAPTER_PARTS
from resources.store.rows import Compute
from resources.workers import WorkerLost

if TYPE_CHECKING:
    import polars as pl

    from resources.training.anchor import Anchor
    from resources.training.examples import Fit

FROM_PAIRS = [f"preference_pairs.{column}" for column in ("prompt", "chosen", "rejected", "weight")]


def work(view: View) -> dict[str, int]:
    """At most: which pairs are too long for `training.max_length` is known once they are tokenised."""
    settings, pairs = view.settings.training, view.read("preference_pairs", "training_pairs")
    steps = {"steps": -(-pairs.height // settings.batch_size) * settings.epochs}
    if settings.objective == "sft":
        return steps
    return {"references": reference_rows(view).missing(pair_keys(pairs)), **steps}


def in_words(fit: "Fit", pairs: int, max_length: int) -> str:
    """What of the pairs is not trained whole."""
    left_out = f"{fit.left_out} of {pairs} pairs are left out, since their prompts alone are that long"
    cut = f"{fit.cut} pairs are cut there, so that how their answers end is not trained"
    parts = [part for count, part in ((fit.left_out, left_out), (fit.cut, cut)) if count]
    return f"training.max_length = {max_length} tokens: {'; '.join(parts)}"


def anchor_of(view: View, seed: int) -> "Anchor | None":
    """The anchor of a training, of the screened ones of anchor_texts; None: there is none."""
    from safetensors.torch import load_file

    from resources.training.anchor import Anchor, AnchorText

    settings, kept = view.settings.anchor, view.read("screened_texts")["place"].to_list()
    if not kept:
        return None
    rows = view.read("anchor_texts").select("ids", "given").rows()
    texts = [AnchorText(ids, given) for ids, given in rows]
    if settings.form == "kl":
        likely = load_file(view.artifact("anchor_texts", "likely.safetensors"))
        places = [text.said for text in texts]
        each = zip(texts, likely["tokens"].split(places), likely["log_probs"].split(places), strict=True)
        texts = [replace(text, likely=tokens, log_probs=log_probs) for text, tokens, log_probs in each]
    chosen = [texts[place] for place in kept]
    return Anchor(chosen, settings.weight, settings.form, settings.texts_per_step, seed)


def by_workers(step: Step, *arguments: Any) -> "pl.DataFrame":
    """What train_adapter makes of these arguments, by several workers. Raises UsageError if they cannot go on."""
    from resources.training.by_workers import Group, train_by_workers

    settings, compute = step.settings.training, step.settings.compute
    connect(compute.address if compute.engine == "ray" else None, "training.workers")
    wants = wants_of(step.settings.policy.device, step.settings.policy.threads or 1)
    admit = check_of(step.scope(REFERENCES, adapter=reference_adapter(step)))
    try:
        return train_by_workers(Group(settings.workers, settings.strategy, wants, admit), *arguments)
    except WorkerLost as error:
        raise UsageError(str(error)) from error


def curves(look: Look) -> dict[str, Any]:
    return {key: log.to_dicts() for key, log in look.tables("adapter_checkpoint", "training_log").items()}


@stage(
    inputs=[
        "preference_pairs/training_pairs.parquet",
        "policy",
        "anchor_texts/anchor_texts.parquet",
        "anchor_texts/likely.safetensors",
        "screened_texts/screened_texts.parquet",
    ],
    rows=[REFERENCES],
    settings=["training", "anchor.weight", "anchor.form", "anchor.texts_per_step"],
    free=["training.gradient_checkpointing", "compute.engine", "compute.address", "policy.threads"],
    outputs=[*ADAPTER_PARTS, "training_log.parquet"],
    main_table="training_log",
    lineage=dict.fromkeys(("loss", "margin", "reward_accuracy", "grad_norm"), FROM_PAIRS),
    plots=[Plot("curves", "Training", curves, plots.training_curves)],
    work=work,
    memory=["training", "references"],
    group="5_training",
    kinds=["torch", "huggingface"],
)
def adapter_checkpoint(step: Step) -> None:
    """The LoRA adapter after training on this iteration's pairs (DPO + NLL, or plain fine-tuning: see
    `training.objective`), continued from the policy's adapter and held to what the loop starts from on texts of its
    own (`anchor`). Safetensors only.
    """
    from resources.training.checkpoints import Checkpoints
    from resources.training.trainer import train_adapter

    settings, policy = step.settings.training, step.settings.policy
    promotions = json.loads(step.artifact("policy", "policy.json").read_text())["promotions"]
    rate = settings.learning_rate * settings.learning_rate_decay**promotions
    recipe = recipe_of(settings, policy, rate, step.outside("execution"))
    pairs = step.read("preference_pairs", "training_pairs")

    made_of = (step.outside("base_model"), policy.system_prompt)

    def fitted(fit: "Fit") -> None:
        if fit.left_out or fit.cut:
            step.tell(in_words(fit, pairs.height, settings.max_length))
        counts = {"pairs": fit.trained, "pairs_left_out": fit.left_out, "pairs_cut": fit.cut}
        step.work.update(counts)
        step.facts.update(counts)

    def references(compute: Compute) -> Sequence[Any]:
        return references_of(step, pairs, recipe, made_of, compute)

    previous = adapter_of(step, "policy")
    arguments = (
        made_of[0],
        None if previous is None else previous.folder,
        pairs,
        made_of[1],
        recipe,
        step.out,
        step.progress("training", 0, "steps"),
        references,
        Checkpoints(step.unfinished, step.check),
        fitted,
        anchor_of(step, settings.seed),
        step.tell,
    )
    log = train_adapter(*arguments) if settings.workers == 1 else by_workers(step, *arguments)
    step.write(log, "training_log")
    step.work["steps"] = log.height
    step.facts.update(steps=log.height, learning_rate=rate, last_loss=round(log["loss"][-1], 4))
