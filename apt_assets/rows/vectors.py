"""The table of vectors: each text embedded once, whatever pool or iteration asks."""

from apt_assets.engine.view import View
from apt_assets.rows.encoder import VECTORS
from resources.retrieval.vector_table import VectorTable, table_name


def vectors_of(view: View) -> VectorTable:
    """Every text this encoder embedded, with what decides a vector beside its text."""
    return view.project.store.vectors(table_name(view.scope(VECTORS).context()))
