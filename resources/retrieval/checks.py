"""What is wrong with a sentence encoder, said before anything is computed with it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from resources.model.checks import QUESTION, compare_weights, in_a_line, quiet
from resources.model.files import ANEW, Unusable
from resources.store.rows import collect

if TYPE_CHECKING:
    from resources.retrieval.encoder import Encoder

SPARE = ("pooler.",)  # of BERT: a vector is made by sentence-transformers' own pooling


def check_sentence_encoder(folder: Path, device: str) -> None:
    """Raise Unusable if the encoder of a folder that `files.check_encoder` finds whole cannot be used. It is loaded,
    and embeds a text."""
    from resources.retrieval.encoder import Encoder

    with quiet():
        try:
            encoder = Encoder(folder, device=device)
            (vector,) = collect(1, encoder.embed([QUESTION]))
        except Exception as error:  # of whichever library reads which part
            said = in_a_line(error)
            if "trust_remote_code" in str(error):
                said = "it needs code of its own, which is never run here"
            if "mismatched" in str(error):
                said = "its weights have another shape than config.json tells"
            raise Unusable(f"it cannot be loaded and embed a text ({said}); {ANEW}") from None
        compare_encoder(folder, encoder)
    # The length of a vector is 1, unless one of the weights it comes from is not a number.
    if not abs(float((vector * vector).sum()) - 1) < 0.01:
        raise Unusable(f"it gives vectors that are not finite numbers: its weights are damaged; {ANEW}")


def compare_encoder(folder: Path, encoder: "Encoder") -> None:
    """Raise Unusable if a transformer in it lacks weights, which sentence-transformers would make up."""
    for part, module in zip(json.loads((folder / "modules.json").read_bytes()), encoder.modules, strict=True):
        model = getattr(module, "auto_model", None)
        if model is not None:
            compare_weights(folder / part["path"], type(model), model.config, SPARE)
