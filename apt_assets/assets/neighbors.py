from apt_assets.engine.stages import stage
from apt_assets.engine.step import Step


@stage(
    inputs=["bad_cases", "retrieval_index", "domain_dataset/train.parquet"],
    settings=["retrieval.per_case"],
    libraries=["lancedb", "polars", "numpy"],
    group="retrieval",
    kinds=["lancedb", "polars"],
)
def neighbors(step: Step) -> None:
    """Similar cases: the nearest training rows of each bad case. Never an evaluation row, never a
    bad case itself, and each row once, under the bad case it is most similar to.
    """
    from resources.retriever import similar_cases

    step.artifact("retrieval_index")
    found = similar_cases(
        step.project.lancedb,
        step.manifest("retrieval_index").facts,
        step.read("bad_cases"),
        step.read("domain_dataset", "train"),
        per_case=step.settings.retrieval.per_case,
    )
    step.write(found)
    step.facts["rows"] = found.height
    step.facts["mean_similarity"] = round(float(found["similarity"].mean() or 0.0), 4)  # type: ignore[arg-type]
