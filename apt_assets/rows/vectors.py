"""Vectors by text: each text embedded once, whatever pool or iteration asks."""

from apt_assets.engine.view import View
from resources.retrieval.vector_table import VectorTable, table_name


def vectors_of(view: View) -> VectorTable:
    """Every text this encoder embedded, with what decides a vector beside its text."""
    context = {
        "encoder": view.identity("encoder"),
        "device": view.settings.policy.device,
        "batch_size": view.settings.retrieval.batch_size,
        "libraries": view.stage.library_versions(("sentence-transformers", "transformers", "torch")),
        "code": view.code("resources.retrieval.encoder"),
    }
    return view.project.store.vectors(table_name(context))
