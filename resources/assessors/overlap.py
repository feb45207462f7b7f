"""Overlap with the gold's text: ROUGE-L (Lin, 2004) or chrF (Popovic, 2015), 0-1, turned into a grade.

ROUGE-L is the F-measure of the longest common subsequence of words, by rouge_score (of letters in a script without
spaces, such as Chinese or Thai); chrF that of
character n-grams, by sacrebleu, and needs no words. Neither knows what a sentence means: "not" is one
word of many.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from resources.assessors import FAST, AssessorKind, Grade, Row, Thresholds, Variant, best_over_golds, by_thresholds
from resources.assessors.labels import exact, normalise_answer, word_list
from resources.section import Section
from resources.store.kinds import RowKind

# Only the library that scores counts.
ROUGE_L, CHRF = (
    RowKind(
        f"grades by {metric}", table="grades", settings=("assessor.overlap",), libraries=(library,), code=(__name__,)
    )
    for metric, library in (("rouge_l", "rouge_score"), ("chrf", "sacrebleu"))
)


class OverlapSettings(Section):
    """How much text answer and gold share."""

    metric: Literal["rouge_l", "chrf"] = Field("rouge_l", description="rouge_l: of words; chrf: of characters.")
    thresholds: Thresholds = Field(
        [0.2, 0.4, 0.6, 0.8], description="Least score, 0-1, of grades 2, 3, 4 and 5 (choice)."
    )


class Words:
    """rouge_score's own tokeniser keeps only a-z and 0-9, so that Greek or Chinese would have no words."""

    def tokenize(self, text: str) -> list[str]:
        return word_list(normalise_answer(text))


@dataclass(frozen=True)
class TextOverlap:
    """thresholds: least score of grades 2, 3, 4 and 5, each 0-1."""

    metric: Literal["rouge_l", "chrf"]
    thresholds: Sequence[float]
    at_once: int = FAST

    def grade(self, rows: Sequence[Row]) -> list[Grade]:
        return [best_over_golds(row, self.grade_row) for row in rows]

    def grade_row(self, row: Row) -> Grade:
        if exact(row.prediction, row.gold):
            return Grade(5, True)
        return Grade(by_thresholds(self.score(row.prediction, row.gold), self.thresholds), False)

    def score(self, prediction: str, gold: str) -> float:
        """How much of one is in the other, 0-1."""
        if self.metric == "rouge_l":
            return self._scorer.score(gold, prediction)["rougeL"].fmeasure
        # One letter may be written as one character or as two, and chrF counts characters.
        said, wanted = (unicodedata.normalize("NFC", text) for text in (prediction, gold))
        return self._scorer.sentence_score(said, [wanted]).score / 100

    @cached_property
    def _scorer(self) -> Any:
        if self.metric == "rouge_l":
            from rouge_score.rouge_scorer import RougeScorer

            return RougeScorer(["rougeL"], tokenizer=Words())
        from sacrebleu.metrics import CHRF

        return CHRF()


def open_overlap(scope: Any) -> TextOverlap:
    return TextOverlap(**scope.settings.assessor.overlap.model_dump())


KIND = AssessorKind(
    (Variant(ROUGE_L, open_overlap), Variant(CHRF, open_overlap)),
    choose=lambda settings: int(settings.overlap.metric == "chrf"),
    settings=OverlapSettings,
)
