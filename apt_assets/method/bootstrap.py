"""The bootstrap that the gate and a study compare with: items are resampled, with a fixed seed (Efron and Tibshirani
1993)."""

import numpy as np
import polars as pl


def tails(confidence: float) -> tuple[float, float]:
    """The quantiles of an interval of which each end is a bound with that confidence."""
    return 1 - confidence, confidence


def paired_bootstrap(differences: pl.Series, confidence: float, resamples: int) -> tuple[float, float]:
    """Percentile interval of the mean difference; each end is a bound with that confidence. (0, 0) for no items."""
    if differences.is_empty():
        return 0.0, 0.0
    values, counts = np.unique(differences.to_numpy(), return_counts=True)
    return resampled_mean(values, counts, confidence, resamples)


def resampled_mean(values: np.ndarray, counts: np.ndarray, confidence: float, resamples: int) -> tuple[float, float]:
    """Percentile interval of the mean of values that are there `counts` times. Each end is a bound with that
    confidence."""
    low, high = np.quantile(resampled_means(values, counts, resamples), tails(confidence))
    return float(low), float(high)


def resampled_means(values: np.ndarray, counts: np.ndarray, resamples: int) -> np.ndarray:
    """The mean in each resample, which is one multinomial draw of the counts. The seed is fixed: the same scores always
    give the same."""
    total = int(counts.sum())
    draws = np.random.default_rng(0).multinomial(total, counts / total, size=resamples)
    return draws @ values / total
