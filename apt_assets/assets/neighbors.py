from apt_assets.engine.execute import Step
from apt_assets.engine.stages import stage


@stage(
    inputs=["bad_cases", "retrieval_index", "domain_dataset/train.parquet"],
    settings=["retrieval.per_case", "policy.device"],
    identities=["encoder"],
    libraries=["sentence-transformers", "torch", "lancedb"],
    version="1",
    group="retrieval",
    kinds=["lancedb", "polars"],
)
def neighbors(step: Step) -> None:
    """Similar cases: the nearest training rows of each bad case. Never an evaluation row, never a
    bad case itself, and each row once, under the bad case it is most similar to.
    """
    from resources.retriever import Encoder, similar_cases

    settings = step.experiment.retrieval
    cases = step.read("bad_cases")
    encoder = Encoder(step.project.encoder, device=step.experiment.policy.device, batch_size=settings.batch_size)
    found = similar_cases(
        step.project.lancedb,
        step.manifest("retrieval_index").facts,
        cases,
        step.read("domain_dataset", "train"),
        encoder,
        per_case=settings.per_case,
        progress=step.progress("embedding bad cases", cases.height, "texts"),
    )
    step.write(found)
    step.facts["rows"] = found.height
    step.facts["mean_similarity"] = round(float(found["similarity"].mean() or 0.0), 4)  # type: ignore[arg-type]
