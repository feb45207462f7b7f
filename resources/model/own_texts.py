"""General text of a user's own, in pieces as long as those that a model writes (resources/model/unprompted.py)."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from resources.model.control_tokens import encoder
from resources.model.packing import Ids
from resources.model.unprompted import document_start
from resources.store.digest import list_files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENDINGS = (".txt", ".md")


class UnreadableText(ValueError):
    """A file of the folder is no text; the message names it."""


def pieces(folder: Path, tokenizer: "PreTrainedTokenizerBase", known: int, tokens: int, most: int) -> list[Ids]:
    """At most `most` texts of `tokens` tokens, behind what a document begins with; which ones is drawn by their hash.
    known: how many tokens the model has.

    Raises UnreadableText for a file that is not UTF-8, and for a folder without a text of that length.
    """
    start = document_start(tokenizer, known)
    found = sorted({(drawn(ids), tuple(ids)) for text in texts_of(folder) for ids in cut(text, tokenizer, tokens)})
    if not found:
        raise UnreadableText(f"{folder}: no {' or '.join(ENDINGS)} file there has {tokens} tokens")
    return [[*start, *ids] for _, ids in found[:most]]


def texts_of(folder: Path) -> Iterator[str]:
    for path in list_files(folder):
        if path.suffix in ENDINGS:
            try:
                yield path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise UnreadableText(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from None


def cut(text: str, tokenizer: "PreTrainedTokenizerBase", tokens: int) -> Iterator[Ids]:
    """Whole pieces of a text; what is left at its end is no piece."""
    ids = encoder(tokenizer)(text)
    return (ids[start : start + tokens] for start in range(0, len(ids) - tokens + 1, tokens))


def drawn(ids: Ids) -> str:
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()
