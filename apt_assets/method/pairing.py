"""Bad cases and similar cases -> preference pairs: chosen = gold, rejected = the policy's answer."""

import polars as pl


def build_pairs(
    bad_cases: pl.DataFrame,
    predictions: pl.DataFrame,
    neighbors: pl.DataFrame,
    neighbor_predictions: pl.DataFrame,
    *,
    bad_below: int,
    replay_share: float,
    counterfactuals: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """One row per training example: bad cases, then similar cases, counterfactual pairs, then replay rows.

    neighbor_predictions: the policy's graded answers to the rows of `neighbors`. A similar case
    answered badly becomes a pair like a bad case. A pair whose rejected answer equals the gold is
    left out: it teaches nothing.

    counterfactuals: (row_id, rejected, grade) of wrong answers to similar cases that were answered right; None:
    there are none. Such a case is a pair too.

    What else the policy answers right has no wrong answer to reject, but without it every example says
    "change your answer". Up to `replay_share` times the number of pairs is kept as replay rows with
    rejected == chosen: for these the log-ratio of the sigmoid loss is constant, so their DPO gradient
    is exactly zero and only their NLL trains. Similar cases come first, then mined questions
    (`predictions`), each sorted by row_id, which is a hash and so a fair draw.
    """
    bad = pl.col("grade") < bad_below
    own = as_pairs(bad_cases, "bad_case", "prediction")
    similar = neighbors.join(neighbor_predictions.select("row_id", "prediction", "grade"), on="row_id", how="inner")
    wrong = as_pairs(similar.filter(bad), "similar", "prediction")
    found = wrong.clear().select("row_id", "rejected", "grade") if counterfactuals is None else counterfactuals
    made = as_pairs(similar.drop("grade").join(found, on="row_id"), "counterfactual", "rejected")
    pairs = pl.concat([rows.sort("row_id") for rows in (own, wrong, made)]).filter(
        pl.col("chosen") != pl.col("rejected")
    )
    right = [as_pairs(rows.filter(~bad), "replay", "answer").sort("row_id") for rows in (similar, predictions)]
    replay = pl.concat(right).unique("row_id", keep="first", maintain_order=True)
    # A neighbour that was mined too is answered twice, in other batches, and may be right only once.
    replay = replay.join(pairs, on="row_id", how="anti")
    return pl.concat([pairs, replay.head(round(replay_share * pairs.height))])


def as_pairs(rows: pl.DataFrame, kind: str, rejected: str) -> pl.DataFrame:
    """Rows as PreferencePairs; `rejected` names the column to reject."""
    case = "case_id" if "case_id" in rows.columns else "row_id"
    return rows.select(
        "row_id",
        pl.col(case).alias("case_id"),
        pl.lit(kind).alias("kind"),
        "prompt",
        pl.col("answer").alias("chosen"),
        pl.col(rejected).alias("rejected"),
        "grade",
    )
