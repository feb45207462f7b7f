"""Bad cases and similar cases -> preference pairs: chosen = gold, rejected = the policy's answer, or a given one."""

from collections.abc import Sequence

import polars as pl

from apt_assets.method.golds import is_gold
from apt_assets.method.grades import is_bad, is_kept
from apt_assets.method.mining import draw_questions


def build_pairs(
    bad_cases: pl.DataFrame,
    predictions: pl.DataFrame,
    neighbors: pl.DataFrame,
    neighbor_predictions: pl.DataFrame,
    *,
    bad_below: int,
    replay_share: float | None,
    counterfactuals: pl.DataFrame | None = None,
    given: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """One row per training example: bad cases, then similar cases, counterfactual pairs, then replay rows.

    neighbor_predictions: the policy's graded answers to the rows of `neighbors`. A similar case
    answered badly becomes a pair like a bad case. A pair whose rejected answer is one of the right ones is
    left out: it teaches nothing, or what is wrong.

    given: RejectedAnswers that take the place of the policy's own wrong answers, for the rows that have one; None:
    its own are rejected.

    counterfactuals: (row_id, rejected, grade) of wrong answers to similar cases that were answered right; None:
    there are none. Such a case is a pair too.

    What else the policy answers right has no wrong answer to reject, but without it every example says
    "change your answer". Up to `replay_share` times the number of pairs, or all of it if None, is kept
    as replay rows with rejected == chosen: for these the log-ratio of the sigmoid loss is constant, so
    their DPO gradient is exactly zero and only their NLL trains. Similar cases come first, then mined
    questions (`predictions`), each sorted by row_id, which is a hash and so a fair draw.
    """
    bad = is_bad(pl.col("grade"), bad_below)
    own = as_pairs(wrong_of(bad_cases, given), "bad_case", "rejected")
    similar = neighbors.join(neighbor_predictions.select("row_id", "prediction", "grade"), on="row_id", how="inner")
    wrong = as_pairs(wrong_of(similar.filter(bad), given), "similar", "rejected")
    found = wrong.clear().select("row_id", "rejected", "grade") if counterfactuals is None else counterfactuals
    made = similar.drop("grade").join(found, on="row_id").filter(~is_gold("rejected"))
    pairs = pl.concat([rows.sort("row_id") for rows in (own, wrong, as_pairs(made, "counterfactual", "rejected"))])
    kept = is_kept(pl.col("grade"), bad_below)
    right = [as_pairs(rows.filter(kept), "replay", "answer").sort("row_id") for rows in (similar, predictions)]
    replay = pl.concat(right).unique("row_id", keep="first", maintain_order=True)
    # A neighbour that was mined too is answered twice, in other batches, and may be right only once.
    replay = replay.join(pairs, on="row_id", how="anti")
    return pl.concat([pairs, replay.head(most_replay(pairs, replay_share, replay))])


def with_replay_from_pool(
    pairs: pl.DataFrame,
    train: pl.DataFrame,
    asked: Sequence[pl.DataFrame],
    replay_share: float | None,
    iteration: str,
    seed: int,
) -> pl.DataFrame:
    """The pairs, then replay rows from the whole pool: training rows that are no pair, whatever the policy says
    to them.

    Up to `replay_share` times the number of pairs, all if None: those with the lowest hash of (seed,
    iteration, row_id), sorted by row_id. asked: graded answers, which give a row its grade; of a row in
    several of them the first one counts, a row in none has none.
    """
    rest = train.join(pairs, on="row_id", how="anti", maintain_order="left")
    # Not the hash that mining draws by: by that one, the rows that were mined would come first.
    drawn = draw_questions(rest, f"{iteration}:replay", most_replay(pairs, replay_share, rest), seed)
    grades = pl.concat([rows.select("row_id", "grade") for rows in asked]).unique("row_id", keep="first")
    drawn = drawn.join(grades, on="row_id", how="left", maintain_order="left")
    return pl.concat([pairs, as_pairs(drawn, "replay", "answer")])


def wrong_of(answered: pl.DataFrame, given: pl.DataFrame | None) -> pl.DataFrame:
    """Badly answered rows with what to reject in `rejected`, those left out of which that is a right answer. One that
    was given has no grade."""
    if given is None:
        return answered.with_columns(rejected=pl.col("prediction")).filter(~is_gold("rejected"))
    rows = answered.join(given, on="row_id", how="left", maintain_order="left")
    own = pl.col("rejected").is_null()
    return rows.with_columns(
        rejected=pl.coalesce("rejected", "prediction"), grade=pl.when(own).then(pl.col("grade"))
    ).filter(~is_gold("rejected"))


def most_replay(pairs: pl.DataFrame, share: float | None, there: pl.DataFrame) -> int:
    return there.height if share is None else round(share * pairs.height)


def as_pairs(rows: pl.DataFrame, kind: str, rejected: str) -> pl.DataFrame:
    """Rows as PreferencePairs, each of full weight; `rejected` names the column to reject."""
    case = "case_id" if "case_id" in rows.columns else "row_id"
    return rows.select(
        "row_id",
        pl.col(case).alias("case_id"),
        pl.lit(kind).alias("kind"),
        "prompt",
        pl.col("answer").alias("chosen"),
        pl.col(rejected).alias("rejected"),
        "grade",
        weight=1.0,
    )
