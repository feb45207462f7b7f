"""The judge judged: how far the grades of an assessor agree with people's, and what that does to what it measured.

What counts is right or wrong (method/grades.py), with people's grade as the truth. Of n rows that people and the judge
graded, four counts are kept (`Confusion`): sensitivity is the share of right answers that the judge calls right,
specificity that of wrong ones that it calls wrong. An accuracy p by the judge is then

    (p + specificity - 1) / (sensitivity + specificity - 1)

by people (Rogan and Gladen 1978, Am. J. Epidemiol. 107: 71-76), and the difference of two accuracies by the same judge
is divided by sensitivity + specificity - 1, Youden's J: specificity falls out, the sign stays, and the difference
grows. Both rest on one assumption: the judge errs as often on these answers as on those that people graded, and as
often on one adapter's as on the other's.

Intervals hold two sources of chance, the rows and the judge: each resample of the rows is corrected by a draw of the
confusion, whose cells are Dirichlet with Jeffreys' prior of 1/2 each, so that sensitivity and specificity have
Jeffreys' intervals (Brown, Cai and DasGupta 2001, Stat. Sci. 16: 101-133) and a judge that was right on ten rows is
not one without a fault. tests/test_judge.py has the coverage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from apt_assets.method.bootstrap import resampled_means, tails
from apt_assets.method.grades import is_right
from apt_assets.method.scores import wilson

DRAWS = 4000  # of the confusion, for what the report shows
JUDGES = 500  # drawn ones over which a likelihood is summed: it is smooth for each
CONFIDENCE = 0.975  # of each end there: 95 % intervals
EDGES = np.linspace(0, 1, 201)  # of the shares that are told apart there
NEARLY_NONE = 1e-9  # Youden's J of a drawn judge that tells right from wrong no better than chance


@dataclass(frozen=True)
class Confusion:
    """Rows by who calls them right: people, the judge, both or neither."""

    both: int = 0
    people_only: int = 0
    judge_only: int = 0
    neither: int = 0

    @property
    def counts(self) -> np.ndarray:
        return np.array([self.both, self.people_only, self.judge_only, self.neither], float)

    @property
    def rows(self) -> int:
        return self.both + self.people_only + self.judge_only + self.neither

    @property
    def corrects(self) -> bool:
        """Whether an accuracy can be corrected by it: people found right and wrong answers, and the judge tells them
        apart better than chance."""
        return 0 < self.both + self.people_only < self.rows and self.youden > 0

    @property
    def kappa(self) -> float:
        """Cohen's kappa (1960); 0 where people and judge say one and the same of all rows, which shows nothing."""
        return float(kappas(self.counts / max(self.rows, 1)))

    @property
    def youden(self) -> float:
        sensitivity, specificity = rates(self.counts)
        return float(sensitivity + specificity - 1)

    def draws(self, size: int) -> np.ndarray:
        """Of shape (size, 4): shares of the cells that could have given these counts. The seed is fixed, and another
        one than that of the rows."""
        return np.random.default_rng(1).dirichlet(self.counts + 0.5, size)

    def kappa_interval(self, confidence: float, size: int = DRAWS) -> tuple[float, float]:
        """Each end is a bound with that confidence."""
        low, high = np.quantile(kappas(self.draws(size)), tails(confidence))
        return float(low), float(high)


def confusion_of(people: pl.Series, judge: pl.Series) -> Confusion:
    """Of two grades 1-5 of each row."""
    theirs, its = is_right(people), is_right(judge)
    cells = (theirs & its, theirs & ~its, ~theirs & its, ~theirs & ~its)
    return Confusion(*(int(cell.sum()) for cell in cells))


def kappas(cells: np.ndarray) -> np.ndarray:
    """Cohen's kappa of shares of shape (..., 4); 0 where chance alone agrees always."""
    both, people_only, judge_only, neither = np.moveaxis(cells, -1, 0)
    people, judge = both + people_only, both + judge_only
    chance = people * judge + (1 - people) * (1 - judge)
    beyond = np.where(chance < 1, 1 - chance, 1)
    return np.where(chance < 1, (both + neither - chance) / beyond, 0.0)


def rates(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sensitivity, specificity) of counts or shares of shape (..., 4); 0 where there is no such row."""
    both, people_only, judge_only, neither = np.moveaxis(cells, -1, 0)
    right, wrong = both + people_only, judge_only + neither
    return both / np.where(right > 0, right, 1), neither / np.where(wrong > 0, wrong, 1)


def drawn_rates(confusion: Confusion, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(specificity, Youden's J) of each draw."""
    sensitivity, specificity = rates(confusion.draws(size))
    return specificity, np.maximum(sensitivity + specificity - 1, NEARLY_NONE)


def corrected_share(right: int, rows: int, confusion: Confusion) -> dict[str, Any]:
    """What people would have found of a share that the judge found, with its 95 % interval: {mean, low, high, n}.

    right: of `rows` rows, those that the judge calls right. Of no rows 0 in [0, 1]. confusion: one that corrects.
    """
    if rows == 0:
        return {"mean": 0.0, "low": 0.0, "high": 1.0, "n": 0}
    found = corrected(right / rows, confusion)
    below = np.cumsum([0, *likelihoods(right, rows, confusion)])
    low, high = np.interp(np.array(tails(CONFIDENCE)) * below[-1], below, EDGES)
    return {"mean": found, "low": min(float(low), found), "high": max(float(high), found), "n": rows}


def likelihoods(right: int, rows: int, confusion: Confusion) -> np.ndarray:
    """How likely these counts are, over all drawn judges, of each share between EDGES that people would have found.

    Estimates by the drawn judges are heaped up at 0 and 1 where a judge's errors explain all of what it found.
    """
    called_right, called_wrong = logs_of(confusion)
    logs = right * called_right + (rows - right) * called_wrong
    return np.exp(logs - logs.max()).sum(axis=0)  # type: ignore[no-any-return]


@lru_cache(maxsize=4)
def logs_of(confusion: Confusion) -> tuple[np.ndarray, np.ndarray]:
    """Of shape (JUDGES, shares) each: the logarithms of how likely a drawn judge calls an answer right, and wrong."""
    specificity, youden = (drawn[:, None] for drawn in drawn_rates(confusion, JUDGES))
    called = 1 - specificity + youden * (EDGES[1:] + EDGES[:-1]) / 2
    called = np.clip(called, NEARLY_NONE, 1 - NEARLY_NONE)
    return np.log(called), np.log1p(-called)


def corrected(share: float, confusion: Confusion) -> float:
    """The Rogan-Gladen estimate, within 0 and 1."""
    specificity = float(rates(confusion.counts)[1])
    return min(max((share + specificity - 1) / confusion.youden, 0.0), 1.0)


def corrected_difference(
    differences: pl.Series, confusion: Confusion, confidence: float, resamples: int
) -> tuple[float, float, float]:
    """(difference, low, high) of two accuracies by people, from what the judge found.

    differences: of each row right minus right, 1, 0 or -1. Each end is a bound with that confidence. (0, 0, 0) for no
    rows. confusion: one that corrects.
    """
    if differences.is_empty():
        return 0.0, 0.0, 0.0
    values, counts = np.unique(differences.to_numpy(), return_counts=True)
    _, youden = drawn_rates(confusion, resamples)
    drawn = np.clip(resampled_means(values, counts, resamples) / youden, -1, 1)
    low, high = np.quantile(drawn, tails(confidence))
    found = float(values @ counts) / len(differences) / confusion.youden
    return min(max(found, -1.0), 1.0), float(low), float(high)


def calibration(people: pl.Series, judge: pl.Series) -> dict[str, Any]:
    """What is told of a judge, of two grades 1-5 of each row, with 95 % intervals:

    {rows, agreement, sensitivity, specificity: shares by Wilson, kappa: {value, low, high}, weighted_kappa: of the five
    grades, by the square of their distance, confusion: the counts of `Confusion`, table: [people's grade - 1][judge's
    grade - 1] -> rows}
    """
    found = confusion_of(people, judge)
    low, high = found.kappa_interval(CONFIDENCE)
    return {
        "rows": found.rows,
        "agreement": wilson(found.both + found.neither, found.rows),
        "sensitivity": wilson(found.both, found.both + found.people_only),
        "specificity": wilson(found.neither, found.neither + found.judge_only),
        "kappa": {"value": found.kappa, "low": low, "high": high},
        "weighted_kappa": weighted_kappa(table := grade_table(people, judge)),
        "confusion": vars(found),
        "table": table,
    }


def grade_table(people: pl.Series, judge: pl.Series) -> list[list[int]]:
    """[people's grade - 1][judge's grade - 1] -> rows."""
    pairs = list(zip(people, judge, strict=True))
    return [[pairs.count((theirs, its)) for its in range(1, 6)] for theirs in range(1, 6)]


def weighted_kappa(table: Sequence[Sequence[int]]) -> float:
    """Cohen's kappa (1968) by the square of the distance of two grades; 0 where chance alone agrees always."""
    seen = np.array(table, float)
    weights = np.subtract.outer(np.arange(5), np.arange(5)) ** 2
    chance = np.outer(seen.sum(1), seen.sum(0)) / max(seen.sum(), 1)
    apart = float((weights * chance).sum())
    return 1 - float((weights * seen).sum()) / apart if apart else 0.0


def one_grade_each(grades: pl.DataFrame) -> pl.DataFrame:
    """Human grades with one row for each prompt, answer and golds, in the order in which they first came: of what one
    person graded again the latest counts, and of what several did their median, the lower one of two."""
    answered = ["prompt", "answer", "gold", "also"]
    latest = grades.sort("at", maintain_order=True).unique([*answered, "by"], keep="last", maintain_order=True)
    found = latest.group_by(answered, maintain_order=True).agg(
        pl.col("grade").sort().get((pl.len() - 1) // 2), pl.col("by").unique().sort().str.join(", ")
    )
    first = grades.select(answered).unique(maintain_order=True)
    return first.join(found, on=answered, how="left", nulls_equal=True, maintain_order="left")
