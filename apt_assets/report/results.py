"""What people read of a project, as plain data: scores, gates and seconds by iteration."""

from typing import Any

from apt_assets.engine.plan import Unsettled, stages_of
from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.settings.iterations import BASE

SPLITS = ("test", "validation")  # of held-out rows


def results(project: Project) -> dict[str, Any]:
    """{experiment, judge, iterations: [{iteration, stages: {name: {status, causes, seconds}}, scores, by_people,
    bad_cases, pairs, gate}]}, base first. Scores are shares with 95 % Wilson intervals; seconds are
    null for an artifact that an earlier iteration computed. judge: how far the assessor agrees with people;
    by_people: domain scores corrected for that; null where nobody graded."""
    planner = project.planner()
    judge = judged(planner)
    entries = []
    seen: set[tuple[str, str]] = set()
    for key in [BASE, *project.store.iterations(project.experiment.name)]:
        stages: dict[str, Any] = {}
        for name in stages_of(key):
            plan = planner.stage(key, name)
            seconds = None
            if plan.manifest and (name, plan.manifest.fingerprint) not in seen:
                seconds = plan.manifest.seconds
                seen.add((name, plan.manifest.fingerprint))
            stages[name] = {"status": plan.status, "causes": plan.causes, "seconds": seconds}
        entry: dict[str, Any] = {"iteration": key, "stages": stages}
        entry["scores"] = facts(planner, key, planner.scored_by(key))
        entry["by_people"] = by_people(entry["scores"], judge)
        if key != BASE:
            entry["bad_cases"] = facts(planner, key, "bad_cases").get("rows")
            # Until they are trained on, those that were made.
            made = facts(planner, key, "preference_pairs").get("rows")
            entry["pairs"] = facts(planner, key, "adapter_checkpoint").get("pairs", made)
            entry["gate"] = planner.verdict(key)
            entry["starts_from"] = starts_from(planner, key)
        entries.append(entry)
    return {"experiment": project.experiment.name, "judge": judge, "iterations": entries}


def judged(planner: LoopPlanner) -> dict[str, Any] | None:
    """What is known of the assessor (see `method.judge.calibration`), and its floor, as last computed; None: it is
    taken at its word."""
    floor = planner.experiment.assessor.calibration.floor
    manifest = planner.stage(BASE, "judge_calibration").manifest
    return {**manifest.facts, "floor": floor} if manifest and manifest.facts.get("calibrated") else None


def by_people(scores: dict[str, Any], judge: dict[str, Any] | None) -> dict[str, dict[str, Any]] | None:
    """{split: share of answers that people would have called right, with its 95 % interval} of `summarise`d scores;
    None: nothing is known that they could be corrected by."""
    if judge is None or not scores:
        return None
    from apt_assets.method.judge import Confusion, corrected_share

    confusion = Confusion(*(judge[name] for name in ("both", "people_only", "judge_only", "neither")))
    if not confusion.corrects:
        return None
    lenient = {split: scores["domain"][split]["lenient"] for split in SPLITS}
    return {
        split: corrected_share(round(its["mean"] * its["n"]), its["n"], confusion) for split, its in lenient.items()
    }


def starts_from(planner: LoopPlanner, key: str) -> str | None:
    try:
        return planner.promoted_before(key) or BASE
    except Unsettled:
        return None


def start_of(planner: LoopPlanner) -> str:
    """What the loop starts from, in words: as base_scores have it, or else as it is set."""
    from apt_assets.method.gate import start_in_words

    scored = facts(planner, BASE, "base_scores")
    return scored.get("start") or start_in_words(None if scored else planner.experiment.policy.initial_adapter)


def facts(planner: LoopPlanner, iteration: str, stage: str) -> dict[str, Any]:
    manifest = planner.stage(iteration, stage).manifest
    return manifest.facts if manifest else {}


def passages_of(scores: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """task -> {word_perplexity, se, words, n}; none in scores that an older version kept."""
    return dict(scores.get("passages", {}))
