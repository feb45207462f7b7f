"""Assessors: each grades answers 1-5 against the gold, by a rubric of its own. One file per kind.

A row may have several golds; an answer is as good as it is by the best of them.

labels    names the gold and no other label (the default)
exact     equal after normalisation, or not
numeric   a number with its unit, within a tolerance
set_f1    the items of a list, by F1
overlap   ROUGE-L or chrF of the text
rubric    a language model with a rubric: behind an endpoint (endpoint.py) or local (local.py)

Each file holds the assessor's settings, what its grades are kept by (`RowKind`), and how it is opened; kinds.py is
the list of all. Against which golds a kind cannot grade stands in golds.py. Which kind grades a run, and how several
are combined, stands in apt_assets/rows/grades.py.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Protocol

from pydantic import AfterValidator, Field

from resources.section import Fraction, Section
from resources.store.kinds import RowKind
from resources.store.rows import Batches


class Row(NamedTuple):
    """One answer to be graded. also: further answers that are right as well as the gold."""

    question: str
    prediction: str
    gold: str
    also: tuple[str, ...] = ()

    @property
    def golds(self) -> tuple[str, ...]:
        return (self.gold, *self.also)


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


@dataclass(frozen=True)
class Variant:
    """One way in which a kind grades. rows: what its grades are kept by. open: gets what that declares and nothing
    else (a `RowScope` of engine/scope.py), returns the Assessor."""

    rows: RowKind
    open: Callable[[Any], Assessor]


@dataclass(frozen=True)
class AssessorKind:
    """An assessor that `assessor.kind` can name. choose: by AssessorSettings, the number of the variant that grades.
    settings: its section, `assessor.<kind>`; None: it has none."""

    variants: tuple[Variant, ...]
    choose: Callable[[Any], int] = lambda settings: 0
    settings: type[Section] | None = None

    def variant(self, settings: Any) -> Variant:
        return self.variants[self.choose(settings)]


def best_over_golds(row: Row, grade: Callable[[Row], Grade]) -> Grade:
    """The best of the grades by each gold of the row. A gold by which nothing can be graded is passed over; raises
    Ungradable where none is left."""
    found, reasons = [], []
    for gold in row.golds:
        try:
            found.append(grade(row._replace(gold=gold)))
        except Ungradable as reason:
            reasons.append(reason)
    if not found:
        raise reasons[0]
    return max(found)


def in_parts(assessor: Assessor, rows: Sequence[Row]) -> Batches[Grade]:
    """(positions, grades) of the rows, as many at a time as the assessor takes. Raises Ungradable."""
    for start in range(0, len(rows), assessor.at_once):
        part = range(start, min(start + assessor.at_once, len(rows)))
        yield part, assessor.grade([rows[place] for place in part])


def ascending(thresholds: list[float]) -> list[float]:
    if thresholds != sorted(thresholds):
        raise ValueError("thresholds must ascend: they are the least scores of grades 2, 3, 4 and 5")
    return thresholds


Thresholds = Annotated[list[Fraction], Field(min_length=4, max_length=4), AfterValidator(ascending)]

FAST = 1 << 16  # at_once of an assessor whose grades cost next to nothing


def by_thresholds(score: float, thresholds: Iterable[float]) -> int:
    """1, and one more for each of four ascending thresholds that the score reaches."""
    return 1 + sum(score >= threshold for threshold in thresholds)
