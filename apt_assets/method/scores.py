"""Item tables -> the numbers people read, each with a 95 % interval."""

import math
from typing import Any

import polars as pl

from apt_assets.method.grades import is_right


def wilson(successes: int, trials: int) -> dict[str, Any]:
    """A share with its 95 % Wilson interval and its standard error: {mean, low, high, se, n}.

    n = 0 gives mean 0 in [0, 1]. se is lm-eval's, of the mean of zeros and ones; None for fewer than two.
    """
    from scipy.stats import binomtest

    if trials == 0:
        return {"mean": 0.0, "low": 0.0, "high": 1.0, "se": None, "n": 0}
    share = successes / trials
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    error = math.sqrt(share * (1 - share) / (trials - 1)) if trials > 1 else None
    return {"mean": share, "low": float(interval.low), "high": float(interval.high), "se": error, "n": trials}


def summarise(domain: pl.DataFrame, general: pl.DataFrame, passages: pl.DataFrame) -> dict[str, Any]:
    """{domain: {split: {exact, lenient}}, general: {task: {accuracy, margin, gold, se}, all: ...},
    passages: {task: {word_perplexity, se, words, n}}}, of DomainItems, GeneralItems and PassageItems.

    exact: equal after normalisation. lenient: graded right (method/grades.py). gold: mean log-likelihood of the gold
    choice, margin: of it minus the best other one, nats per character. se: standard errors, of the two
    {margin, gold}; None for fewer than two items.
    """
    result: dict[str, Any] = {"domain": {}, "general": {}, "passages": {}}
    for split in ("validation", "test"):
        rows = domain.filter(pl.col("split") == split)
        result["domain"][split] = {
            "exact": wilson(int(rows["exact"].sum()), rows.height),
            "lenient": wilson(int(is_right(rows["grade"]).sum()), rows.height),
        }
    for task in [*sorted(general["task"].unique()), "all"]:
        rows = general if task == "all" else general.filter(pl.col("task") == task)
        means = {name: mean_with_error(rows[name]) for name in ("margin", "gold")}
        result["general"][task] = {
            "accuracy": wilson(int(rows["correct"].sum()), rows.height),
            **{name: mean for name, (mean, _) in means.items()},
            "se": {name: error for name, (_, error) in means.items()},
        }
    for (task,), rows in passages.sort("task", "item").group_by("task", maintain_order=True):
        result["passages"][task] = word_perplexity(rows["nats"], rows["words"])
    return result


def mean_with_error(values: pl.Series) -> tuple[float, float | None]:
    """The mean, 0 of none, and its standard error, None for fewer than two values."""
    if values.is_empty():
        return 0.0, None
    spread = values.std()
    error = None if spread is None else float(spread) / math.sqrt(len(values))  # type: ignore[arg-type]
    return float(values.mean()), error  # type: ignore[arg-type]


def word_perplexity(nats: pl.Series, words: pl.Series) -> dict[str, Any]:
    """{word_perplexity, se, words, n} of passages: exp(all nats / all words), as lm-eval has it where words
    are parted by spaces.

    se is that of a ratio of sums over passages, by linearisation (Cochran 1977, Sampling Techniques, 6.5).
    """
    total = int(words.sum())
    rate = float(nats.sum()) / total
    _, error = mean_with_error(nats - rate * words)
    value = math.exp(min(rate, 700.0))  # JSON has no infinity, and a text without spaces is one word
    spread = None if error is None else value * error * len(words) / total
    return {"word_perplexity": value, "se": spread, "words": total, "n": len(words)}
