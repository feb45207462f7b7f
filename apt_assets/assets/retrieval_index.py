from typing import Any

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.rows.encoder import VECTORS, open_encoder
from apt_assets.rows.vectors import vectors_of
from resources.retrieval.retriever import make_pool, verify_pool
from resources.store.manifest import Manifest
from resources.store.rows import Batches


def work(view: View) -> dict[str, int]:
    return {"embeddings": vectors_of(view).missing(view.read("domain_dataset", "train")["prompt"].to_list())}


def verify(project: Any, manifest: Manifest) -> None:
    from resources.store.tables import read_table

    table = project.store.vectors(manifest.facts["vectors"])
    if not table.unchanged_since(manifest.facts["vectors_mark"]):
        reason = [f"files of {table.name} are not as they were noted: every row is compared anew"]
        project.store.journal("compared", iteration=manifest.iteration, stage=manifest.stage, reason=reason)
        verify_pool(table, read_table(project.store.open(manifest) / "pool.parquet"))


@stage(
    inputs=["domain_dataset/train.parquet"],
    rows=[VECTORS],
    identities=["encoder"],
    libraries=["lancedb", "polars"],
    outputs=["pool.parquet"],
    main_table="pool",
    lineage={"row_id": ["domain_dataset.row_id"], "check": ["domain_dataset.prompt"]},
    work=work,
    verify=verify,
    group="4_retrieval",
    kinds=["lancedb", "huggingface"],
)
def retrieval_index(step: Step) -> None:
    """The retrieval pool, which is the train split: a list of its rows, whose vectors lie in LanceDB,
    each text embedded once for all pools. So an older iteration still sees its own pool.
    """
    rows, table = step.read("domain_dataset", "train"), vectors_of(step)

    def embed(texts: list[str]) -> Batches[Any]:
        encoder = open_encoder(step.scope(VECTORS))
        yield from step.shown(encoder.embed(texts), len(texts), "embedding", "texts")
        if encoder.cut:
            step.log(
                f"{encoder.cut} of {len(texts)} questions are longer than the {encoder.most_tokens} tokens that "
                "retrieval.encoder reads: the vector of such a one is of its beginning"
            )

    computed = table.fill(rows["prompt"].to_list(), embed, step.check)
    step.count("embeddings", reused=rows.height - computed, computed=computed)
    step.write(make_pool(table, rows), "pool")
    step.facts.update(rows=rows.height, vectors=table.name, vectors_mark=table.mark())
