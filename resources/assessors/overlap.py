"""Overlap with the gold's text: ROUGE-L (Lin, 2004) or chrF (Popovic, 2015), 0-1, turned into a grade.

ROUGE-L is the F-measure of the longest common subsequence of words, by rouge_score; chrF that of
character n-grams, by sacrebleu, and needs no words. Neither knows what a sentence means: "not" is one
word of many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from resources.assessors import FAST, Grade, Row, by_thresholds
from resources.assessors.labels import exact, normalise_answer


class Words:
    """rouge_score's own tokeniser keeps only a-z and 0-9, so that Greek or Chinese would have no words."""

    def tokenize(self, text: str) -> list[str]:
        return normalise_answer(text).split()


@dataclass(frozen=True)
class TextOverlap:
    """thresholds: least score of grades 2, 3, 4 and 5, each 0-1."""

    metric: Literal["rouge_l", "chrf"]
    thresholds: Sequence[float]
    at_once: int = FAST

    def grade(self, rows: Sequence[Row]) -> list[Grade]:
        return [
            Grade(by_thresholds(self.score(row.prediction, row.gold), self.thresholds), exact(row.prediction, row.gold))
            for row in rows
        ]

    def score(self, prediction: str, gold: str) -> float:
        """How much of one is in the other, 0-1."""
        if self.metric == "rouge_l":
            return self._scorer.score(gold, prediction)["rougeL"].fmeasure
        return self._scorer.sentence_score(prediction, [gold]).score / 100

    @cached_property
    def _scorer(self) -> Any:
        if self.metric == "rouge_l":
            from rouge_score.rouge_scorer import RougeScorer

            return RougeScorer(["rougeL"], tokenizer=Words())
        from sacrebleu.metrics import CHRF

        return CHRF()
