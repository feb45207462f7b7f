import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from apt_assets.assets.benchmark_scores import questions
from apt_assets.drawing import plots
from apt_assets.engine.stage import Look, Plot, stage
from apt_assets.engine.step import Step
from apt_assets.rows import answers, grades
from apt_assets.rows.benchmark import OUTPUTS, write_scores
from apt_assets.rows.policy import adapter_of
from apt_assets.rows.scaled import point, scores_at
from apt_assets.rows.scores import SCORES
from apt_assets.settings.iterations import ADAPTER_PARTS, BASE

if TYPE_CHECKING:
    from apt_assets.method.gate import Judge, Scores

ITEMS = ("domain_items", "general_items", "passage_items")


def curves(look: Look) -> dict[str, Any]:
    return {key: verdict["scales"] for key, verdict in look.verdicts().items() if len(verdict.get("scales", ())) > 1}


@stage(
    inputs=[
        *(f"benchmark_scores/{name}.parquet" for name in ITEMS),
        *(f"base_scores/{name}.parquet" for name in ITEMS[1:]),
        "base_scores/start.json",
        "judge_calibration/confusion.json",
        "reference_scores",
        *(f"adapter_checkpoint/{part}" for part in ADAPTER_PARTS),
        "policy",
        "domain_dataset/train.parquet",
        "domain_dataset/validation.parquet",
        "domain_dataset/test.parquet",
    ],
    rows=[*answers.KINDS, *grades.KINDS, SCORES],
    settings=[
        "gate",
        "promotion",
        "assessor.calibration.floor",
        "policy.backend",
        *grades.SETTINGS,
        "benchmarks.tasks",
    ],
    free=["gate.approval"],  # what is done with a verdict decides none
    identities=[*grades.IDENTITIES, "benchmark_tasks"],
    libraries=["polars", "numpy", "scipy"],
    outputs=["verdict.json", *OUTPUTS],
    plots=[Plot("scales", "Domain against general ability, by scale of the adapter", curves, plots.scale_curves)],
    memory=["answers", "scores"],
    group="6_evaluation",
    asset=False,
)
def gate(step: Step) -> None:
    """May the adapter be promoted? Domain: validation accuracy not below the promoted adapter's. General ability: not
    worse than that of what the loop starts from, the base model or the initial adapter, by more than a tolerance, in
    accuracy, in the log-likelihood of golds and in word perplexity. If that alone is refused, smaller scales of the
    adapter are tried (`promotion.scales`); the scores here are those of the one that passed. If people graded some
    answers (`assessor.calibration`), the assessor must agree with them, and is corrected for where it does not.
    """
    from apt_assets.method.gate import Scores, Tolerances, decide

    compared_with = step.producer("reference_scores")
    start = json.loads(step.artifact("base_scores", "start.json").read_text())["start"]
    before = step.read("reference_scores", "domain_items")
    at_start = Scores(before, *(step.read("base_scores", name) for name in ITEMS[1:]))
    assessor = judge_of(step)

    def decided(scores: Scores) -> dict[str, Any]:
        promoted = start if compared_with == (BASE, "base_scores") else "the promoted adapter"
        tolerances = Tolerances(**step.settings.gate.model_dump(exclude={"approval"}))
        return decide(scores, before, at_start, tolerances, promoted=promoted, name=start, judge=assessor)

    verdict = decided(Scores(*(step.read("benchmark_scores", name) for name in ITEMS)))
    verdict |= {"scale": 1.0, "scales": []}
    if forgot(verdict):
        verdict = at_smaller_scales(step, verdict, decided)
    (step.out / "verdict.json").write_text(json.dumps(verdict, indent=1))
    step.facts.update(passed=verdict["passed"], reason=verdict["reason"], scale=verdict["scale"])


def judge_of(step: Step) -> "Judge | None":
    """What is known of the assessor; None: it is taken at its word."""
    from apt_assets.method.gate import Judge
    from apt_assets.method.judge import Confusion

    found = json.loads(step.artifact("judge_calibration", "confusion.json").read_text())
    if not found.pop("calibrated"):
        return None
    return Judge(Confusion(**found), step.settings.assessor.calibration.floor)


def forgot(verdict: dict[str, Any]) -> bool:
    """Whether general ability is all that was refused, for something that was scored."""
    from apt_assets.method.check import GENERAL

    refused = [check for check in verdict["checks"] if not check["passed"]]
    return bool(refused) and all(check["name"] in GENERAL and check["items"] for check in refused)


def at_smaller_scales(
    step: Step, whole: dict[str, Any], decided: "Callable[[Scores], dict[str, Any]]"
) -> dict[str, Any]:
    """The verdict on the best of `promotion.scales` that passes, on validation and the larger scale of equal ones,
    whose OUTPUTS are written; or `whole`, on the adapter as it is. Either with the curve, as `scales`."""
    adapter, (heldout, labels) = adapter_of(step, "adapter_checkpoint"), questions(step)
    assert adapter is not None, "it was trained"
    validation = {"validation": heldout["validation"]}
    verdicts = {
        factor: decided(scores_at(step, adapter, factor, validation, labels))
        for factor in sorted(step.settings.promotion.scales, reverse=True)
    }
    curve = [point(factor, verdict) for factor, verdict in {1.0: whole, **verdicts}.items()]
    passed = [factor for factor, verdict in verdicts.items() if verdict["passed"]]
    if not passed:
        return {**whole, "scales": curve}
    best = max(passed, key=lambda factor: (verdicts[factor]["checks"][0]["difference"], factor))
    write_scores(step, scores_at(step, adapter, best, heldout, labels))
    step.tell(f"the adapter is promoted at {best:g} of its scale")
    reason = f"at {best:g} of its scale {verdicts[best]['reason']}; as it was trained: {whole['reason']}"
    return {**verdicts[best], "reason": reason, "scale": best, "scales": curve}
