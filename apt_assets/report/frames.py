"""What the command line prints, as polars frames for a program."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from apt_assets.loop.outlook import Planned
from apt_assets.report.results import passages_of

if TYPE_CHECKING:
    import polars as pl

TWO_SIDED = 1.96  # standard errors of a 95 % interval, where scores have no Wilson interval


def of_plan(found: Planned) -> "pl.DataFrame":
    """A row for each stage, in the order in which they would run."""
    import polars as pl

    rows = []
    for plan, work, memory in zip(found.plans, found.works, found.memory.peaks, strict=True):
        amounts = dict(work.amounts)
        steps = amounts.pop("steps", 0)
        seconds = plan.manifest.seconds if plan.manifest else None
        why = "; ".join(plan.causes) or None
        known = work.exact or bool(work.amounts)
        counts = (sum(amounts.values()), steps) if known else (None, None)
        rows.append((plan.iteration, plan.stage, plan.status, why, *counts, work.exact, memory, seconds))
    schema = {
        "iteration": pl.String,
        "stage": pl.String,
        "status": pl.String,
        "why": pl.String,
        "rows": pl.Int64,
        "steps": pl.Int64,
        "exact": pl.Boolean,
        "memory": pl.Int64,
        "seconds": pl.Float64,
    }
    return pl.DataFrame(rows, schema, orient="row")


def of_scores(found: Mapping[str, Any]) -> "pl.DataFrame":
    """A row for each score of each iteration, of what `results` found."""
    import polars as pl

    schema = {
        **dict.fromkeys(("iteration", "of", "measure"), pl.String),
        **dict.fromkeys(("score", "low", "high"), pl.Float64),
        "n": pl.Int64,
    }
    entries = ((entry["iteration"], entry["scores"]) for entry in found["iterations"] if entry["scores"])
    rows = [(key, *score) for key, scores in entries for score in scores_of(scores)]
    return pl.DataFrame(rows, schema, orient="row")


def scores_of(scores: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """(of, measure, score, low, high, n) of an iteration's scores."""
    for split, measures in scores["domain"].items():
        for measure in ("exact", "lenient"):
            yield split, measure, *share(measures[measure])
    for task, its in scores["general"].items():
        yield f"general: {task}", "accuracy", *share(its["accuracy"])
        for measure in ("gold", "margin"):
            yield f"general: {task}", measure, *around(its[measure], its["se"][measure], its["accuracy"]["n"])
    for task, its in passages_of(scores).items():
        yield f"passages: {task}", "word_perplexity", *around(its["word_perplexity"], its["se"], its["n"])


def share(its: Mapping[str, Any]) -> tuple[Any, ...]:
    """Of no item there is no share."""
    return (its["mean"], its["low"], its["high"], its["n"]) if its["n"] else (None, None, None, 0)


def around(mean: float, error: float | None, n: int) -> tuple[Any, ...]:
    if not n:
        return None, None, None, 0
    return (mean, None, None, n) if error is None else (mean, mean - TWO_SIDED * error, mean + TWO_SIDED * error, n)


def of_stages(stages: Iterable[tuple[str, str]], found: Mapping[str, Any]) -> "pl.DataFrame":
    """iteration, stage, seconds (when it was computed) of some stages. found: what `results` found."""
    import polars as pl

    seconds = {
        (entry["iteration"], name): its["seconds"]
        for entry in found["iterations"]
        for name, its in entry["stages"].items()
    }
    rows = [(key, name, seconds.get((key, name))) for key, name in stages]
    return pl.DataFrame(rows, {"iteration": pl.String, "stage": pl.String, "seconds": pl.Float64}, orient="row")
