"""What people read of a project: scores by iteration, stage by stage cost, and their tables."""

from collections.abc import Sequence
from typing import Any

from apt_assets.engine.plan import Planner, Unsettled, stages_of
from apt_assets.engine.stages import BASE
from apt_assets.project import Project

RECENT = 8  # iterations


def results(project: Project) -> dict[str, Any]:
    """{experiment, iterations: [{iteration, stages: {name: {status, causes, seconds}}, scores,
    bad_cases, pairs, gate}]}, base first. Scores are shares with 95 % Wilson intervals; seconds are
    null for an artifact that an earlier iteration computed."""
    planner = project.planner()
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
        entry["scores"] = facts(planner, key, "base_scores" if key == BASE else "benchmark_scores")
        if key != BASE:
            entry["bad_cases"] = facts(planner, key, "bad_cases").get("rows")
            entry["pairs"] = facts(planner, key, "preference_pairs").get("rows")
            entry["gate"] = planner.verdict(key)
            entry["starts_from"] = starts_from(planner, key)
        entries.append(entry)
    return {"experiment": project.experiment.name, "iterations": entries}


def recent(keys: Sequence[str]) -> list[str]:
    """Of many iterations base and the last RECENT: what a table of one column or section each is of."""
    iterations = [key for key in keys if key != BASE]
    return [key for key in keys if key == BASE or key in iterations[-RECENT:]]


def left_out(keys: Sequence[str], rest: str) -> str:
    """A line on the iterations that `recent` leaves out, if it does; rest: where they are."""
    number = len(keys) - len(recent(keys))
    return f"{number} earlier iterations are not shown: {rest}" if number else ""


def starts_from(planner: Planner, key: str) -> str | None:
    try:
        return planner.promoted_before(key) or BASE
    except Unsettled:
        return None


def start_of(planner: Planner) -> str:
    """What the loop starts from, in words: as base_scores have it, or else as it is set."""
    from apt_assets.method.gate import start_in_words

    scored = facts(planner, BASE, "base_scores")
    return scored.get("start") or start_in_words(None if scored else planner.experiment.policy.initial_adapter)


def facts(planner: Planner, iteration: str, stage: str) -> dict[str, Any]:
    manifest = planner.stage(iteration, stage).manifest
    return manifest.facts if manifest else {}


def score_rows(found: dict[str, Any]) -> list[list[str]]:
    """One row per iteration: test exact, test lenient, validation, general, bad cases, pairs, gate."""
    rows = []
    for entry in found["iterations"]:
        scores, gate = entry["scores"], entry.get("gate")
        cells = ["-"] * 4
        if scores:
            test, validation = scores["domain"]["test"], scores["domain"]["validation"]
            parts = (
                test["exact"],
                test["lenient"],
                validation["lenient"],
                scores["general"]["all"]["accuracy"],
            )
            cells = [interval(part) for part in parts]
        verdict = "-" if gate is None else "promoted" if gate["passed"] else "refused"
        verdict = "no bad cases" if gate and "no_bad_cases" in gate else verdict
        counts = [str(entry[name]) if entry.get(name) is not None else "-" for name in ("bad_cases", "pairs")]
        rows.append([entry["iteration"], *cells, *counts, verdict])
    return rows


SCORE_COLUMNS = (
    "iteration", "test exact %", "test lenient %", "validation lenient %", "general %", "bad cases", "pairs", "gate",
)  # fmt: skip


def general_rows(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(columns, rows): accuracy of each general task, by iteration, the mean margin over all items, and the
    word perplexity of each task of passages."""
    scored = [entry for entry in found["iterations"] if entry["scores"]]
    tasks = list(dict.fromkeys(task for entry in scored for task in entry["scores"]["general"] if task != "all"))
    texts = list(dict.fromkeys(task for entry in scored for task in passages_of(entry["scores"])))
    rows = []
    for entry in scored:
        general, passages = entry["scores"]["general"], passages_of(entry["scores"])
        cells = [interval(general[task]["accuracy"]) if task in general else "-" for task in tasks]
        perplexities = [f"{passages[task]['word_perplexity']:.1f}" if task in passages else "-" for task in texts]
        rows.append([entry["iteration"], *cells, f"{general['all']['margin']:+.3f}", *perplexities])
    columns = [*(f"{task} %" for task in tasks), "gold margin, nats per character"]
    return ["iteration", *columns, *(f"{task}: word perplexity" for task in texts)], rows


def passages_of(scores: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """task -> {word_perplexity, se, words, n}; none in scores that an older version kept."""
    return dict(scores.get("passages", {}))


def second_rows(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(columns, rows): wall-clock seconds of each stage when it was computed, by iteration."""
    entries = found["iterations"]
    names = list(dict.fromkeys(name for entry in entries for name in entry["stages"]))
    rows = []
    for name in names:
        cells = [entry["stages"].get(name, {}).get("seconds") for entry in entries]
        rows.append([name, *("-" if cell is None else f"{cell:.1f}" for cell in cells)])
    totals = [sum(s["seconds"] or 0 for s in entry["stages"].values()) for entry in entries]
    rows.append(["all", *(f"{total:.1f}" for total in totals)])
    return ["seconds", *(entry["iteration"] for entry in entries)], rows


def interval(share: dict[str, float]) -> str:
    """47.2 [43.0, 51.4], in percent."""
    if not share["n"]:
        return "-"
    return f"{100 * share['mean']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def why(causes: list[str], most: int = 3) -> str:
    """The first causes, and how many more there are."""
    more = [f"and {len(causes) - most} more (apt-assets explain)"] if len(causes) > most else []
    return "; ".join([*causes[:most], *more])
