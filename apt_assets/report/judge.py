"""How far the assessor agrees with people, for people: what the report, the terminal and the model card say of it."""

from typing import Any

from apt_assets.report.html import Table
from apt_assets.report.results import SPLITS
from apt_assets.report.tables import interval

COLUMNS = ("iteration", *(f"{split}, by people %" for split in SPLITS))


def sentence(judge: dict[str, Any]) -> str:
    if not judge["rows"]:
        return "People have graded no answer yet, so the gate promotes nothing."
    kappa = judge["kappa"]
    agreement, right, wrong = (interval(judge[name]) for name in ("agreement", "sensitivity", "specificity"))
    return (
        f"The assessor and people agree on {agreement} % of {judge['rows']} answers: kappa {kappa['value']:.2f} "
        f"[{kappa['low']:.2f}, {kappa['high']:.2f}], floor {judge['floor']:g}. It calls right {right} % of right "
        f"answers, and wrong {wrong} % of wrong ones."
    )


def corrected_rows(found: dict[str, Any]) -> list[list[str]]:
    """A row for each iteration of `results` that is corrected."""
    entries = [entry for entry in found["iterations"] if entry["by_people"]]
    return [[entry["iteration"], *(interval(entry["by_people"][split]) for split in SPLITS)] for entry in entries]


def section(found: dict[str, Any]) -> dict[str, Any] | None:
    """What the page shows; None: the assessor is taken at its word."""
    judge = found["judge"]
    if judge is None:
        return None
    rows = [[f"people: {grade}", *counts] for grade, counts in enumerate(judge["table"], 1)]
    return {
        "sentence": sentence(judge),
        "refused": judge["refused"],
        "weighted_kappa": f"{judge['weighted_kappa']:.2f}",
        "table": Table(("grade by", *(f"assessor: {grade}" for grade in range(1, 6))), rows, numbers=range(1, 6)),
        "corrected": Table(COLUMNS, corrected_rows(found), numbers=(1, 2)),
    }
