from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.rows.vectors import searched


@stage(
    inputs=["iteration", "bad_cases", "retrieval_index", "domain_dataset/train.parquet"],
    settings=["retrieval.per_case", "retrieval.choose", "mining.seed"],
    libraries=["lancedb", "polars", "numpy"],
    outputs=["neighbors.parquet"],
    lineage={
        "row_id": ["retrieval_index.row_id"],
        "case_id": ["bad_cases.row_id"],
        "rank": ["bad_cases.prompt", "retrieval_index.check"],
        "similarity": ["bad_cases.prompt", "retrieval_index.check"],
        "prompt": ["domain_dataset.prompt"],
        "answer": ["domain_dataset.answer"],
        "also": ["domain_dataset.also"],
    },
    group="4_retrieval",
    kinds=["lancedb", "polars"],
)
def neighbors(step: Step) -> None:
    """Similar cases: the nearest training rows of each bad case. Never an evaluation row, never a
    bad case itself, and each row once, under the bad case it is most similar to. Or as many random
    rows in their place.
    """
    from apt_assets.method.mining import random_cases
    from resources.retrieval.retriever import similar_cases

    cases, rows = step.read("bad_cases"), step.read("domain_dataset", "train")
    with searched(step) as (table, pool):
        found = similar_cases(table, pool, cases, rows, per_case=step.settings.retrieval.per_case)
    if step.settings.retrieval.choose == "random":
        found = random_cases(found, cases, rows, step.iteration, step.settings.mining.seed)
    step.write(found)
    step.facts["rows"] = found.height
    if step.settings.retrieval.choose == "similar":
        step.facts["mean_similarity"] = round(float(found["similarity"].mean() or 0.0), 4)  # type: ignore[arg-type]
