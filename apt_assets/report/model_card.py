"""The model card of an exported adapter or model: what it is, from what, how good, and how to load it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner, undecided
from apt_assets.report.evaluation import eval_results
from apt_assets.report.judge import sentence
from apt_assets.report.markdown import table
from apt_assets.report.results import SPLITS, by_people, facts, judged, passages_of, start_of
from apt_assets.report.tables import interval
from apt_assets.settings.iterations import BASE
from resources.store.manifest import Manifest

# What an adapter comes of, by training.objective; the domain's name follows.
COMES_OF = {
    "dpo": "preference training (DPO + NLL) on what the policy got wrong in",
    "sft": "fine-tuning (NLL) on the right answers of",
}


@dataclass(frozen=True)
class Names:
    """What a card calls the base model, and what it is the card of: folders here, or repositories of a hub.

    hub: the base model on the hub, if it is there by a name that is known.
    """

    base: str
    itself: str
    hub: str | None

    @classmethod
    def here(cls, project: Project) -> "Names":
        return cls(str(project.models.base_model), "this folder", hub_id(project))


def hub_id(project: Project) -> str | None:
    """The base model's id on the hub; None of a folder, and of the embedded one: others do not have these."""
    named = project.experiment.policy.model
    is_here = named == "embedded" or (project.home / Path(named).expanduser()).exists()
    return None if is_here else named


def model_card(project: Project, planner: LoopPlanner, key: str, names: Names, *, merged: bool) -> str:
    """README.md of an exported folder, with the front matter of the Hugging Face hub: scores also as its
    `model-index`.

    Everything in it is read from manifests: scores with 95 % intervals, data and pairs by count and
    digest, settings, library versions, and the gate's verdict.
    """
    from huggingface_hub import ModelCardData

    experiment = project.experiment
    objective = checkpoint(planner, key).settings["training.objective"]
    front = ModelCardData(
        base_model=names.hub,
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-generation",
        tags=["apt-assets", objective, "trl", *([] if merged else ["lora"])],
        model_name=f"{experiment.name}, iteration {key}",
        eval_results=eval_results(experiment.name, facts(planner, key, planner.scored_by(key))),
    )
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# {experiment.name}, iteration {key}",
        f"{'The merged model' if merged else 'The LoRA adapter'} after {COMES_OF[objective]} the domain "
        f"`{experiment.name}`. {verdict(planner, key)}",
        f"## Load it\n\n{how_to_load(project, names, merged)}",
        f"## Scores\n\n{scores(planner, key)}",
        f"## Data\n\n{data(planner, key)}",
        f"## Training\n\n{training(planner, key)}",
    ]
    return "\n\n".join(parts) + "\n"


def checkpoint(planner: LoopPlanner, key: str) -> Manifest:
    manifest = planner.stage(key, "adapter_checkpoint").manifest
    assert manifest is not None, "whoever exports has looked"
    return manifest


def verdict(planner: LoopPlanner, key: str) -> str:
    found = planner.verdict(key)
    if found is None:
        return "Its gate has not decided yet."
    approval, decided = found.get("approval"), ""
    if approval:
        decided = f" {approval['by']} {approval['event']} of that on {approval['time'][:10]}: {approval['reason']}"
    elif undecided(found):
        decided = " Nobody has approved of that yet, as has to be before it is promoted."
    promoted = "passed" if "approval" in found else "promoted"
    if found["scale"] != 1:
        return f"The gate {promoted} it at {found['scale']:g} of the scale at which it was trained.{decided}"
    return f"The gate {promoted if found['passed'] or approval else 'REFUSED'} it.{decided}"


def how_to_load(project: Project, names: Names, merged: bool) -> str:
    policy = project.experiment.policy
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    if merged:
        lines += [f'model = AutoModelForCausalLM.from_pretrained("{names.itself}")']
        lines += [f'tokenizer = AutoTokenizer.from_pretrained("{names.itself}")']
    else:
        lines[0:0] = ["from peft import PeftModel"]
        lines += [f"base = AutoModelForCausalLM.from_pretrained({names.base!r})"]
        lines += [f'model = PeftModel.from_pretrained(base, "{names.itself}")']
        lines += [f"tokenizer = AutoTokenizer.from_pretrained({names.base!r})"]
    system = (
        f"It was trained and scored with the system prompt {policy.system_prompt!r}. " if policy.system_prompt else ""
    )
    return "```python\n" + "\n".join(lines) + f"\n```\n\n{system}Weights: {policy.dtype}."


def scores(planner: LoopPlanner, key: str) -> str:
    """What the loop started from against this one; shares in percent with 95 % Wilson intervals."""
    found = {at: facts(planner, at, planner.scored_by(at)) for at in (BASE, key)}
    rows = []
    for label, path in (
        ("domain, test, exact %", ("domain", "test", "exact")),
        ("domain, test, graded 4 or 5 %", ("domain", "test", "lenient")),
        ("domain, validation, graded 4 or 5 %", ("domain", "validation", "lenient")),
        *((f"{task} %", ("general", task, "accuracy")) for task in found[BASE].get("general", {}) if task != "all"),
    ):
        rows.append([label, *(interval(dig(scored, path)) if scored else "-" for scored in found.values())])
    for task in passages_of(found[BASE]):
        values = (passages_of(scored).get(task) for scored in found.values())
        rows.append([f"{task}, word perplexity", *(f"{v['word_perplexity']:.1f}" if v else "-" for v in values)])
    judge = judged(planner)
    corrected = [by_people(scored, judge) for scored in found.values()]
    for split in SPLITS if any(corrected) else ():
        cells = (interval(shares[split]) if shares else "-" for shares in corrected)
        rows.append([f"domain, {split}, corrected for the judge %", *cells])
    return table(["benchmark", start_of(planner).removeprefix("the "), "this"], rows) + (
        "\n\nIntervals in brackets. Validation decides the gate, test is reported and decides nothing."
        + (f" {sentence(judge)}" if judge else "")
    )


def data(planner: LoopPlanner, key: str) -> str:
    rows = []
    for stage, names in (
        ("domain_dataset", ("train_rows", "validation_rows", "test_rows")),
        ("eval_predictions", ("rows",)),
        ("bad_cases", ("rows",)),
        ("preference_pairs", ("rows", "bad_case", "similar", "counterfactual", "replay", "left_out", "softened")),
    ):
        manifest = planner.stage(key, stage).manifest
        if manifest:
            facts = {**manifest.facts, **manifest.facts.get("kinds", {})}
            counts = ", ".join(f"{name.removesuffix('_rows')} {facts[name]}" for name in names if name in facts)
            rows.append([stage, counts, f"`{manifest.data_version[:16]}`"])
    return table(["artifact", "rows", "digest"], rows)


def training(planner: LoopPlanner, key: str) -> str:
    manifest = checkpoint(planner, key)
    earlier, begun = planner.promoted_before(key), start_of(planner) == "the initial adapter"
    settings = [
        [f"`{name}`", str(value)]
        for name, value in sorted(manifest.settings.items())
        if not (begun and name.startswith("training.lora_"))
    ]
    settings += [["peak learning rate of this iteration", str(manifest.facts.get("learning_rate"))]]
    settings += [["optimiser steps", str(manifest.facts.get("steps"))]]
    counts = [("trained on", "pairs"), ("left out", "pairs_left_out"), ("cut at max_length", "pairs_cut")]
    settings += [[f"pairs {what}", str(manifest.facts[name])] for what, name in counts if name in manifest.facts]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.libraries.items()))
    first = "the initial adapter, whose rank, alpha and targets it has" if begun else "a fresh adapter"
    start = f"the adapter of iteration {earlier}" if earlier else first
    return (
        f"{table(['setting', 'value'], settings)}\n\nContinued from {start}. {versions}. "
        f"The adapter as trained is `{manifest.data_version[:16]}`, fingerprint `{manifest.fingerprint[:16]}`, made "
        f"{manifest.created}."
    )


def dig(found: dict[str, Any], path: tuple[str, ...]) -> Any:
    for name in path:
        found = found[name]
    return found
