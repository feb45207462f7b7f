"""Vectors by text: what an encoder says of each. Apart from the table, so that an edit of how vectors are stored embeds
nothing anew."""

from typing import TYPE_CHECKING

from apt_assets.engine.scope import RowScope
from resources.store.kinds import RowKind

if TYPE_CHECKING:
    from resources.retrieval.encoder import Encoder

VECTORS = RowKind(
    "vectors",
    table="vectors",
    settings=("policy.device", "retrieval.batch_size"),
    identities=("encoder",),
    libraries=("sentence-transformers", "transformers", "tokenizers", "torch"),
    code=(__name__,),
)


def open_encoder(scope: RowScope) -> "Encoder":
    from resources.retrieval.encoder import Encoder

    settings = scope.settings
    return Encoder(scope.outside("encoder"), device=settings.policy.device, batch_size=settings.retrieval.batch_size)
