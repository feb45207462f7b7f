"""Which runs a study still needs, given what is known: tuning first, then the other seeds of what won."""

from dataclasses import dataclass, field
from typing import Any

from apt_assets.study.file import Cell, Study

Outcome = dict[str, Any]  # of study.measure


@dataclass
class Known:
    """Outcomes by cell; cells that failed and (domain, arm) that cannot run here, each with the reason."""

    outcomes: dict[Cell, Outcome] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)


def wanted(study: Study, known: Known) -> list[Cell]:
    """The cells that can run now and have no outcome, in an order that shares early; [] when all is done."""
    cells = []
    for arm in study.file.arms:
        for domain in study.domains:
            cells += of_arm(study, known, domain, arm)
    return [cell for cell in cells if cell not in known.outcomes and cell not in known.failed]


def of_arm(study: Study, known: Known, domain: str, arm: str) -> list[Cell]:
    """The cells of one arm that are known to be needed by now."""
    if (domain, arm) in known.refused:
        return []
    first, *others = study.file.seeds
    cells = []
    for candidate in range(len(study.candidates)):
        cells += at(study, known, domain, arm, candidate, first)
    chosen = best_candidate(study, known, domain, arm)
    if chosen is not None:
        for seed in others:
            cells += at(study, known, domain, arm, chosen, seed)
    return cells


def at(study: Study, known: Known, domain: str, arm: str, candidate: int, seed: int) -> list[Cell]:
    """The cell, or none while what it starts from is not there."""
    source = study.file.arms[arm].starts_from
    if source is None:
        return [Cell(domain, arm, candidate, seed)]
    outcome = final(study, known, domain, source, seed)
    return [] if outcome is None else [Cell(domain, arm, candidate, seed, outcome["adapter"])]


def best_candidate(study: Study, known: Known, domain: str, arm: str) -> int | None:
    """The candidate with the best validation accuracy at the first seed, the earlier of equal ones; None
    while one of them has no outcome."""
    scores = []
    for candidate in range(len(study.candidates)):
        cells = at(study, known, domain, arm, candidate, study.file.seeds[0])
        if not cells or cells[0] not in known.outcomes:
            return None
        scores.append(known.outcomes[cells[0]]["validation"])
    return scores.index(max(scores))


def final(study: Study, known: Known, domain: str, arm: str, seed: int) -> Outcome | None:
    """The outcome of the arm with the candidate that was chosen; None while it is not there."""
    chosen = best_candidate(study, known, domain, arm)
    if chosen is None:
        return None
    cells = at(study, known, domain, arm, chosen, seed)
    return known.outcomes.get(cells[0]) if cells else None


def all_cells(study: Study, refused: dict[tuple[str, str], str]) -> int:
    """How many runs the whole study has."""
    each = len(study.candidates) + len(study.file.seeds) - 1
    return each * sum((d, a) not in refused for d in study.domains for a in study.file.arms)
