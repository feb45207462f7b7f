"""Fields of a record: which of several names one has, and whether a value is text that can be kept."""

import unicodedata
from functools import cache, lru_cache
from itertools import groupby
from typing import Any

from apt_assets.landing.chunks import SURROGATE, BadField

LONGEST_TEXT = 1_000_000  # characters of a prompt or an answer
SHORT_TEXT = 1000  # so short that nothing in it takes long
MOST_MARKS = 100

Names = tuple[str, ...]


@lru_cache(1024)
def normal(name: Any) -> str:
    """A field's name without what tells spellings of it apart: "Chosen Response" is chosen_response."""
    return str(name).strip().casefold().replace(" ", "_").replace("-", "_")


class Fields:
    """The fields of a record by name, and which of them were read. One that is null is not there."""

    def __init__(self, record: dict[Any, Any]):
        self.record = record
        self.read: set[Any] = set()
        there = [name for name, value in record.items() if value is not None]
        self._null = [name for name, value in record.items() if value is None]
        # Of two spellings, the one as it is written here counts.
        self._spelt = {normal(name): name for name in there} | {name: name for name in there}

    def find(self, names: Names) -> str | None:
        """The first of these names that is there."""
        for name in names:  # some ten times a record: a generator would take twice as long
            if name in self._spelt:
                return name
        return None

    def peek(self, names: Names) -> Any:
        """The value of the first of these names that is there; None: none is."""
        found = self.find(names)
        return None if found is None else self.record[self._spelt[found]]

    def take(self, names: Names) -> tuple[str, Any]:
        """(the name as it is written in the record, its value), counted as read; (the first name, None): none is."""
        self.read.update(name for name in self._null if normal(name) in names)
        found = self.find(names)
        if found is None:
            return names[0], None
        name = self._spelt[found]
        self.read.add(name)
        return name, self.record[name]

    def others(self) -> dict[Any, Any]:
        """What was not read."""
        return {name: value for name, value in self.record.items() if name not in self.read}


def text_of(value: Any, field: str) -> str:
    """Text, stripped of outer white space. Raises BadField if it is something else or empty."""
    if value is None:
        raise BadField(field, "missing")
    if not isinstance(value, str):
        hint = ": write it as text, in quotes" if isinstance(value, int | float) else ""
        raise BadField(field, f"must be text, got {type(value).__name__}{hint}")
    if not value.strip():
        raise BadField(field, "empty")
    return value.strip()


def check_text(text: str, field: str) -> None:
    """Raise BadField if a text cannot be kept, is too long, or would take too long to normalise."""
    if "\x00" in text:
        raise BadField(field, "holds a NUL character")
    if len(text) > LONGEST_TEXT:
        raise BadField(field, f"longer than {LONGEST_TEXT} characters")
    # They are put in order one by one when a text is normalised: half a million take an hour. A run of them
    # has one at a place that is looked at first, since a whole search takes longer than all else.
    if len(text) >= SHORT_TEXT and not combining_marks().isdisjoint(text[MOST_MARKS :: MOST_MARKS + 1]):
        lengths = (sum(1 for _ in run) for is_mark, run in groupby(text, combining_marks().__contains__) if is_mark)
        if max(lengths) > MOST_MARKS:
            raise BadField(field, f"holds more than {MOST_MARKS} combining marks in a row")
    if SURROGATE.search(text):
        raise BadField(field, "holds a lone surrogate, which is not text")


@cache
def combining_marks() -> frozenset[str]:
    # A halfwidth voiced sign is a letter until it is normalised.
    every = map(chr, range(0x300, 0x1F000))
    return frozenset(c for c in every if unicodedata.category(c)[0] == "M" or c in "\uff9e\uff9f")
