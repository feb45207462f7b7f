"""Exact match: 5 if the answer equals the gold, or one of several, after normalisation, else 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resources.assessors import FAST, AssessorKind, Grade, Row, Variant
from resources.assessors.labels import exact
from resources.store.kinds import RowKind

ROWS = RowKind("grades by exact", table="grades", code=(__name__,))


@dataclass(frozen=True)
class ExactMatch:
    at_once: int = FAST

    def grade(self, rows: Sequence[Row]) -> list[Grade]:
        same = [any(exact(row.prediction, gold) for gold in row.golds) for row in rows]
        return [Grade(5 if equal else 1, equal) for equal in same]


def open_exact(scope: Any) -> ExactMatch:
    return ExactMatch()


KIND = AssessorKind((Variant(ROWS, open_exact),))
