"""Which runs a study still needs, given what is known: tuning, the other seeds of what won, then full scores."""

from dataclasses import dataclass, field
from itertools import product
from typing import Any

from apt_assets.study.file import Cell, Run, Scoring, Study

Outcome = dict[str, Any]  # of study.measure


@dataclass
class Known:
    """Outcomes by run; runs that failed and (domain, arm) that cannot run here, each with the reason."""

    outcomes: dict[Run, Outcome] = field(default_factory=dict)
    failed: dict[Run, str] = field(default_factory=dict)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)


def wanted(study: Study, known: Known) -> list[Run]:
    """The runs that can begin now and have no outcome, domain by domain; [] when all is done."""
    runs: dict[Run, None] = {}
    for domain in study.domains:
        runs[Scoring(domain, None)] = None
        for arm in study.file.arms:
            runs |= dict.fromkeys(of_arm(study, known, domain, arm))
    return [run for run in runs if run not in known.outcomes and run not in known.failed]


def of_arm(study: Study, known: Known, domain: str, arm: str) -> list[Run]:
    """The runs of one arm that are known to be needed by now."""
    if (domain, arm) in known.refused:
        return []
    first = study.file.seeds[0]
    runs: list[Run | None] = [at(study, known, domain, arm, n, first) for n in range(len(study.candidates))]
    chosen = best_candidate(study, known, domain, arm)
    if chosen is not None:
        for seed in study.file.seeds:
            runs.append(at(study, known, domain, arm, chosen, seed))
            if outcome := trained(study, known, domain, arm, seed):
                runs.append(study.scoring(domain, arm, outcome["adapter"]))
    return [run for run in runs if run is not None]


def at(study: Study, known: Known, domain: str, arm: str, candidate: int, seed: int) -> Cell | None:
    """The run; None while what it starts from is not there."""
    source = study.file.arms[arm].starts_from
    if source is None:
        return Cell(domain, arm, candidate, seed)
    outcome = trained(study, known, domain, source, seed)
    return None if outcome is None else Cell(domain, arm, candidate, seed, outcome["adapter"])


def best_candidate(study: Study, known: Known, domain: str, arm: str) -> int | None:
    """The candidate with the best validation accuracy at the first seed, the earlier of equal ones; None
    while one of them has no outcome."""
    scores = []
    for candidate in range(len(study.candidates)):
        cell = at(study, known, domain, arm, candidate, study.file.seeds[0])
        if cell is None or cell not in known.outcomes:
            return None
        scores.append(known.outcomes[cell]["validation"])
    return scores.index(max(scores))


def trained(study: Study, known: Known, domain: str, arm: str, seed: int) -> Outcome | None:
    """The outcome of the arm with the candidate that was chosen; None while it is not there."""
    chosen = best_candidate(study, known, domain, arm)
    if chosen is None:
        return None
    cell = at(study, known, domain, arm, chosen, seed)
    return None if cell is None else known.outcomes.get(cell)


def final(study: Study, known: Known, domain: str, arm: str, seed: int) -> Outcome | None:
    """The outcome with its full scores; None while one of the two is not there."""
    outcome = trained(study, known, domain, arm, seed)
    scores = known.outcomes.get(study.scoring(domain, arm, outcome["adapter"])) if outcome else None
    return None if outcome is None or scores is None else {**outcome, **scores}


def all_runs(study: Study, known: Known) -> int:
    """How many runs the whole study has. As long as adapters are not trained, at most: two arms may come to the same
    one, which is scored once."""
    arms = [(domain, arm) for domain in study.domains for arm in study.file.arms if (domain, arm) not in known.refused]
    scored: set[Run] = {Scoring(domain, None) for domain in study.domains}
    others = len(arms) * training_runs(study)
    for (domain, arm), seed in product(arms, study.file.seeds):
        if outcome := trained(study, known, domain, arm, seed):
            scored.add(study.scoring(domain, arm, outcome["adapter"]))
        else:
            others += 1
    return len(scored) + others


def training_runs(study: Study) -> int:
    """How many runs of one arm on one domain train."""
    return len(study.candidates) + len(study.file.seeds) - 1
