"""The gate: may this adapter be promoted? Two checks, both paired over the same items.

Domain: validation accuracy (lenient) not below the promoted adapter's by more than the tolerance.
    A point comparison: an iteration that is not better on its own validation split is rolled back.
General: with the given confidence, mean accuracy over the general items is not below that of what
    the loop starts from, the base model or the initial adapter, by more than the tolerance
    (non-inferiority: the lower end of the paired bootstrap interval of the difference must lie above
    -tolerance). Too few items to tell is a refusal.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from apt_assets.method.grades import is_right


@dataclass(frozen=True)
class Check:
    """One comparison. Accuracies are shares 0-1; low and high bound `difference`."""

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

    def sentence(self) -> str:
        if self.items == 0:
            where = "raise data.validation or land more data" if self.name == "domain" else "name benchmarks.tasks"
            return f"{self.name} refused: there is no item to compare on ({where})"
        verdict = "passed" if self.passed else "refused"
        return (
            f"{self.name} {verdict}: {self.candidate:.1%} against {self.reference:.1%} of {self.against}, "
            f"difference {100 * self.difference:+.1f} points "
            f"[{100 * self.low:+.1f}, {100 * self.high:+.1f}] on {self.items} items, "
            f"tolerance {100 * self.tolerance:.1f}"
        )


def decide(
    candidate_domain: pl.DataFrame,
    promoted_domain: pl.DataFrame,
    candidate_general: pl.DataFrame,
    start_general: pl.DataFrame,
    *,
    promoted: str,
    start: str,
    domain_tolerance: float,
    general_tolerance: float,
    confidence: float,
    resamples: int,
) -> dict[str, Any]:
    """The verdict: {passed, reason, checks: [Check as a dict]}.

    Domain tables are DomainItems, general tables GeneralItems; rows are paired by item, and an item
    that only one side has is left out. `promoted` names what the domain check compares with, `start` what
    the general one does.
    """
    domain = pair(validation(candidate_domain), validation(promoted_domain), ["row_id"])
    general = pair(
        candidate_general.with_columns(pl.col("correct").alias("right")),
        start_general.with_columns(pl.col("correct").alias("right")),
        ["task", "item"],
    )
    checks = []
    for name, items, tolerance, against in (
        ("domain", domain, domain_tolerance, promoted),
        ("general", general, general_tolerance, start),
    ):
        low, high = paired_bootstrap(items, confidence, resamples)
        candidate, reference = share(items["right"]), share(items["right_reference"])
        difference = candidate - reference
        worst = difference if name == "domain" else low
        passed = items.height > 0 and worst >= -tolerance
        numbers = (candidate, reference, difference, low, high, tolerance)
        checks.append(Check(name, passed, *numbers, items.height, against))
    refused = [check.sentence() for check in checks if not check.passed]
    return {
        "passed": not refused,
        "reason": "; ".join(refused or [check.sentence() for check in checks]),
        "checks": [asdict(check) for check in checks],
    }


def start_in_words(adapter: object | None) -> str:
    """What the loop starts from; adapter: the initial one, None for the base model alone."""
    return "the base model" if adapter is None else "the initial adapter"


def share(values: pl.Series) -> float:
    return int(values.sum()) / max(len(values), 1)


def validation(domain: pl.DataFrame) -> pl.DataFrame:
    chosen = domain.filter(pl.col("split") == "validation")
    return chosen.with_columns(is_right(pl.col("grade")).alias("right"))


def pair(candidate: pl.DataFrame, reference: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Columns right and right_reference of the items both sides have, sorted by key."""
    both = candidate.join(reference, on=keys, how="inner", suffix="_reference")
    return both.sort(keys).select("right", "right_reference")


def paired_bootstrap(items: pl.DataFrame, confidence: float, resamples: int) -> tuple[float, float]:
    """Percentile interval of the mean difference, resampling items (Efron and Tibshirani 1993).

    (0, 0) for no items.
    """
    if items.height == 0:
        return 0.0, 0.0
    difference = items["right"].cast(int).to_numpy() - items["right_reference"].cast(int).to_numpy()
    values = np.array([-1, 0, 1])
    return resampled_mean(values, np.array([(difference == value).sum() for value in values]), confidence, resamples)


def resampled_mean(values: np.ndarray, counts: np.ndarray, confidence: float, resamples: int) -> tuple[float, float]:
    """Percentile interval of the mean of values that are there `counts` times: of few values, a resample is one
    multinomial draw of the counts. The seed is fixed: the same scores always give the same interval."""
    total = int(counts.sum())
    draws = np.random.default_rng(0).multinomial(total, counts / total, size=resamples)
    means = draws @ values / total
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
