import json

from apt_assets.engine.execute import Step
from apt_assets.engine.stages import stage
from resources.digest import digest_json


@stage(
    inputs=["domain_dataset/train.parquet"],
    settings=["policy.device"],
    identities=["encoder"],
    libraries=["sentence-transformers", "torch", "lancedb"],
    version="1",
    group="retrieval",
    kinds=["lancedb", "huggingface"],
)
def retrieval_index(step: Step) -> None:
    """The retrieval pool, which is the train split, embedded and upserted by content into LanceDB.
    The iteration keeps the table version it wrote, so an older iteration still sees its own pool.
    """
    from resources.retriever import Encoder, pool_digest, update_index

    settings = step.experiment.retrieval
    pool = step.read("domain_dataset", "train")
    encoder = Encoder(step.project.encoder, device=step.experiment.policy.device, batch_size=settings.batch_size)
    # Vectors of another encoder, library version or device are never mixed: they get their own table.
    assert step.plan.facts is not None
    made_by = digest_json([step.plan.facts[kind] for kind in ("settings", "identities", "libraries")])
    name = f"{step.experiment.name}-{made_by[:8]}"
    progress = step.progress("embedding", pool.height, "texts")
    step.facts.update(update_index(step.project.lancedb, name, pool, encoder, progress))
    content = {"pool": pool_digest(pool["row_id"].to_list(), pool["prompt"].to_list()), "rows": pool.height}
    (step.out / "index.json").write_text(json.dumps({**content, "dimensions": encoder.dimensions}))
