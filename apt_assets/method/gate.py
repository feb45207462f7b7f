"""The gate: may this adapter be promoted? Checks that are paired over the same items.

Domain: validation accuracy (lenient) not below the promoted adapter's by more than the tolerance.
    A point comparison: an iteration that is not better on its own validation split is rolled back.
General ability is held to that of what the loop starts from, the base model or the initial adapter, by three checks of
non-inferiority: with the given confidence, the loss is no more than the tolerance (the worse end of the paired
bootstrap interval, a bound of that confidence, lies within it). Too few items to tell is a refusal, and says how
many would do.
    general: mean accuracy over the general items.
    likelihood: mean log-likelihood of the gold choice, nats per character, which falls before an answer turns.
    perplexity: of a word, over the passages; not checked where no task has any.
"""

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl

from apt_assets.method.grades import is_right

POWER = 0.8  # of seeing a loss, by which the smallest visible one is told


@dataclass(frozen=True)
class Scores:
    """DomainItems, GeneralItems and PassageItems of one policy."""

    domain: pl.DataFrame
    general: pl.DataFrame
    passages: pl.DataFrame


@dataclass(frozen=True)
class Tolerances:
    """The settings of `gate`; see there."""

    domain_tolerance: float
    general_tolerance: float
    likelihood_tolerance: float | None
    perplexity_tolerance: float | None
    confidence: float
    resamples: int


@dataclass(frozen=True)
class Check:
    """One comparison; low and high bound `difference`, by which the candidate is above the reference.

    Accuracies are shares 0-1. Likelihoods are nats per character. Of perplexities per word the difference is a share:
    by how much more. visible: the smallest loss, as a positive number, that is seen with a power of POWER.
    """

    name: str
    passed: bool
    candidate: float
    reference: float
    difference: float
    low: float
    high: float
    tolerance: float
    items: int
    against: str
    visible: float | None = None

    def sentence(self) -> str:
        if self.items == 0:
            where = "raise data.validation or land more data" if self.name == "domain" else "name benchmarks.tasks"
            return f"{self.name} refused: there is no item to compare on ({where})"
        verdict = "passed" if self.passed else "refused"
        form = FORMS[self.name]
        low, high, difference = (f"{form.scale * value:+.{form.digits}f}" for value in self.ends())
        return (
            f"{self.name} {verdict}: {form.shown(self.candidate)} against {form.shown(self.reference)} of "
            f"{self.against}, difference {difference}{form.unit} [{low}, {high}] on {self.items} {form.items}, "
            f"tolerance {form.scale * self.tolerance:.{form.digits}f}{self.too_few()}"
        )

    def ends(self) -> tuple[float, float, float]:
        return self.low, self.high, self.difference

    def too_few(self) -> str:
        """What more items would see; "" where these are enough."""
        if self.visible is None or self.visible <= self.tolerance or self.tolerance == 0:
            return ""
        form, needed = FORMS[self.name], math.ceil(self.items * (self.visible / self.tolerance) ** 2)
        return (
            f"; a loss of less than {form.scale * self.visible:.{form.digits}f}{form.unit} is seen less than "
            f"{POWER:.0%} of the time: {needed:,} {form.items} would see the tolerance"
        )


@dataclass(frozen=True)
class Form:
    """How a check is told: a value is given as it is, a difference times `scale`."""

    shown: Any
    unit: str
    scale: float
    digits: int
    items: str


FORMS = {
    "domain": Form("{:.1%}".format, " points", 100, 1, "items"),
    "general": Form("{:.1%}".format, " points", 100, 1, "items"),
    "likelihood": Form("{:.3f}".format, " nats", 1, 3, "items"),
    "perplexity": Form("{:.1f}".format, " %", 100, 1, "passages"),
}
CHECKS = tuple(FORMS)


def decide(
    candidate: Scores, promoted_domain: pl.DataFrame, start: Scores, tolerances: Tolerances, *, promoted: str, name: str
) -> dict[str, Any]:
    """The verdict: {passed, reason, checks: [Check as a dict]}.

    Rows are paired by item, and an item that only one side has is left out. `promoted` names what the domain check
    compares with, `name` the start, which the others compare with.
    """
    checks = [
        domain_check(candidate.domain, promoted_domain, tolerances, promoted),
        *general_checks(candidate.general, start.general, tolerances, name),
    ]
    passages = pair(candidate.passages, start.passages, "nats", "words")
    if passages.height and tolerances.perplexity_tolerance is not None:
        checks.append(perplexity_check(passages, tolerances.perplexity_tolerance, tolerances, name))
    refused = [check.sentence() for check in checks if not check.passed]
    return {
        "passed": not refused,
        "reason": "; ".join(refused or [check.sentence() for check in checks]),
        "checks": [asdict(check) for check in checks],
    }


def start_in_words(adapter: object | None) -> str:
    """What the loop starts from; adapter: the initial one, None for the base model alone."""
    return "the base model" if adapter is None else "the initial adapter"


def domain_check(candidate: pl.DataFrame, promoted: pl.DataFrame, tolerances: Tolerances, against: str) -> Check:
    both = validation(candidate).join(validation(promoted), on="row_id", suffix="_reference").sort("row_id")
    compared = means(both["right"], both["right_reference"], tolerances)
    passed = both.height > 0 and compared["difference"] >= -tolerances.domain_tolerance
    return Check("domain", passed, tolerance=tolerances.domain_tolerance, against=against, **compared)


def validation(domain: pl.DataFrame) -> pl.DataFrame:
    """row_id, right of the validation rows."""
    chosen = domain.filter(pl.col("split") == "validation")
    return chosen.select("row_id", is_right(pl.col("grade")).alias("right"))


def general_checks(candidate: pl.DataFrame, start: pl.DataFrame, tolerances: Tolerances, against: str) -> list[Check]:
    both, found = pair(candidate, start, "correct", "gold"), []
    for name, column, tolerance in (
        ("general", "correct", tolerances.general_tolerance),
        ("likelihood", "gold", tolerances.likelihood_tolerance),
    ):
        if tolerance is None:
            continue
        compared = means(both[column], both[f"{column}_reference"], tolerances)
        passed = both.height > 0 and compared["low"] >= -tolerance
        seen = smallest_visible(both[column].cast(float) - both[f"{column}_reference"].cast(float), tolerances)
        found.append(Check(name, passed, tolerance=tolerance, against=against, visible=seen, **compared))
    return found


def perplexity_check(both: pl.DataFrame, tolerance: float, tolerances: Tolerances, against: str) -> Check:
    """both: nats, words and nats_reference of each passage."""
    nats, words, before = (both[name].to_numpy().astype(float) for name in ("nats", "words", "nats_reference"))
    more = nats - before
    draws = np.random.default_rng(0).multinomial(len(words), np.full(len(words), 1 / len(words)), tolerances.resamples)
    low, high = np.quantile((draws @ more) / (draws @ words), tails(tolerances.confidence))
    rate = more.sum() / words.sum()
    # Of a ratio of sums, by linearisation, as method/scores.py has it.
    seen = smallest_visible(pl.Series((more - rate * words) * len(words) / words.sum()), tolerances)
    return Check(
        "perplexity",
        passed=bool(math.expm1(high) <= tolerance),
        candidate=perplexity(nats, words),
        reference=perplexity(before, words),
        difference=math.expm1(min(rate, 700.0)),
        low=math.expm1(min(low, 700.0)),
        high=math.expm1(min(high, 700.0)),
        tolerance=tolerance,
        items=len(words),
        against=against,
        visible=None if seen is None else math.expm1(min(seen, 700.0)),
    )


def perplexity(nats: np.ndarray, words: np.ndarray) -> float:
    return math.exp(min(nats.sum() / words.sum(), 700.0))  # JSON has no infinity


def pair(candidate: pl.DataFrame, reference: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """These columns of the items that both sides have, and of the reference as `..._reference`, sorted by item."""
    keys = ["task", "item"]
    both = candidate.join(reference, on=keys, how="inner", suffix="_reference").sort(keys)
    return both.select(*columns, *(f"{column}_reference" for column in columns))


def means(candidate: pl.Series, reference: pl.Series, tolerances: Tolerances) -> dict[str, Any]:
    """{candidate, reference, difference, low, high, items} of the means of two columns of the same items."""
    one, other = candidate.cast(float), reference.cast(float)
    low, high = paired_bootstrap(one - other, tolerances.confidence, tolerances.resamples)
    mine, theirs = (float(values.sum()) / max(len(values), 1) for values in (one, other))
    return {
        "candidate": mine,
        "reference": theirs,
        "difference": mine - theirs,
        "low": low,
        "high": high,
        "items": len(one),
    }


def smallest_visible(differences: pl.Series, tolerances: Tolerances) -> float | None:
    """The loss of a mean that is told from none with a power of POWER, if differences spread as these do: (z of the
    confidence + z of the power) standard errors. None for fewer than two items."""
    spread = differences.std()
    if spread is None:
        return None
    z = NormalDist().inv_cdf
    error = float(spread) / math.sqrt(len(differences))  # type: ignore[arg-type]
    return (z(tolerances.confidence) + z(POWER)) * error


def tails(confidence: float) -> tuple[float, float]:
    """The quantiles of an interval of which each end is a bound with that confidence."""
    return 1 - confidence, confidence


def paired_bootstrap(differences: pl.Series, confidence: float, resamples: int) -> tuple[float, float]:
    """Percentile interval of the mean difference, resampling items (Efron and Tibshirani 1993); each end is a bound
    with that confidence. (0, 0) for no items."""
    if differences.is_empty():
        return 0.0, 0.0
    values, counts = np.unique(differences.to_numpy(), return_counts=True)
    return resampled_mean(values, counts, confidence, resamples)


def resampled_mean(values: np.ndarray, counts: np.ndarray, confidence: float, resamples: int) -> tuple[float, float]:
    """Percentile interval of the mean of values that are there `counts` times: a resample is one multinomial draw of
    the counts. Each end is a bound with that confidence. The seed is fixed: the same scores always give the same."""
    total = int(counts.sum())
    draws = np.random.default_rng(0).multinomial(total, counts / total, size=resamples)
    low, high = np.quantile(draws @ values / total, tails(confidence))
    return float(low), float(high)
