"""Item tables -> the numbers people read, each with a 95 % interval."""

import math
from typing import Any

import polars as pl


def wilson(successes: int, trials: int, z: float = 1.96) -> dict[str, float]:
    """A share with its 95 % Wilson interval: {mean, low, high, n}; n = 0 gives mean 0 in [0, 1]."""
    if trials == 0:
        return {"mean": 0.0, "low": 0.0, "high": 1.0, "n": 0}
    share = successes / trials
    middle = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low, high = (middle - spread) / scale, (middle + spread) / scale
    return {"mean": share, "low": max(low, 0.0), "high": min(high, 1.0), "n": trials}


def summarise(domain: pl.DataFrame, general: pl.DataFrame) -> dict[str, Any]:
    """{domain: {split: {exact, lenient}}, general: {task: {accuracy, margin}, all: ...}}.

    exact: equal after normalisation. lenient: grade 4 or 5. margin: mean log-likelihood of the gold
    choice minus the best other one, nats per character.
    """
    result: dict[str, Any] = {"domain": {}, "general": {}}
    for split in ("validation", "test"):
        rows = domain.filter(pl.col("split") == split)
        result["domain"][split] = {
            "exact": wilson(int(rows["exact"].sum()), rows.height),
            "lenient": wilson(int((rows["grade"] >= 4).sum()), rows.height),
        }
    for task in [*sorted(general["task"].unique()), "all"]:
        rows = general if task == "all" else general.filter(pl.col("task") == task)
        margin = rows["margin"].mean() if rows.height else 0.0
        result["general"][task] = {
            "accuracy": wilson(int(rows["correct"].sum()), rows.height),
            "margin": float(margin or 0.0),  # type: ignore[arg-type]
        }
    return result
