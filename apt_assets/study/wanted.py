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
    """The cells that can run now and have no outcome, domain by domain; [] when all is done."""
    cells = [cell for domain in study.domains for arm in study.file.arms for cell in of_arm(study, known, domain, arm)]
    return [cell for cell in cells if cell not in known.outcomes and cell not in known.failed]


def of_arm(study: Study, known: Known, domain: str, arm: str) -> list[Cell]:
    """The cells of one arm that are known to be needed by now."""
    if (domain, arm) in known.refused:
        return []
    tried = tuning(study, known, domain, arm)
    chosen = best_candidate(study, known, domain, arm)
    if chosen is None:
        return tried
    finals = [at(study, known, domain, arm, chosen, seed) for seed in study.file.seeds]
    return tried + [cell for cell in finals if cell is not None]


def tuning(study: Study, known: Known, domain: str, arm: str) -> list[Cell]:
    """The runs of the sweep, one a candidate; none if there is nothing to choose, or nothing to start from yet."""
    numbers = range(len(study.candidates)) if len(study.candidates) > 1 else ()
    cells = [at(study, known, domain, arm, number, study.file.seeds[0], tuning=True) for number in numbers]
    return [cell for cell in cells if cell is not None]


def at(
    study: Study, known: Known, domain: str, arm: str, candidate: int, seed: int, *, tuning: bool = False
) -> Cell | None:
    """The cell; None while what it starts from is not there."""
    source = study.file.arms[arm].starts_from
    if source is None:
        return Cell(domain, arm, candidate, seed, tuning)
    outcome = final(study, known, domain, source, seed)
    return None if outcome is None else Cell(domain, arm, candidate, seed, tuning, outcome["adapter"])


def best_candidate(study: Study, known: Known, domain: str, arm: str) -> int | None:
    """The candidate with the best validation accuracy at the first seed, the earlier of equal ones; None
    while one of them has no outcome."""
    if len(study.candidates) == 1:
        return 0
    cells = tuning(study, known, domain, arm)
    if not cells or any(cell not in known.outcomes for cell in cells):
        return None
    scores = [known.outcomes[cell]["validation"] for cell in cells]
    return scores.index(max(scores))


def final(study: Study, known: Known, domain: str, arm: str, seed: int) -> Outcome | None:
    """The outcome of the arm with the candidate that was chosen; None while it is not there."""
    chosen = best_candidate(study, known, domain, arm)
    if chosen is None:
        return None
    cell = at(study, known, domain, arm, chosen, seed)
    return None if cell is None else known.outcomes.get(cell)


def all_cells(study: Study, refused: dict[tuple[str, str], str]) -> int:
    """How many runs the whole study has."""
    return runs_of_arm(study) * sum((d, a) not in refused for d in study.domains for a in study.file.arms)


def runs_of_arm(study: Study) -> int:
    """How many runs one arm has on one domain, those of the sweep included."""
    tried = len(study.candidates) if len(study.candidates) > 1 else 0
    return tried + len(study.file.seeds)
