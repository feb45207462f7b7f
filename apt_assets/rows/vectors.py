"""The table of vectors: each text embedded once, whatever pool or iteration asks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from apt_assets.engine.view import View
from apt_assets.rows.encoder import VECTORS
from resources.retrieval.vector_table import VectorTable, table_name
from resources.store.manifest import CorruptArtifact

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step


def vectors_of(view: View) -> VectorTable:
    """Every text this encoder embedded, with what decides a vector beside its text."""
    return view.project.store.vectors(table_name(view.scope(VECTORS).context()))


@contextmanager
def searched(step: "Step") -> "Iterator[tuple[VectorTable, pl.DataFrame]]":
    """(table of vectors, Pool) of the step's retrieval_index, to be searched and nothing else: where that raises
    CorruptArtifact, it is the vectors that are damaged."""
    index, pool = step.manifest("retrieval_index"), step.read("retrieval_index", "pool")
    try:
        yield step.project.store.vectors(index.facts["vectors"]), pool
    except CorruptArtifact as error:
        # The list of the pool is whole, but not the vectors: it has to be made again with them.
        step.project.store.quarantine(index, str(error))
        raise
