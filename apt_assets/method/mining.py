"""Which questions an iteration asks, which answers are its bad cases (what is bad: grades.py), and random rows in
place of similar ones.
"""

import hashlib

import polars as pl

from apt_assets.method.grades import is_bad, is_near


def draw_questions(train: pl.DataFrame, iteration: str, questions: int | None, seed: int) -> pl.DataFrame:
    """The questions of one iteration: those with the lowest hash of (seed, iteration, row_id).

    A draw by hash hardly changes when rows are added: each new row either enters or does not.
    Sorted by row_id; all rows if `questions` is None or not fewer than there are.
    """
    if questions is None or questions >= train.height:
        return train
    return draw(train, f"{seed}:{iteration}", questions).sort("row_id")


def draw(rows: pl.DataFrame, salt: str, count: int) -> pl.DataFrame:
    """The `count` rows with the lowest hash of (salt, row_id), lowest first."""
    keys = [hashlib.sha256(f"{salt}:{row}".encode()).hexdigest() for row in rows["row_id"]]
    return rows.with_columns(pl.Series("draw", keys)).sort("draw").head(count).drop("draw")


def random_cases(
    similar: pl.DataFrame, cases: pl.DataFrame, pool: pl.DataFrame, iteration: str, seed: int
) -> pl.DataFrame:
    """A Neighbors table with a random row of the pool in the place of each similar case: the control that tells
    what similarity adds to more rows.

    Drawn as the questions are, by hash of (seed, iteration, row_id): from all of the pool but the bad cases, so
    a row may be drawn that is similar too. One bad case more changes few of them, iterations draw others, and
    so do repetitions of a study under another seed.
    """
    others = pool.join(cases, on="row_id", how="anti")
    # A salt of its own: what is drawn must not hang together with which questions were asked.
    drawn = draw(others, f"random cases:{seed}:{iteration}", similar.height)
    placed = similar.with_columns(drawn[name] for name in ("row_id", "prompt", "answer", "also"))
    return placed.with_columns(similarity=pl.lit(None, similar.schema["similarity"]))


def select_bad_cases(predictions: pl.DataFrame, bad_below: int) -> pl.DataFrame:
    """Predictions with a grade below `bad_below` (APT, arXiv 2506.03483: grade < 4)."""
    return predictions.filter(is_bad(pl.col("grade"), bad_below))


def near_threshold(predictions: pl.DataFrame, bad_below: int) -> float:
    """Share of predictions, 0-1, that one grade more or less would put on the other side of `bad_below`."""
    near = predictions.filter(is_near(pl.col("grade"), bad_below))
    return near.height / max(predictions.height, 1)
