"""Bad cases and similar cases -> preference pairs: chosen = gold, rejected = the policy's answer."""

from typing import Literal

import polars as pl

from schemas import empty_table


def build_pairs(
    bad_cases: pl.DataFrame,
    neighbors: pl.DataFrame,
    neighbor_predictions: pl.DataFrame,
    *,
    bad_below: int,
    answered_right: Literal["replay", "drop"],
) -> pl.DataFrame:
    """One row per training example, bad cases first, sorted by row_id within a kind.

    neighbor_predictions: the policy's graded answers to the rows of `neighbors`. A similar case
    answered badly becomes a pair like a bad case. One answered right has no wrong answer to reject:
    it is dropped, or kept as a replay row with rejected == chosen. For such a row the log-ratio of
    the sigmoid loss is constant, so its DPO gradient is exactly zero and only its NLL trains.

    A pair whose rejected answer equals the gold is left out: it teaches nothing.
    """
    own = bad_cases.select(
        "row_id",
        pl.col("row_id").alias("case_id"),
        pl.lit("bad_case").alias("kind"),
        "prompt",
        pl.col("answer").alias("chosen"),
        pl.col("prediction").alias("rejected"),
        "grade",
    )
    bad = pl.col("grade") < bad_below
    similar = neighbors.join(
        neighbor_predictions.select("row_id", "prediction", "grade"), on="row_id", how="inner"
    ).select(
        "row_id",
        "case_id",
        pl.when(bad).then(pl.lit("similar")).otherwise(pl.lit("replay")).alias("kind"),
        "prompt",
        pl.col("answer").alias("chosen"),
        pl.when(bad).then("prediction").otherwise("answer").alias("rejected"),
        "grade",
    )
    if answered_right == "drop":
        similar = similar.filter(pl.col("kind") == "similar")
    order = pl.col("kind").replace_strict({"bad_case": 0, "similar": 1, "replay": 2})
    pairs = pl.concat([own, similar]).filter((pl.col("kind") == "replay") | (pl.col("chosen") != pl.col("rejected")))
    return pairs.sort(order, "row_id").cast(empty_table("preference_pairs").schema)  # type: ignore[arg-type]
