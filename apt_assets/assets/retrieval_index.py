import json

from apt_assets.engine.stages import stage
from apt_assets.engine.step import Step
from apt_assets.engine.view import View
from apt_assets.project import Project
from resources.artifact_store import Manifest
from resources.retriever import Encoder, VectorTable, make_index, table_files, verify_index


def vectors_of(view: View) -> VectorTable:
    """Every text this encoder embedded, with what decides a vector beside its text."""
    context = {
        "encoder": view.identity("encoder"),
        "device": view.settings.policy.device,
        "batch_size": view.settings.retrieval.batch_size,
        "libraries": view.stage.library_versions(("sentence-transformers", "transformers", "torch")),
        "code": view.code("resources.retriever:Encoder"),
    }
    return VectorTable(view.project.lancedb, context)


def work(view: View) -> dict[str, int]:
    return {"embeddings": vectors_of(view).missing(view.read("domain_dataset", "train")["prompt"].to_list())}


def verify(project: Project, manifest: Manifest) -> None:
    verify_index(project.lancedb, manifest.facts, project.digest)


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
    """The retrieval pool, which is the train split, embedded into LanceDB: each text once, and a table
    per pool, named by its content, so that an older iteration still sees its own pool.
    """
    pool, table = step.read("domain_dataset", "train"), vectors_of(step)
    settings = {"device": step.settings.policy.device, "batch_size": step.settings.retrieval.batch_size}
    vectors, computed = table.fill(
        pool["prompt"].to_list(),
        lambda: Encoder(step.project.encoder, **settings),
        step.check,
        step.progress("embedding", pool.height, "texts"),
    )
    step.count("embeddings", reused=pool.height - computed, computed=computed)
    step.facts.update(make_index(step.project.lancedb, pool, vectors), vectors=table.name)
    name = step.facts["table"]
    root, files = step.project.lancedb / f"{name}.lance", table_files(step.project.lancedb, name)
    step.facts["table_files"] = {file.relative_to(root).as_posix(): step.project.digest(file) for file in files}
    content = {key: step.facts[key] for key in ("pool", "rows")}
    (step.out / "index.json").write_text(json.dumps({**content, "dimensions": len(vectors[0])}))
