from apt_assets.engine.stages import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.project import Project
from resources.artifact_store import Manifest
from resources.encoder import Encoder
from resources.retriever import make_pool, verify_pool
from resources.vector_table import VectorTable, table_name


def vectors_of(view: View) -> VectorTable:
    """Every text this encoder embedded, with what decides a vector beside its text."""
    context = {
        "encoder": view.identity("encoder"),
        "device": view.settings.policy.device,
        "batch_size": view.settings.retrieval.batch_size,
        "libraries": view.stage.library_versions(("sentence-transformers", "transformers", "torch")),
        "code": view.code("resources.encoder:Encoder"),
    }
    return view.project.vector_table(table_name(context))


def work(view: View) -> dict[str, int]:
    return {"embeddings": vectors_of(view).missing(view.read("domain_dataset", "train")["prompt"].to_list())}


def verify(project: Project, manifest: Manifest) -> None:
    from schemas.files import read_table

    table = project.vector_table(manifest.facts["vectors"])
    if not table.unchanged_since(manifest.facts["vectors_mark"]):
        reason = [f"files of {table.name} are not as they were noted: every row is compared anew"]
        project.store.journal("compared", iteration=manifest.iteration, stage=manifest.stage, reason=reason)
        verify_pool(table, read_table(project.store.folder(manifest) / "pool.parquet"))


@stage(
    inputs=["domain_dataset/train.parquet"],
    settings=["policy.device", "retrieval.batch_size"],
    identities=["encoder"],
    libraries=["sentence-transformers", "transformers", "torch", "lancedb", "polars"],
    work=work,
    verify=verify,
    group="retrieval",
    kinds=["lancedb", "huggingface"],
)
def retrieval_index(step: Step) -> None:
    """The retrieval pool, which is the train split: a list of its rows, whose vectors lie in LanceDB,
    each text embedded once for all pools. So an older iteration still sees its own pool.
    """
    rows, table = step.read("domain_dataset", "train"), vectors_of(step)
    settings = {"device": step.settings.policy.device, "batch_size": step.settings.retrieval.batch_size}
    computed = table.fill(
        rows["prompt"].to_list(),
        lambda: Encoder(step.project.encoder, **settings),
        step.check,
        step.progress("embedding", 0, "texts"),
    )
    step.count("embeddings", reused=rows.height - computed, computed=computed)
    step.write(make_pool(table, rows), "pool")
    step.facts.update(rows=rows.height, vectors=table.name, vectors_mark=table.mark())
