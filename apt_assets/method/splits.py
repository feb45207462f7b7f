"""Which split a question belongs to: decided by its content, for ever.

The hash is over the normalised prompt, so two questions that differ only in case, spacing, punctuation or
symbols always fall into the same split and cannot leak from training into evaluation.
"""

import hashlib
from collections.abc import Sequence

import polars as pl

from resources.words import words


def normalise(text: str) -> str:
    """The words of a text, with a space between them."""
    return " ".join(words(text))


def row_id(prompt: str) -> str:
    """Identity of a question: 16 hex digits of the sha256 of its normalised prompt.

    A prompt of punctuation only normalises to nothing; it is then identified by its exact text.
    """
    return digest_16(normalise(prompt) or prompt)


def normalised(texts: pl.Series) -> pl.Series:
    """`normalise` of every text."""
    # For ASCII, lower case is what folding comes to, and polars does it without a call per row.
    normal = texts.str.to_lowercase().str.replace_all("[^0-9a-z]+", " ").str.strip_chars(" ")
    others = (texts.str.len_bytes() != texts.str.len_chars()).arg_true()
    if others.is_empty():
        return normal
    return normal.scatter(others, [normalise(text) for text in texts[others]])


def row_ids(prompts: pl.Series) -> list[str]:
    """`row_id` of every prompt."""
    pairs = zip(normalised(prompts).to_list(), prompts.to_list(), strict=True)
    return [digest_16(text or prompt) for text, prompt in pairs]


def digest_16(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def splits_of(rows: Sequence[str], validation: float, test: float) -> list[str]:
    """The split of every row_id: its hash as a number in [0, 1) against the two shares."""
    # A second hash: row_id also orders the mining draw, which must not depend on the split.
    buckets = [int(hashlib.sha256(f"split:{row}".encode()).hexdigest()[:13], 16) / 16**13 for row in rows]
    return ["test" if b < test else "validation" if b < test + validation else "train" for b in buckets]
