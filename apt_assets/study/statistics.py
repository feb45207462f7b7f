"""Means over seeds with intervals, paired tests over items, and a correction for many of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apt_assets.method.bootstrap import resampled_mean

RESAMPLES = 10_000
AT_ONCE = 1000  # resamples that are in memory together: some 100 MB of 1,500 items


def over_seeds(values: Sequence[float], confidence: float = 0.95) -> dict[str, Any]:
    """{mean, low, high, sd, values}: mean with Student's t interval over seeds; sd with n - 1. One value has no
    interval: low and high are None."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None, "sd": None, "values": list(values)}
    sd = float(np.std(values, ddof=1))
    # Not stats.t.interval: of equal values, whose standard error is 0, it makes NaN.
    reach = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "sd": sd, "values": list(values)}


def paired_test(one: Mapping[Any, float], other: Mapping[Any, float], resamples: int = RESAMPLES) -> dict[str, Any]:
    """{difference, low, high, p, items} of two arms on the items both have, each item's value a mean over seeds.

    p: two-sided sign-flip permutation test of the mean difference, exact where the items that differ have no more
    than `resamples` signs (13 items of 10,000). low, high: 95 % percentile bootstrap over items (Efron and Tibshirani
    1993). Both say how far the result would carry to other items, with these seeds' adapters as they are. The draws
    are seeded: equal scores give equal numbers.
    """
    keys = sorted(one.keys() & other.keys())
    difference = np.array([one[key] - other[key] for key in keys])
    if not len(difference):
        return {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "items": 0}
    low, high = resampled_mean(*np.unique(difference, return_counts=True), confidence=0.975, resamples=resamples)
    return {
        "difference": float(difference.mean()),
        "low": low,
        "high": high,
        # Items without a difference change no sum, and most have none.
        "p": sign_flip(difference[difference != 0], resamples),
        "items": len(keys),
    }


def sign_flip(difference: np.ndarray, resamples: int) -> float:
    """The two-sided p value of differences whose signs are exchangeable; 1 of fewer than two."""
    from scipy import stats

    if len(difference) < 2:
        return 1.0
    # The mean's amount, since scipy's own two-sided p is twice a one-sided one, which varies more between draws.
    # Rounded, since scipy takes two sums of thirds for equal only within 2e-14 of the one that was seen: next to 0 that
    # is less than their rounding errors.
    tested = stats.permutation_test(
        (difference,),
        lambda flipped, axis: np.abs(flipped.mean(axis)).round(12),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=resamples,
        batch=AT_ONCE,
        rng=np.random.default_rng(0),
    )
    return float(tested.pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979), in the same order."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected = [0.0] * len(values)
    least = 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = least
    return corrected


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points that no other one beats: none is at least as good in both and better in one.
    More is better in both coordinates."""
    return [n for n, (x, y) in enumerate(points) if not any(a >= x and b >= y and (a > x or b > y) for a, b in points)]
