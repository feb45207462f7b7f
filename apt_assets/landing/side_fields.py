"""What may stand beside a question and its answer: split, id, metadata. None of them costs a row.

What cannot be used as what it is named is kept with the metadata, word for word.
"""

import json
import re
from typing import Any

from apt_assets.landing.chunks import SURROGATE, BadField
from apt_assets.landing.fields import Fields

SPLITS = ("train", "validation", "test")
# The first word of a split's name, as data sets write it: dev, train_sft, validation_matched, test[:10%], held-out.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "validate", "val", "dev", "devel", "development"), "validation"),
    **dict.fromkeys(("eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout", "hold out", "held out"), "test"),
}  # fmt: skip
ENCODER, ESCAPING = (json.JSONEncoder(ensure_ascii=escaped, default=str) for escaped in (False, True))


def split_of(value: Any) -> str | None:
    """The split that is meant; None: none is, or one that we do not know."""
    words = re.findall(r"[a-z]+", value.casefold()) if isinstance(value, str) else []
    return next((SPLIT_WORDS[first] for first in (" ".join(words[:2]), *words[:1]) if first in SPLIT_WORDS), None)


def id_of(value: Any) -> str | None:
    """An id as text, a whole number without its ".0"; None: it is none."""
    if isinstance(value, str):
        return None if SURROGATE.search(value) else value
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
        return None
    return str(int(value))


def side_fields(fields: Fields) -> tuple[str | None, str | None, str | None]:
    """(split, source_id, metadata) of a record whose question and answer were read. Raises BadField for metadata that
    cannot be written."""
    found = []
    for names, meant in ((("split",), split_of), (("id",), id_of)):
        value = meant(fields.peek(names))
        if value is not None or fields.peek(names) is None:
            fields.take(names)
        found.append(value)
    return found[0], found[1], metadata_of(fields.others())


def unknown_split(record: Any) -> str | None:
    """The word in `split` that we do not know; None: there is none."""
    word = Fields(record).peek(("split",)) if isinstance(record, dict) else None
    return word if isinstance(word, str) and word.strip() and split_of(word) is None else None


def metadata_of(others: dict[Any, Any]) -> str | None:
    """All other fields, and those of `metadata`, as one JSON object; None if there are none. Raises BadField."""
    own = others.get("metadata")
    named = {name: value for name, value in others.items() if name != "metadata"}
    metadata = named | (own if isinstance(own, dict) else {} if own is None else {"metadata": own})
    try:
        text = ENCODER.encode(metadata) if metadata else None
        # Half a character is no text; escaped, it is kept.
        return ESCAPING.encode(metadata) if text is not None and SURROGATE.search(text) else text
    except RecursionError:
        raise BadField("metadata", "JSON is nested too deeply") from None
