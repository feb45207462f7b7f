"""Vectors by text: each text embedded once, whatever pool or iteration asks."""

from typing import TYPE_CHECKING

from apt_assets.engine.scope import RowScope
from apt_assets.engine.view import View
from resources.retrieval.vector_table import VectorTable, table_name
from resources.store.kinds import RowKind

if TYPE_CHECKING:
    from resources.retrieval.encoder import Encoder

VECTORS = RowKind(
    "vectors",
    table="vectors",
    settings=("policy.device", "retrieval.batch_size"),
    identities=("encoder",),
    libraries=("sentence-transformers", "transformers", "torch"),
    code=(__name__,),
)


def vectors_of(view: View) -> VectorTable:
    """Every text this encoder embedded, with what decides a vector beside its text."""
    return view.project.store.vectors(table_name(view.scope(VECTORS).context()))


def open_encoder(scope: RowScope) -> "Encoder":
    from resources.retrieval.encoder import Encoder

    settings = scope.settings
    return Encoder(scope.outside("encoder"), device=settings.policy.device, batch_size=settings.retrieval.batch_size)
