"""Which split a question belongs to: decided by its content, for ever.

The hash is over the normalised prompt, so two questions that differ only in case, spacing or
punctuation always fall into the same split and cannot leak from training into evaluation.
"""

import hashlib
import re
import unicodedata

SPLITS = ("train", "validation", "test")


def normalise(text: str) -> str:
    """NFKC, case-folded, punctuation and symbols to spaces, runs of white space to one."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[\W_]+", " ", folded).split())


def row_id(prompt: str) -> str:
    """Identity of a question: 16 hex digits of the sha256 of its normalised prompt.

    A prompt of punctuation only normalises to nothing; it is then identified by its exact text.
    """
    text = normalise(prompt) or prompt
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def split_of(row: str, validation: float, test: float) -> str:
    """The split of a row_id: its hash as a number in [0, 1) against the two shares."""
    # A second hash: row_id also orders the mining draw, which must not depend on the split.
    bucket = int(hashlib.sha256(f"split:{row}".encode()).hexdigest()[:13], 16) / 16**13
    if bucket < test:
        return "test"
    return "validation" if bucket < test + validation else "train"
