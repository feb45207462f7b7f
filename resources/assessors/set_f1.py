"""Lists and label sets: F1 of the answer's items against the gold's, whatever their order.

An item said twice counts once. Items are compared after normalisation (resources/assessors/labels.py). A
part of the answer that names items of the gold counts as those, so that "They are red" and "and blue" do, the longest
first: "yellow fever" is not "fever" too. What a conjunction joins to one, no longer than an item, counts as one more:
"red and green". Any other part is a wrong item, unless it ends with a colon. The F1 is turned into a grade by four
thresholds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydantic import Field, field_validator

from resources.assessors import (
    FAST,
    AssessorKind,
    Grade,
    Row,
    Thresholds,
    Ungradable,
    Variant,
    best_over_golds,
    by_thresholds,
)
from resources.assessors.items import texts_of_items
from resources.assessors.labels import normalise_answer, word_list
from resources.section import Section
from resources.store.kinds import RowKind
from resources.words import letters

# Between items of one part; of what is written in other scripts, only signs.
CONJUNCTION = r" (?:and|or|und|oder|et|ou|y|[&+/])(?= )"
NAMED = "\x00"
ROWS = RowKind("grades by set_f1", table="grades", settings=("assessor.set_f1",), code=(__name__,))


class SetF1Settings(Section):
    """The items of a list, in any order."""

    separator: str = Field(
        r"[,;\n，、；،؛]",
        description="Regular expression that stands between items.",
    )
    thresholds: Thresholds = Field([0.25, 0.5, 0.85, 1.0], description="Least F1 of grades 2, 3, 4 and 5 (choice).")

    @field_validator("separator")
    @classmethod
    def is_an_expression(cls, separator: str) -> str:
        try:
            empty = re.compile(separator).fullmatch("")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if empty:
            raise ValueError("must not match nothing: every character would be an item")
        return separator


@dataclass(frozen=True)
class SetF1:
    """separator: a regular expression that stands between items. thresholds: least F1 of grades 2, 3, 4 and 5."""

    separator: str
    thresholds: Sequence[float]
    at_once: int = FAST

    def grade(self, rows: Sequence[Row]) -> list[Grade]:
        return [best_over_golds(row, self.grade_row) for row in rows]

    def grade_row(self, row: Row) -> Grade:
        wanted = set(items_of(row.gold, self.separator))
        if not wanted:
            raise Ungradable(f"assessor set_f1: the gold {row.gold!r} of the question {row.question!r} has no items")
        said: set[str] = set()
        for part in items_of(row.prediction, self.separator):
            named, rest = named_in(part, wanted)
            said |= named | beside(rest, wanted) if named else {part}
        return Grade(by_thresholds(f1(said, wanted), self.thresholds), said == wanted)


def named_in(part: str, wanted: set[str]) -> tuple[set[str], str]:
    """(items of the gold that a part names, the part with NAMED in their place), each of its words counted once."""
    named, rest = set(), f" {letters(part)} "
    for item in sorted(wanted, key=lambda item: (-len(item), item)):
        words = f" {letters(item)} "
        if item and words in rest:
            named.add(item)
            rest = rest.replace(words, f" {NAMED} ")
    return named, rest


def beside(rest: str, wanted: set[str]) -> set[str]:
    """What a part joins to items that it names, and which is no longer than one of the gold: a clause is none."""
    pieces = [piece.strip() for piece in re.split(CONJUNCTION, rest)]
    most = max(len(word_list(item)) for item in wanted)
    joined = {piece for pair in pairwise(pieces) if NAMED in pair for piece in pair}
    return {piece for piece in joined if piece and NAMED not in piece and len(piece.split()) <= most}


def items_of(text: str, separator: str) -> list[str]:
    """The items of a text, normalised."""
    return [normalise_answer(item) for item in texts_of_items(text, separator)]


def f1(said: set[str], wanted: set[str]) -> float:
    """2 x shared / all, 0-1."""
    return 2 * len(said & wanted) / (len(said) + len(wanted))


def open_set_f1(scope: Any) -> SetF1:
    return SetF1(**scope.settings.assessor.set_f1.model_dump())


KIND = AssessorKind((Variant(ROWS, open_set_f1),), settings=SetF1Settings)
