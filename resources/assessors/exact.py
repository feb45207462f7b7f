"""Exact match: 5 if the answer equals the gold after normalisation, else 1."""

from collections.abc import Sequence
from dataclasses import dataclass

from resources.assessors import FAST, Grade, Row
from resources.assessors.labels import exact


@dataclass(frozen=True)
class ExactMatch:
    at_once: int = FAST

    def grade(self, rows: Sequence[Row]) -> list[Grade]:
        same = [exact(row.prediction, row.gold) for row in rows]
        return [Grade(5 if equal else 1, equal) for equal in same]
