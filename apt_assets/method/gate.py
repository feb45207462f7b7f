"""The gate: may this adapter be promoted? Checks that are paired over the same items.

Domain: validation accuracy (lenient) not below the promoted adapter's by more than the tolerance.
    A point comparison: an iteration that is not better on its own validation split is rolled back.
General ability is held to that of what the loop starts from, the base model or the initial adapter, by three checks of
non-inferiority: with the given confidence, the loss is no more than the tolerance (the worse end of an interval of the
paired difference, a bound of that confidence, lies within it). Too few items to tell is a refusal, and says how many
would do.
    general: mean accuracy over the general items; the bound is of the score test (method/paired.py).
    likelihood: mean log-likelihood of the gold choice, nats per character, which falls before an answer turns; the
        bound is of the paired bootstrap, as that of the last.
    perplexity: of a word, over the passages; not checked where no task has any.
judge: where people graded some answers too (`assessor.calibration`), kappa of the assessor's grades with theirs is not
    below the floor, with the given confidence. Then domain accuracies and their interval are corrected for the errors
    of the assessor that these rows show (method/judge.py).
"""

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl

from apt_assets.method.bootstrap import paired_bootstrap, tails
from apt_assets.method.check import POWER, Check
from apt_assets.method.grades import is_right
from apt_assets.method.judge import Confusion, corrected, corrected_difference
from apt_assets.method.paired import fewest_items, score_interval

ROUNDING = 1e-9  # of a difference of two shares, which may equal its tolerance


@dataclass(frozen=True)
class Scores:
    """DomainItems, GeneralItems and PassageItems of one policy."""

    domain: pl.DataFrame
    general: pl.DataFrame
    passages: pl.DataFrame


@dataclass(frozen=True)
class Judge:
    """What is known of the assessor. floor: least kappa (`assessor.calibration.floor`)."""

    confusion: Confusion
    floor: float


@dataclass(frozen=True)
class Tolerances:
    """The settings of `gate`; see there."""

    domain_tolerance: float
    general_tolerance: float
    likelihood_tolerance: float | None
    perplexity_tolerance: float | None
    confidence: float
    resamples: int


def decide(
    candidate: Scores,
    promoted_domain: pl.DataFrame,
    start: Scores,
    tolerances: Tolerances,
    *,
    promoted: str,
    name: str,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """The verdict: {passed, reason, checks: [Check as a dict]}.

    Rows are paired by item, a question by its gold too, and an item that only one side has is left out. `promoted`
    names what the domain check compares with, `name` the start, which the others compare with. judge: None: the
    assessor is taken at its word.
    """
    checks = [
        domain_check(candidate.domain, promoted_domain, tolerances, promoted, judge),
        *general_checks(candidate.general, start.general, tolerances, name),
    ]
    passages = pair(candidate.passages, start.passages, "nats", "words")
    if passages.height and tolerances.perplexity_tolerance is not None:
        checks.append(perplexity_check(passages, tolerances.perplexity_tolerance, tolerances, name))
    if judge is not None:
        checks.append(judge_check(judge, tolerances))
    refused = [check.sentence() for check in checks if not check.passed]
    return {
        "passed": not refused,
        "reason": "; ".join(refused or [check.sentence() for check in checks]),
        "checks": [asdict(check) for check in checks],
    }


def start_in_words(adapter: object | None) -> str:
    """What the loop starts from; adapter: the initial one, None for the base model alone."""
    return "the base model" if adapter is None else "the initial adapter"


def domain_check(
    candidate: pl.DataFrame, promoted: pl.DataFrame, tolerances: Tolerances, against: str, judge: Judge | None
) -> Check:
    # By question and gold: of a row that was corrected in between each side was graded against another one.
    both = (
        validation(candidate)
        .join(validation(promoted), on=("row_id", "answer", "also"), nulls_equal=True, suffix="_reference")
        .sort("row_id")
    )
    compared = shares(both["right"], both["right_reference"], tolerances.confidence)
    if judge is not None and judge.confusion.corrects and both.height:
        compared |= by_people(both["right"], both["right_reference"], judge.confusion, tolerances)
        against = f"{against}, corrected for the judge"
    passed = both.height > 0 and compared["difference"] >= -tolerances.domain_tolerance - ROUNDING
    return Check("domain", passed, tolerance=tolerances.domain_tolerance, against=against, **compared)


def by_people(one: pl.Series, other: pl.Series, confusion: Confusion, tolerances: Tolerances) -> dict[str, float]:
    """{candidate, reference, difference, low, high} of what the judge found, as people would have found it."""
    candidate, reference = (corrected(float(right.mean()), confusion) for right in (one, other))  # type: ignore[arg-type]
    difference, low, high = corrected_difference(
        one.cast(float) - other.cast(float), confusion, tolerances.confidence, tolerances.resamples
    )
    return {"candidate": candidate, "reference": reference, "difference": difference, "low": low, "high": high}


def judge_check(judge: Judge, tolerances: Tolerances) -> Check:
    confusion, floor = judge.confusion, judge.floor
    low, high = confusion.kappa_interval(tolerances.confidence)
    return Check(
        "judge",
        passed=confusion.rows > 0 and low >= floor,
        candidate=confusion.kappa,
        reference=floor,
        difference=confusion.kappa - floor,
        low=low - floor,
        high=high - floor,
        tolerance=0.0,
        items=confusion.rows,
        against="the floor of kappa (assessor.calibration.floor)",
    )


def validation(domain: pl.DataFrame) -> pl.DataFrame:
    """row_id, answer, also, right of the validation rows."""
    chosen = domain.filter(pl.col("split") == "validation")
    return chosen.select("row_id", "answer", "also", is_right(pl.col("grade")).alias("right"))


def general_checks(candidate: pl.DataFrame, start: pl.DataFrame, tolerances: Tolerances, against: str) -> list[Check]:
    both = pair(candidate, start, "correct", "gold")
    checks = [accuracy_check(both["correct"], both["correct_reference"], tolerances, against)]
    if (tolerance := tolerances.likelihood_tolerance) is not None:
        checks.append(likelihood_check(both["gold"], both["gold_reference"], tolerance, tolerances, against))
    return checks


def accuracy_check(candidate: pl.Series, start: pl.Series, tolerances: Tolerances, against: str) -> Check:
    """Of which items are right."""
    compared, tolerance = shares(candidate, start, tolerances.confidence), tolerances.general_tolerance
    turning = smallest_visible(candidate.cast(float) - start.cast(float), tolerances.confidence) or 0.0
    # By how much one that lost nothing might have: where hardly any item turned, that is more.
    reach = compared["difference"] - compared["low"]
    needed = fewest_items(tolerance, tolerances.confidence)
    if turning:
        needed = max(needed, enough(max(turning, reach), len(candidate), tolerance))
    return Check(
        "general",
        within(compared, tolerance),
        tolerance=tolerance,
        against=against,
        visible=max(turning, reach),
        needed=needed,
        **compared,
    )


def likelihood_check(
    candidate: pl.Series, start: pl.Series, tolerance: float, tolerances: Tolerances, against: str
) -> Check:
    """Of the log-likelihoods of gold choices."""
    compared = means(candidate, start, tolerances)
    seen = smallest_visible(candidate - start, tolerances.confidence)
    needed, passed = enough(seen, len(candidate), tolerance), within(compared, tolerance)
    return Check("likelihood", passed, tolerance=tolerance, against=against, visible=seen, needed=needed, **compared)


def within(compared: dict[str, Any], tolerance: float) -> bool:
    """Whether a loss beyond the tolerance is out of the question; of no items it is not."""
    return compared["items"] > 0 and compared["low"] >= -tolerance - ROUNDING


def perplexity_check(both: pl.DataFrame, tolerance: float, tolerances: Tolerances, against: str) -> Check:
    """both: nats, words and nats_reference of each passage."""
    nats, words, before = (both[name].to_numpy().astype(float) for name in ("nats", "words", "nats_reference"))
    more = nats - before
    draws = np.random.default_rng(0).multinomial(len(words), np.full(len(words), 1 / len(words)), tolerances.resamples)
    low, high = np.quantile((draws @ more) / (draws @ words), tails(tolerances.confidence))
    rate = more.sum() / words.sum()
    # Of a ratio of sums, by linearisation, as method/scores.py has it.
    seen = smallest_visible(pl.Series((more - rate * words) * len(words) / words.sum()), tolerances.confidence)
    visible = None if seen is None else math.expm1(min(seen, 700.0))
    return Check(
        "perplexity",
        passed=bool(math.expm1(min(high, 700.0)) <= tolerance),
        candidate=perplexity(nats, words),
        reference=perplexity(before, words),
        difference=math.expm1(min(rate, 700.0)),
        low=math.expm1(min(low, 700.0)),
        high=math.expm1(min(high, 700.0)),
        tolerance=tolerance,
        items=len(words),
        against=against,
        visible=visible,
        needed=enough(visible, len(words), tolerance),
    )


def perplexity(nats: np.ndarray, words: np.ndarray) -> float:
    return math.exp(min(nats.sum() / words.sum(), 700.0))  # JSON has no infinity


def pair(candidate: pl.DataFrame, reference: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """These columns of the items that both sides have, and of the reference as `..._reference`, sorted by item."""
    keys = ["task", "item"]
    both = candidate.join(reference, on=keys, how="inner", suffix="_reference").sort(keys)
    return both.select(*columns, *(f"{column}_reference" for column in columns))


def shares(candidate: pl.Series, reference: pl.Series, confidence: float) -> dict[str, Any]:
    """What `means` has, of two columns of the same items, right or not; the bounds are those of the score test."""
    gained, lost = int((candidate & ~reference).sum()), int((~candidate & reference).sum())
    low, high = score_interval(gained, lost, len(candidate), confidence)
    return {**side_by_side(candidate.cast(float), reference.cast(float)), "low": low, "high": high}


def means(candidate: pl.Series, reference: pl.Series, tolerances: Tolerances) -> dict[str, Any]:
    """{candidate, reference, difference, low, high, items} of the means of two columns of the same items; the bounds
    are those of the paired bootstrap."""
    low, high = paired_bootstrap(candidate - reference, tolerances.confidence, tolerances.resamples)
    return {**side_by_side(candidate, reference), "low": low, "high": high}


def side_by_side(candidate: pl.Series, reference: pl.Series) -> dict[str, Any]:
    mine, theirs = (float(values.sum()) / max(len(values), 1) for values in (candidate, reference))
    return {"candidate": mine, "reference": theirs, "difference": mine - theirs, "items": len(candidate)}


def smallest_visible(differences: pl.Series, confidence: float) -> float | None:
    """The loss of a mean that is told from none with a power of POWER, if differences spread as these do: (z of the
    confidence + z of the power) standard errors. None for fewer than two items."""
    spread = differences.std()
    if spread is None:
        return None
    z = NormalDist().inv_cdf
    return (z(confidence) + z(POWER)) * float(spread) / math.sqrt(len(differences))  # type: ignore[arg-type]


def enough(visible: float | None, items: int, tolerance: float) -> int:
    """Items that see a loss of the tolerance, where these see one of `visible`; 0 where that cannot be told."""
    return math.ceil(items * (visible / tolerance) ** 2) if visible and tolerance else 0
