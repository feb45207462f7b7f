"""Assessors: each grades answers 1-5 against the gold, by a rubric of its own. One file per kind.

labels    names the gold and no other label (the default)
exact     equal after normalisation, or not
numeric   a number with its unit, within a tolerance
set_f1    the items of a list, by F1
overlap   ROUGE-L or chrF of the text
rubric    a language model with a rubric: behind an endpoint (endpoint.py) or local (local.py)

Which kind grades a run, and how several are combined, stands in apt_assets/rows/grades.py.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol


class Row(NamedTuple):
    """One answer to be graded."""

    question: str
    prediction: str
    gold: str


class Grade(NamedTuple):
    """grade: 1-5. exact: whether the prediction says the same as the gold, in the assessor's normal form."""

    grade: int
    exact: bool


class Ungradable(Exception):
    """A row that this assessor cannot grade; the message names the row and says why."""


class Assessor(Protocol):
    """Grades rows independently of each other."""

    @property
    def at_once(self) -> int:
        """How many rows are handed over at a time; they are kept before the next ones are graded."""
        ...

    def grade(self, rows: Sequence[Row]) -> list[Grade]:
        """The grade of every row, in order. Raises Ungradable; no row is ever left out or made up."""
        ...


FAST = 1 << 16  # at_once of an assessor whose grades cost next to nothing


def by_thresholds(score: float, thresholds: Iterable[float]) -> int:
    """1, and one more for each of four ascending thresholds that the score reaches."""
    return 1 + sum(score >= threshold for threshold in thresholds)
