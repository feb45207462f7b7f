"""The outcomes of a study -> what people read: by domain and arm, means over seeds, tests against the control."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_assets.method.gate import Scores, Tolerances, decide, start_in_words
from apt_assets.method.grades import is_right
from apt_assets.settings.reader import load_experiment
from apt_assets.study.advice import advice
from apt_assets.study.costs import COSTS, NOTHING, Costs, costs_of, means, seconds_a_row
from apt_assets.study.file import Cell, Scoring, Study
from apt_assets.study.measure import MEASURES
from apt_assets.study.statistics import holm, over_seeds, paired_test
from apt_assets.study.wanted import Known, Outcome, all_runs, best_candidate, final
from resources.store.tables import read_table

SIGNIFICANT = 0.05
COMPARED = ("test", "general")  # measures that are tested against the control


def summary(study: Study, known: Known, home: Path, machine: dict[str, Any]) -> dict[str, Any]:
    """Everything on the page. Arms without a final outcome for every seed are left out of the comparison, and
    listed in `unfinished`."""
    domains = {name: of_domain(study, known, home, name) for name in study.domains}
    correct(domains)
    for found in domains.values():
        found["advice"] = advice(study.file.control, found["arms"])
    return {
        "study": study.file.name,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine,
        "control": study.file.control,
        "seeds": study.file.seeds,
        "candidates": study.candidates,
        "runs": {"done": len(known.outcomes), "of": all_runs(study, known), "failed": len(known.failed)},
        "domains": domains,
        "refused": [{"domain": d, "arm": a, "reason": reason} for (d, a), reason in known.refused.items()],
        "failed": [{"run": cell.label, "reason": reason} for cell, reason in known.failed.items()],
    }


def of_domain(study: Study, known: Known, home: Path, domain: str) -> dict[str, Any]:
    start = known.outcomes.get(Scoring(domain, None))
    finals = {name: outcomes_of(study, known, domain, name) for name in study.file.arms}
    done: dict[str, dict[int, Outcome]] = {}
    for name, found in finals.items():
        source = study.file.arms[name].starts_from
        if start and len(found) == len(study.file.seeds) and (source is None or source in done):
            done[name] = found
    rates = seconds_a_row([o for run, o in known.outcomes.items() if isinstance(run, Cell) and run.domain == domain])
    scored = Scored(study, home, domain)
    spent: dict[str, dict[int, Costs]] = {}
    arms = {}
    for name, found in done.items():
        assert start is not None, "no arm is done without it"
        source = study.file.arms[name].starts_from
        before = {seed: start if source is None else done[source][seed] for seed in found}
        own = {seed: costs_of(outcome, rates) for seed, outcome in found.items()}
        earlier = spent[source] if source else dict.fromkeys(found, NOTHING)
        spent[name] = {seed: its + earlier[seed] for seed, its in own.items()}
        arms[name] = recipe(study, known, domain, name) | results(found, start, before)
        arms[name]["by_iteration"] = {
            str(seed): by_iteration(outcome, earlier[seed], rates) for seed, outcome in found.items()
        }
        arms[name] |= {"costs": means(spent[name]), "own_costs": means(own)}
        gates = [scored.gate(before[seed], outcome, source) for seed, outcome in found.items()]
        arms[name] |= {"promoted": sum(gate["passed"] for gate in gates), "gates": [gate["reason"] for gate in gates]}
    if study.file.control in done:
        compare(study, scored, done, arms)
    refused = {name for d, name in known.refused if d == domain}
    return {
        "experiment": study.file.domains[domain],
        "start": start,
        "arms": arms,
        "unfinished": [name for name in finals if name not in done and name not in refused],
    }


def outcomes_of(study: Study, known: Known, domain: str, arm: str) -> dict[int, Outcome]:
    """Seed -> final outcome, as far as there is one."""
    found = {seed: final(study, known, domain, arm, seed) for seed in study.file.seeds}
    return {seed: outcome for seed, outcome in found.items() if outcome is not None}


def recipe(study: Study, known: Known, domain: str, name: str) -> dict[str, Any]:
    """What an arm is, what its tuning came to, and the runs that count."""
    arm, chosen, first = study.file.arms[name], best_candidate(study, known, domain, name), study.file.seeds[0]
    assert chosen is not None, "an arm with final outcomes has a chosen candidate"
    tried = {
        run.candidate: outcome["validation"]
        for run, outcome in known.outcomes.items()
        if isinstance(run, Cell) and (run.domain, run.arm, run.seed) == (domain, name, first)
    }
    return {
        "about": arm.about,
        "settings": arm.settings,
        "starts_from": arm.starts_from,
        "chosen": study.candidates[chosen],
        "tuning": [{"candidate": study.candidates[n], "validation": tried[n]} for n in sorted(tried)],
        "experiments": [Cell(domain, name, chosen, seed).label for seed in study.file.seeds],
    }


def results(found: dict[int, Outcome], start: Outcome, before: dict[int, Outcome]) -> dict[str, Any]:
    """What an arm came to, over seeds: `changes` against the start, `own_changes` against what it started from."""
    measures = [measure for measure in MEASURES if start[measure] is not None]
    outcomes = list(found.values())
    return {
        "best_iterations": [o["best_iteration"] for o in outcomes],
        "scores": {m: over_seeds([o[m] for o in outcomes]) for m in measures},
        "changes": {m: over_seeds([o[m] - start[m] for o in outcomes]) for m in measures},
        "own_changes": {m: over_seeds([o[m] - before[seed][m] for seed, o in found.items()]) for m in measures},
    }


def by_iteration(outcome: Outcome, earlier: Costs, rates: dict[str, float]) -> dict[str, Any]:
    """Iteration -> its scores on the domain, and COSTS of it with all before."""
    costs = {key: costs_of(spent, rates) + earlier for key, spent in outcome["spent_until"].items()}
    scores = outcome["by_iteration"]
    return {key: scores[key] | {name: its.amount(name) for name in COSTS} for key, its in costs.items()}


def compare(study: Study, scored: "Scored", done: dict[str, dict[int, Outcome]], arms: dict[str, Any]) -> None:
    """Add to every arm but the control how it differs from it: over items, and over seeds."""
    control = study.file.control
    means = {name: scored.item_means(found) for name, found in done.items()}
    for name in arms:
        if name == control:
            continue
        arms[name]["against_control"] = {
            measure: {
                **paired_test(means[name][measure], means[control][measure]),
                "over_seeds": over_seeds(
                    [done[name][seed][measure] - done[control][seed][measure] for seed in study.file.seeds]
                ),
            }
            for measure in COMPARED
        }


@dataclass(frozen=True)
class Scored:
    """The item tables of a domain's scoring runs, by outcome."""

    study: Study
    home: Path
    domain: str

    def tables(self, outcome: Outcome) -> Scores:
        """Of what a run came to, or of the start."""
        folder = self.home / outcome["scored"]
        return Scores(*(read_table(folder / f"{name}_items.parquet") for name in ("domain", "general", "passage")))

    def gate(self, before: Outcome, outcome: Outcome, source: str | None) -> dict[str, Any]:
        """{passed, reason} of the gate of the domain's own experiment file, against what the run started from."""
        found, start = self.tables(outcome), self.tables(before)
        experiment = load_experiment(self.study.domain_file(self.domain))
        name = source or start_in_words(experiment.policy.initial_adapter)
        tolerances = Tolerances(**experiment.gate.model_dump(exclude={"approval"}))
        verdict = decide(found, start.domain, start, tolerances, promoted=name, name=name)
        if experiment.assessor.calibration.folder is not None:
            verdict["reason"] += "; what people graded (assessor.calibration) was not asked"
        return verdict

    def item_means(self, found: dict[int, Outcome]) -> dict[str, dict[Any, float]]:
        """{test, general: {item: share of the seeds in which it is right}} of the outcomes of one arm."""
        total: dict[str, dict[Any, float]] = {"test": {}, "general": {}}
        for outcome in found.values():
            scores = self.tables(outcome)
            rows = scores.domain.filter(split="test").select("row_id", "grade").iter_rows()
            right = {"test": {row: is_right(grade) for row, grade in rows}}
            right["general"] = {
                (task, n): it for task, n, it in scores.general.select("task", "item", "correct").iter_rows()
            }
            for measure, its in right.items():
                for key, value in its.items():
                    total[measure][key] = total[measure].get(key, 0.0) + value / len(found)
        return total


def correct(domains: dict[str, Any]) -> None:
    """Correct the p values of all comparisons of the study together (Holm), as `p_corrected`, and say in a word
    what each came to."""
    arms = [arm for domain in domains.values() for arm in domain["arms"].values()]
    tests = [tested for arm in arms for tested in arm.get("against_control", {}).values()]
    for tested, p in zip(tests, holm([tested["p"] for tested in tests]), strict=True):
        tested["p_corrected"] = p
        better = "better" if tested["difference"] > 0 else "worse"
        tested["verdict"] = better if p < SIGNIFICANT else "not told apart"
