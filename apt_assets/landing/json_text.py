"""JSON values that follow each other in a text, one of them in memory at a time, however they stand on its lines."""

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from apt_assets.landing.chunks import RAW_CHARACTERS, SURROGATE, BadField, Record, too_long
from apt_assets.landing.json_lines import DECODER, not_utf8, too_deep
from apt_assets.landing.parquet import LONGEST_RECORD

PART = 1 << 18  # characters
NEAR_BROKEN = 1 << 12
SPACE = re.compile(r"[ \t\n\r]*")
LIST_OF_OBJECTS = re.compile(r"\[[ \t\n\r]*\{")
FIRST_KEY = re.compile(r'\{[ \t\n\r]*"((?:[^"\\\n]|\\.){1,200})"[ \t\n\r]*:')
LONGEST_BEGINNING = 1000  # characters of what `JsonText.beginning` finds
NEAR = 16  # characters: no token of JSON but a text is longer, and has to be seen to its end
PLAIN = json.JSONDecoder()


class JsonText:
    """text[at:] is what has been read of the file and not been taken; line: the line of its first character, from 1.

    beginning: how a record begins here, by the first of them. Where one is broken, it is gone on at the next such
        place: in what people have, all rows begin with the same key, or all at the same column of a line of their own.
    broken: whether the last value was.
    """

    def __init__(self, file: IO[str]):
        self.file, self.text, self.at, self.line = file, "", 0, 1
        self.beginning: re.Pattern[str] | None = None
        self.broken = False

    def more(self) -> bool:
        """Read on; False at the end. Raises BadField if what was not taken is longer than a record may be."""
        left = len(self.text) - self.at
        if left > LONGEST_RECORD:
            raise too_long()
        part = self.file.read(max(PART, left))  # twice as much, so that a long value is not begun for every part
        self.text, self.at = self.text[self.at :] + part, 0
        return part != ""

    def take(self, end: int) -> str:
        taken = self.text[self.at : end]
        self.line += taken.count("\n")
        self.at = end
        return taken

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            space = SPACE.match(self.text, self.at)
            assert space
            self.take(space.end())
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def expect(self, *signs: str) -> str:
        """Take the next character. Raises ValueError if it is none of these."""
        if (found := self.peek()) not in signs:
            got = f"got {found}" if found else "and there is no more"
            raise ValueError(f"not valid JSON: {' or '.join(signs)} expected on line {self.line}, {got}")
        return self.take(self.at + 1)

    def at_list_of_objects(self) -> bool:
        while not LIST_OF_OBJECTS.match(self.text, self.at) and len(self.text) - self.at < LONGEST_BEGINNING:
            if not self.more():
                return False
        return LIST_OF_OBJECTS.match(self.text, self.at) is not None

    # -- values ------------------------------------------------------------------------------------

    def value(self) -> Record:
        """The value that begins at `at`, or the BadField that it is; of a broken one, what can be read goes on at the
        next record."""
        if self.broken and self.at > NEAR_BROKEN + len(self.text) // 64:
            # An error of JSON counts the lines before it, and after one there may be many.
            self.text, self.at = self.text[self.at :], 0
        if self.beginning is None:
            self.beginning = how_it_begins(self.text, self.at)
        line = self.line
        try:
            found, end = self.decode()
        except BadField as bad:
            found, self.broken = bad, True
            raw = self.text[self.at : self.at + RAW_CHARACTERS]
            self.to_next_record()
        else:
            self.broken = False
            raw = self.take(end)
            if len(raw) > LONGEST_RECORD:
                raw, found = raw[:RAW_CHARACTERS], too_long()
        encoded = raw.encode("utf-8", "surrogateescape")
        if SURROGATE.search(raw):
            try:
                encoded.decode()
            except UnicodeDecodeError as error:
                found = not_utf8(error)
        return line, encoded, found

    def decode(self) -> tuple[Any, int]:
        """(what the value says, or the BadField if it has a key twice, where it ends). Raises BadField."""
        while True:
            try:
                found, end = decode(self.text, self.at)
            except json.JSONDecodeError as error:
                # A text that has no end yet; anything else is wrong where it is wrong, unless that is the very end.
                cut = error.pos > len(self.text) - NEAR or error.msg.startswith("Unterminated string")
                if not (cut and self.more()):
                    place = error.pos - self.at + 1
                    raise BadField(None, f"not valid JSON: {error.msg} at character {place} of the row") from None
            except RecursionError:
                raise too_deep() from None
            except ValueError as error:
                raise error if isinstance(error, BadField) else BadField(None, f"not valid JSON: {error}") from None
            else:
                # A number may go on in the next part.
                if end < len(self.text) or type(found) not in (int, float) or not self.more():
                    return found, end

    def to_next_record(self) -> None:
        """Go to where the next record seems to begin, or to the end."""
        assert self.beginning
        start = self.at + 1
        while not (found := self.beginning.search(self.text, start)):
            # The last characters may be half a beginning.
            self.take(max(start, len(self.text) - LONGEST_BEGINNING))
            if not self.more():
                self.take(len(self.text))
                return
            start = self.at
        self.take(found.start())

    def items(self) -> Iterator[Record]:
        """The values of the array whose bracket was taken, to its end. A comma too many, or none, loses nothing and is
        not minded. Raises ValueError if the array has no end."""
        self.beginning = None
        while (sign := self.peek()) not in ("", "]"):
            if sign == ",":
                self.take(self.at + 1)
            else:
                yield self.value()
        if sign:
            self.take(self.at + 1)
        elif not self.broken:
            raise ValueError(f"its list is not closed: it ends on line {self.line}, in the middle")

    def values(self) -> Iterator[Record]:
        """All values of the text, and those of its arrays, as `items`."""
        while sign := self.peek():
            if sign in "[,":
                self.take(self.at + 1)
            if sign == "[":
                yield from self.items()
            elif sign != ",":
                yield self.value()


def decode(text: str, at: int) -> tuple[Any, int]:
    """(value, its end) of the value at a place; one that has a key twice is the BadField of that. Raises ValueError or
    RecursionError."""
    try:
        return DECODER.raw_decode(text, at)
    except BadField as bad:
        return bad, PLAIN.raw_decode(text, at)[1]


def how_it_begins(text: str, at: int) -> re.Pattern[str]:
    """What finds the records that begin like this one: with its first key, or on a line at its column."""
    before = text[text.rfind("\n", 0, at) + 1 : at]
    column = rf"(?<=\n){before if before.isspace() else ''}\{{"
    key = FIRST_KEY.match(text, at)
    return re.compile(rf'{column}|\{{[ \t\n\r]*"{re.escape(key[1])}"[ \t\n\r]*:' if key else column)
