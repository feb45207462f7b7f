from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows.likelihoods import LIKELIHOODS, likelihood_keys, likelihood_rows, likelihoods_of
from apt_assets.rows.vectors import searched

CASE = ("row_id", "prompt", "answer", "prediction", "grade")  # taken over
ASKED = ["bad_cases.prompt", "bad_cases.answer"]
NEAR = [*ASKED, "bad_cases.also", "retrieval_index.check", "domain_dataset.answer", "domain_dataset.also"]


def work(view: View) -> dict[str, int]:
    from apt_assets.method.doubt import heard

    asked = heard(view.read("bad_cases"), view.read("domain_dataset", "train"))
    return {"likelihoods": likelihood_rows(view).missing(likelihood_keys(asked))}


@stage(
    inputs=["bad_cases", "policy", "retrieval_index", "domain_dataset/train.parquet"],
    rows=[LIKELIHOODS],
    libraries=["lancedb", "polars", "numpy"],
    outputs=["doubtful.parquet"],
    main_table="doubtful",
    lineage={
        **{name: [f"bad_cases.{name}"] for name in CASE},
        **dict.fromkeys(("votes", "votes_other", "other"), NEAR),
        "log_prob_gold": ASKED,
        "log_prob_prediction": ["bad_cases.prompt", "bad_cases.prediction"],
        "doubt": [*NEAR, "bad_cases.prediction"],
    },
    work=work,
    group="4_retrieval",
    kinds=["torch", "lancedb", "polars"],
)
def doubtful_golds(step: Step) -> None:
    """How doubtful the gold of each bad case is, most doubtful first: what the training rows nearest to it have for
    gold, and how much likelier the policy finds its own answer. `pairs.max_doubt` leaves the most doubtful out.
    """
    import polars as pl

    from apt_assets.method.doubt import DOUBTFUL, NEIGHBOURS, doubts, heard
    from resources.retrieval.retriever import nearest_rows

    cases, train = step.read("bad_cases"), step.read("domain_dataset", "train")
    with searched(step) as (table, pool):
        near = nearest_rows(table, pool, cases, train, most=NEIGHBOURS)
    found = doubts(cases, train, near, likelihoods_of(step, heard(cases, train)))
    step.write(found, "doubtful")
    step.facts["rows"] = found.height
    step.facts[f"doubt_over_{DOUBTFUL}"] = found.filter(pl.col("doubt") > DOUBTFUL).height
