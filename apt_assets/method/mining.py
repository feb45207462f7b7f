"""Which questions an iteration asks, and what makes an answer a bad case."""

import hashlib

import polars as pl


def draw_questions(train: pl.DataFrame, iteration: str, questions: int | None, seed: int) -> pl.DataFrame:
    """The questions of one iteration: those with the lowest hash of (seed, iteration, row_id).

    A draw by hash hardly changes when rows are added: each new row either enters or does not.
    Sorted by row_id; all rows if `questions` is None or not fewer than there are.
    """
    if questions is None or questions >= train.height:
        return train
    keys = [hashlib.sha256(f"{seed}:{iteration}:{row}".encode()).hexdigest() for row in train["row_id"]]
    ranked = train.with_columns(pl.Series("draw", keys)).sort("draw").head(questions)
    return ranked.drop("draw").sort("row_id")


def select_bad_cases(predictions: pl.DataFrame, bad_below: int) -> pl.DataFrame:
    """Predictions with a grade below `bad_below` (APT, arXiv 2506.03483: grade < 4)."""
    return predictions.filter(pl.col("grade") < bad_below)


def near_threshold(predictions: pl.DataFrame, bad_below: int) -> float:
    """Share of predictions, 0-1, that one grade more or less would put on the other side of `bad_below`."""
    near = predictions.filter(pl.col("grade").is_between(bad_below - 1, bad_below))
    return near.height / max(predictions.height, 1)
