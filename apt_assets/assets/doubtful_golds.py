from typing import TYPE_CHECKING

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows.likelihoods import LIKELIHOODS, likelihood_keys, likelihood_rows, likelihoods_of
from apt_assets.rows.vectors import searched

if TYPE_CHECKING:
    import polars as pl

CASE = ("row_id", "prompt", "answer", "prediction", "grade")  # taken over


def of_cases(*columns: str) -> list[str]:
    return [f"{source}.{column}" for source in ("bad_cases", "similar_predictions") for column in columns]


NEAR = [*of_cases("prompt", "answer", "also"), "retrieval_index.check", "domain_dataset.answer", "domain_dataset.also"]


def wrong(view: View) -> "pl.DataFrame":
    """What the policy answered wrong, mined or as a similar case, and whose gold nobody has confirmed or corrected."""
    from apt_assets.method.doubt import answered_wrong

    found = answered_wrong(view.read("bad_cases"), view.read("similar_predictions"), view.settings.assessor.bad_below)
    decided = view.read("domain_dataset", "corrections")
    return found.join(decided, on="row_id", how="anti", maintain_order="left")


def work(view: View) -> dict[str, int]:
    from apt_assets.method.doubt import heard

    asked = heard(wrong(view), view.read("domain_dataset", "train"))
    return {"likelihoods": likelihood_rows(view).missing(likelihood_keys(asked))}


@stage(
    inputs=[
        "bad_cases",
        "similar_predictions",
        "policy",
        "retrieval_index",
        "domain_dataset/train.parquet",
        "domain_dataset/corrections.parquet",
    ],
    rows=[LIKELIHOODS],
    settings=["assessor.bad_below"],
    libraries=["lancedb", "polars", "numpy"],
    outputs=["doubtful.parquet"],
    main_table="doubtful",
    lineage={
        **{name: of_cases(name) for name in CASE},
        "kind": of_cases("grade"),
        **dict.fromkeys(("votes", "votes_other", "other"), NEAR),
        "log_prob_gold": of_cases("prompt", "answer"),
        "log_prob_prediction": of_cases("prompt", "prediction"),
        "doubt": [*NEAR, *of_cases("prediction")],
    },
    work=work,
    group="4_retrieval",
    kinds=["torch", "lancedb", "polars"],
)
def doubtful_golds(step: Step) -> None:
    """How doubtful the gold of each bad case is, and of each similar case that was answered wrong, most doubtful first:
    what the training rows nearest to it have for gold, and how much likelier the policy finds its own answer. Above
    `pairs.max_doubt` they are left out of the pairs, or count less. What people decided on (`apt-assets review`) is not
    doubtful.
    """
    import polars as pl

    from apt_assets.method.doubt import DOUBTFUL, NEIGHBOURS, doubts, heard
    from resources.retrieval.retriever import nearest_rows

    cases, train = wrong(step), step.read("domain_dataset", "train")
    with searched(step) as (table, pool):
        near = nearest_rows(table, pool, cases, train, most=NEIGHBOURS)
    found = doubts(cases, train, near, likelihoods_of(step, heard(cases, train)))
    step.write(found, "doubtful")
    step.facts["rows"] = found.height
    step.facts[f"doubt_over_{DOUBTFUL}"] = found.filter(pl.col("doubt") > DOUBTFUL).height
