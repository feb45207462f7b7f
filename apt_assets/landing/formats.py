"""The shapes a record may have, in one table: which fields each is known by, and how it is read.

The first shape whose fields are all there is the record's. What they may be called stands in `spellings`. What a shape
does not read stays with the row as metadata.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apt_assets.landing.chunks import BadField
from apt_assets.landing.fields import Fields, Names, check_text
from apt_assets.landing.preferences import read_chat, read_preference, usable_rejected
from apt_assets.landing.questions import Reading, aliases_of, read_choice, read_label, read_pair, read_plain
from apt_assets.landing.spellings import ANSWER, ANSWERED, ASKED, CHAT, CHOICES, CHOSEN, LABEL, PROMPT, QUESTION, TEXT


@dataclass(frozen=True)
class Shape:
    """name: for people. needs: of each of these groups of fields, one must be there. read: raises BadField."""

    name: str
    needs: tuple[Names, ...]
    read: Callable[[Fields], Reading]

    def fits(self, fields: Fields) -> bool:
        return all(fields.find(names) is not None for names in self.needs)


SHAPES = (
    Shape("prompt and answer", (PROMPT, ANSWER), read_plain),
    Shape("a preference: chosen and rejected", (CHOSEN,), read_preference),
    Shape("a chat", (CHAT,), read_chat),
    Shape("multiple choice", (QUESTION, CHOICES), read_choice),
    Shape("an instruction with its output (Alpaca)", (("instruction",), ANSWERED), read_pair),
    Shape("a question and its answer", (ASKED, ANSWERED), read_pair),
    Shape("a text and its label", (TEXT, LABEL), read_label),
)


def shape_of(record: Any) -> str | None:
    """The name of a record's shape, for people; None: it has none that we know."""
    shape = its_shape(Fields(record)) if isinstance(record, dict) else None
    return None if shape is None else shape.name


def its_shape(fields: Fields) -> Shape | None:
    return next((shape for shape in SHAPES if shape.fits(fields)), None)


def read_record(fields: Fields) -> Reading:
    """What a record says by its shape; its texts are such as can be kept. Raises BadField naming the first field that
    is wrong."""
    shape = its_shape(fields)
    if shape is None:
        raise what_is_missing(fields)
    found = shape.read(fields)
    found = found._replace(golds=list(dict.fromkeys([*found.golds, *aliases_of(fields)])))
    for field, text in [("prompt", found.prompt), *(("answer", gold) for gold in found.golds)]:
        check_text(text, field)
    return found._replace(rejected=usable_rejected(fields, found))


def what_is_missing(fields: Fields) -> BadField:
    """What is wrong with a record without a known shape."""
    if fields.find(ASKED) is not None:
        return BadField("answer", "missing")
    if fields.find(TEXT) is not None:
        return BadField("answer", "missing: a text alone has no answer that could be graded")
    return BadField("prompt", "missing")
