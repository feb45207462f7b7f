"""The outcomes of a study -> what people read: by domain and arm, means over seeds, tests against the control."""

import time
from pathlib import Path
from typing import Any

from apt_assets.engine.stages import BASE
from apt_assets.experiment import load_experiment
from apt_assets.project import Project
from apt_assets.study.file import Cell, Study
from apt_assets.study.measure import MEASURES
from apt_assets.study.statistics import holm, over_seeds, paired_test
from apt_assets.study.wanted import Known, all_cells, best_candidate, final, tuning

SIGNIFICANT = 0.05
COSTS = ("labels", "labels_trained", "rows", "tokens", "steps", "cpu_seconds")
# The rows that a stage may have taken over from another run, of which the time is not its own.
ROWS_OF = {"eval_predictions": "answers", "preference_pairs": "answers"}


def summary(study: Study, known: Known, home: Path, machine: dict[str, Any]) -> dict[str, Any]:
    """Everything on the page. Arms without a final outcome for every seed are left out of the comparison, and
    listed in `unfinished`."""
    domains = {name: of_domain(study, known, home, name) for name in study.domains}
    correct(domains)
    return {
        "study": study.file.name,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine,
        "control": study.file.control,
        "seeds": study.file.seeds,
        "candidates": study.candidates,
        "runs": {"done": len(known.outcomes), "of": all_cells(study, known.refused), "failed": len(known.failed)},
        "domains": domains,
        "refused": [{"domain": d, "arm": a, "reason": reason} for (d, a), reason in known.refused.items()],
        "failed": [{"run": cell.label, "reason": reason} for cell, reason in known.failed.items()],
    }


def of_domain(study: Study, known: Known, home: Path, domain: str) -> dict[str, Any]:
    finals = {name: outcomes_of(study, known, domain, name) for name in study.file.arms}
    done = {name: found for name, found in finals.items() if len(found) == len(study.file.seeds)}
    rates = seconds_a_row([o for cell, o in known.outcomes.items() if cell.domain == domain])
    start = next((o["start"] for c, o in known.outcomes.items() if c.domain == domain and c.adapter is None), None)
    arms = {}
    for name, found in done.items():
        assert start is not None, "an arm that starts from another is done only after that one"
        arms[name] = of_arm(study, known, domain, name, found, start, rates)
    refused = {name for d, name in known.refused if d == domain}
    result = {
        "experiment": study.file.domains[domain],
        "start": start,
        "arms": arms,
        "unfinished": [name for name in finals if name not in done and name not in refused],
    }
    if study.file.control in done:
        compare(study, home, domain, done, arms)
    return result


def outcomes_of(study: Study, known: Known, domain: str, arm: str) -> dict[int, dict[str, Any]]:
    """Seed -> final outcome, as far as there is one."""
    found = {seed: final(study, known, domain, arm, seed) for seed in study.file.seeds}
    return {seed: outcome for seed, outcome in found.items() if outcome is not None}


def of_arm(
    study: Study,
    known: Known,
    domain: str,
    name: str,
    found: dict[int, dict[str, Any]],
    start: dict[str, Any],
    rates: dict[str, float],
) -> dict[str, Any]:
    arm, chosen = study.file.arms[name], best_candidate(study, known, domain, name)
    assert chosen is not None, "an arm with final outcomes has a chosen candidate"
    tried = [(cell.candidate, known.outcomes[cell]) for cell in tuning(study, known, domain, name)]
    costed = [{**o, "cpu_seconds": cold_seconds(o, rates)} for o in found.values()]
    outcomes = list(found.values())
    changes = {m: [o[m] - start[m] for o in outcomes] for m in MEASURES if start[m] is not None}
    return {
        "about": arm.about,
        "settings": arm.settings,
        "starts_from": arm.starts_from,
        "chosen": study.candidates[chosen],
        "tuning": [{"candidate": study.candidates[number], "validation": o["validation"]} for number, o in tried],
        "best_iterations": [o["best_iteration"] for o in outcomes],
        "scores": {m: over_seeds([o[m] for o in outcomes]) for m in MEASURES if start[m] is not None},
        "changes": {m: over_seeds(values) for m, values in changes.items()},
        "own_start": {m: over_seeds([o["start"][m] for o in outcomes]) for m in MEASURES if start[m] is not None},
        "costs": {name: over_seeds([o[name] for o in costed]) for name in COSTS},
        "promoted": sum(bool(o["gate"] and o["gate"]["passed"]) for o in outcomes),
        "gates": [o["gate"]["reason"] if o["gate"] else "nothing was trained" for o in outcomes],
        "by_iteration": {str(seed): o["by_iteration"] for seed, o in found.items()},
        "experiments": [Cell(domain, name, chosen, seed).label for seed in found],
    }


def compare(
    study: Study, home: Path, domain: str, done: dict[str, dict[int, dict[str, Any]]], arms: dict[str, Any]
) -> None:
    """Add to every arm but the control how it differs from it: over items, and over seeds."""
    known = {name: item_means(study, home, domain, found) for name, found in done.items()}
    control = study.file.control
    for name in arms:
        if name == control:
            continue
        against = {}
        for part, measure in (("domain", "test"), ("general", "general")):
            by_seed = [done[name][seed][measure] - done[control][seed][measure] for seed in study.file.seeds]
            tested = paired_test(known[name][part], known[control][part])
            against[measure] = {**tested, "over_seeds": over_seeds(by_seed)}
        arms[name]["against_control"] = against


def item_means(study: Study, home: Path, domain: str, found: dict[int, dict[str, Any]]) -> dict[str, dict[Any, float]]:
    """{domain, general: {item: share of the seeds in which it is right}} of the outcomes of one arm; domain: the
    test rows."""
    total: dict[str, dict[Any, float]] = {"domain": {}, "general": {}}
    for outcome in found.values():
        experiment = load_experiment(study.domain_file(domain)).model_copy(update={"name": outcome["experiment"]})
        project = Project(experiment, home)
        rows, general = stored_items(project, outcome["best_iteration"])
        for part, values in (("domain", rows), ("general", general)):
            for key, right in values.items():
                total[part][key] = total[part].get(key, 0.0) + right / len(found)
    return total


def stored_items(project: Project, iteration: str) -> tuple[dict[Any, bool], dict[Any, bool]]:
    """(test row -> right, (task, item) -> right) of an iteration, by its pointer."""
    from schemas.files import read_table

    stage = "base_scores" if iteration == BASE else "benchmark_scores"
    manifest = project.store.pointed(project.experiment.name, iteration, stage)
    assert manifest is not None, "it was measured"
    folder = project.artifact(manifest)
    rows = read_table(folder / "domain_items.parquet").filter(split="test")
    general = read_table(folder / "general_items.parquet")
    return (
        {row: grade >= 4 for row, grade in rows.select("row_id", "grade").iter_rows()},
        {(task, item): right for task, item, right in general.select("task", "item", "correct").iter_rows()},
    )


def correct(domains: dict[str, Any]) -> None:
    """Correct the p values of all comparisons of the study together (Holm), as `p_corrected`, and say in a word
    what each came to."""
    tests = [
        (tested, "gain" if measure == "test" else "general")
        for domain in domains.values()
        for arm in domain["arms"].values()
        for measure, tested in arm.get("against_control", {}).items()
    ]
    for (tested, _), p in zip(tests, holm([tested["p"] for tested, _ in tests]), strict=True):
        tested["p_corrected"] = p
        better = "better" if tested["difference"] > 0 else "worse"
        tested["verdict"] = better if p < SIGNIFICANT else "not told apart"


def seconds_a_row(outcomes: list[dict[str, Any]]) -> dict[str, float]:
    """Kind of row -> processor seconds of one, from the stages that computed all of theirs."""
    spent: dict[str, float] = {}
    rows: dict[str, int] = {}
    for part in (part for outcome in outcomes for part in outcome["parts"]):
        kind = ROWS_OF.get(part["stage"], "")
        work = part["work"].get(kind)
        if work and work["computed"] and not work["reused"]:
            spent[kind] = spent.get(kind, 0.0) + part["cpu_seconds"]
            rows[kind] = rows.get(kind, 0) + work["computed"]
    return {kind: spent[kind] / rows[kind] for kind in spent}


def cold_seconds(outcome: dict[str, Any], rates: dict[str, float]) -> float:
    """Processor seconds of the recipe had nothing been shared with other runs: own seconds, plus the rows taken
    over at what a row costs.

    A pair's reference log-probabilities, when taken over, count as a third of its training: one pass forward,
    where training is one forward and one backward of twice that (Kaplan et al. 2020, arXiv 2001.08361).
    """
    seconds = 0.0
    for part in outcome["parts"]:
        own, work = part["cpu_seconds"], part["work"]
        kind = ROWS_OF.get(part["stage"], "")
        if kind in work:
            own += work[kind]["reused"] * rates.get(kind, 0.0)
        references = work.get("references")
        if references and references["reused"]:
            pairs = references["reused"] + references["computed"]
            own *= 4 * pairs / (3 * pairs + references["computed"])
        seconds += own
    return seconds
