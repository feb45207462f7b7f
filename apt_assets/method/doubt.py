"""How doubtful the gold of a row is that the policy answered wrong: what similar rows and the policy say against it.

An answer counts as wrong whether it is so itself or the gold, so that wrong golds gather among bad cases, and among
similar cases that were answered wrong. Their doubt is the normalised margin of confident learning (Northcutt et al.
2021, arXiv 1911.00068) with two candidates, the gold and what speaks against it:

    doubt = sigmoid(policy + log((votes_other + PRIOR) / (votes + PRIOR)))

    votes        of the NEIGHBOURS nearest training rows those that have the gold, each by its squared cosine; of
                 votes_other those that have the one other gold which most have
    policy       log-probability of what the policy said minus that of the gold, each a mean over its tokens

The squares, PRIOR and the mean in place of the sum are measured (docs/adr/0016-doubtful-golds.md). Among labels the
policy is heard only where it named one: one that does not know the labels yet finds each of them unlikely, the right
ones too. Where golds are free text nobody has the same one, and what it said counts as it is.
"""

import polars as pl

from apt_assets.method.golds import by_gold
from apt_assets.method.grades import is_bad
from resources.assessors.labels import normalise_answer

NEIGHBOURS = 10
PRIOR = 0.3  # of a vote for each of the two candidates
DOUBTFUL = 0.9  # what is shown as such
DECIMALS = 4  # of votes and weights, so that they do not depend on the order in which something is added


def answered_wrong(bad_cases: pl.DataFrame, similar: pl.DataFrame, bad_below: int) -> pl.DataFrame:
    """The rows whose golds are ranked, as BadCases with the kind of pair that each makes: bad_case, or similar.

    similar: Predictions of all similar cases.
    """
    wrong = similar.filter(is_bad(pl.col("grade"), bad_below))
    return pl.concat([bad_cases.with_columns(kind=pl.lit("bad_case")), wrong.with_columns(kind=pl.lit("similar"))])


def doubts(cases: pl.DataFrame, train: pl.DataFrame, near: pl.DataFrame, log_probs: pl.DataFrame) -> pl.DataFrame:
    """DoubtfulGolds, the most doubtful first.

    cases: of `answered_wrong`. train: the rows that vote. near: (case_id, row_id, similarity) of the nearest ones of
    each case, itself not among them. log_probs: (row_id, log_prob_gold, log_prob_prediction) of the cases in which the
    policy is `heard`, in nats per token.
    """
    from schemas.tables import DoubtfulGolds

    schema = DoubtfulGolds.empty().schema
    found = cases.join(log_probs, on="row_id", how="left")
    for votes in counted(with_forms(cases), with_forms(train), near):
        found = found.join(votes, on="row_id", how="left")
    found = found.with_columns(pl.col("votes", "votes_other").fill_null(0.0))
    policy = (pl.col("log_prob_prediction") - pl.col("log_prob_gold")).fill_null(0.0)
    odds = policy + ((pl.col("votes_other") + PRIOR) / (pl.col("votes") + PRIOR)).log()
    ranked = found.with_columns(doubt=1 / (1 + (-odds).exp())).sort("doubt", "row_id", descending=[True, False])
    return ranked.select(list(schema)).cast(dict(schema))  # type: ignore[arg-type]


def heard(cases: pl.DataFrame, train: pl.DataFrame) -> pl.DataFrame:
    """The cases in which what the policy said counts against the gold: it is a gold too, or the case's golds are no
    other row's and so no labels."""
    golds = with_forms(train)
    rows = golds.group_by("form").agg(pl.col("row_id").n_unique().alias("rows"))
    labels = with_forms(cases).join(rows.filter(pl.col("rows") > 1), on="form", how="semi")
    said = with_form(cases, "prediction")
    is_heard = pl.col("form").is_in(golds["form"].implode()) | ~pl.col("row_id").is_in(labels["row_id"].implode())
    return said.filter(is_heard).drop("form")


def with_forms(rows: pl.DataFrame) -> pl.DataFrame:
    """(row_id, answer, form) of each gold of the rows, the learned ones first."""
    return with_form(by_gold(rows.select("row_id", "answer", "also")), "answer").drop("also")


def with_form(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """The rows with `form`: a text of theirs in the form in which golds are compared."""
    forms = {text: normalise_answer(text) for text in rows[column].unique()}
    return rows.with_columns(pl.Series("form", [forms[text] for text in rows[column]], dtype=pl.String))


def counted(own: pl.DataFrame, golds: pl.DataFrame, near: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(row_id, votes) and (row_id, votes_other, other) of the cases that have such votes.

    own, golds: `with_forms` of the cases and of training rows, whose first gold is what they vote for if none is the
    case's own.
    """
    weight = pl.col("similarity").clip(0).pow(2).round(DECIMALS)
    votes = near.select("row_id", weight.alias("weight"), pl.col("case_id"))
    case_golds = own.select(pl.col("row_id").alias("case_id"), "form").unique()
    agree = votes.join(golds, on="row_id").join(case_golds, on=["case_id", "form"], how="semi")
    agree = agree.unique(["case_id", "row_id"])
    first = golds.unique("row_id", keep="first", maintain_order=True)
    others = votes.join(agree, on=["case_id", "row_id"], how="anti").join(first, on="row_id")
    others = others.sort("case_id", "weight", "row_id", descending=[False, True, False])
    by_other = others.group_by("case_id", "form", maintain_order=True).agg(
        pl.col("weight").sum().round(DECIMALS).alias("votes_other"), pl.col("answer").first().alias("other")
    )
    strongest = by_other.sort("case_id", "votes_other", "form", descending=[False, True, False])
    strongest = strongest.unique("case_id", keep="first", maintain_order=True)
    of_own = agree.group_by("case_id").agg(pl.col("weight").sum().round(DECIMALS).alias("votes"))
    return (
        of_own.rename({"case_id": "row_id"}),
        strongest.select(pl.col("case_id").alias("row_id"), "votes_other", "other"),
    )


def leave_out(
    cases: pl.DataFrame, similar: pl.DataFrame, doubtful: pl.DataFrame, max_doubt: float | None
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """(cases and similar cases that stay, row_ids of those that do not): no row with more doubt, and nothing that was
    found as similar to such a case. None: all stay.

    cases: BadCases. similar: Neighbors. doubtful: DoubtfulGolds.
    """
    over = doubtful.filter(pl.col("doubt") > (1.0 if max_doubt is None else max_doubt)).select("row_id")
    along = similar.join(over, left_on="case_id", right_on="row_id", how="semi", maintain_order="left")
    out = pl.concat([over, along.select("row_id")]).unique(maintain_order=True)
    cases, similar = (rows.join(out, on="row_id", how="anti", maintain_order="left") for rows in (cases, similar))
    return cases, similar, out


def soften(pairs: pl.DataFrame, doubtful: pl.DataFrame, max_doubt: float) -> pl.DataFrame:
    """The pairs with less weight for golds of more doubt: (1 - doubt) / (1 - max_doubt), from 1 down to 0.

    1 - doubt is how probable it is that the gold is right, so with a max_doubt of 0 each pair counts by that:
    importance reweighting for noisy labels (Liu and Tao 2016, arXiv 1411.7718). Not the other way round, as a flipped
    preference would be: that the gold is wrong does not say that the policy was right.

    pairs: PreferencePairs. doubtful: DoubtfulGolds.
    """
    over = doubtful.filter(pl.col("doubt") > max_doubt)
    less = over.select("row_id", ((1 - pl.col("doubt")) / (1 - max_doubt)).round(DECIMALS).alias("less"))
    found = pairs.join(less, on="row_id", how="left", maintain_order="left")
    return found.with_columns(weight=pl.coalesce("less", "weight")).drop("less")
