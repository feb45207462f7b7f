"""What reading a file gives: records, a chunk at a time, each as it was found and what it says or why it cannot be
read."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from apt_assets.landing.parquet import LONGEST_RECORD

CHUNK_BYTES = 1 << 22
CHUNK_RECORDS = 1 << 14
RAW_CHARACTERS = 500
RAW_BYTES = 4 * RAW_CHARACTERS  # of which these characters are made at most
SURROGATE = re.compile(r"[\ud800-\udfff]")


class BadField(ValueError):
    """A field of a row is wrong: (field, reason)."""

    def __init__(self, field: str | None, reason: str):
        super().__init__(reason)
        self.field, self.reason = field, reason


@dataclass(frozen=True)
class Chunk:
    """Records of a file that follow each other.

    lines: of each the line on which it begins (of a CSV record, ends), from 1; in a Parquet file, and in JSON that has
        several records on a line, its number; 0 means the file as a whole.
    raws: each record as it was found: bytes of JSON, cells of a CSV record, a Parquet row.
    records: each one parsed, or the BadField that it is.
    """

    lines: Sequence[int]
    raws: Sequence[Any]
    records: Sequence[Any]


# The line of a record, what was found, and what it says or the BadField that it is.
Record = tuple[int, Any, Any]


def in_chunks(records: Iterator[Record]) -> Iterator[Chunk]:
    """Records in chunks of at most CHUNK_RECORDS and about CHUNK_BYTES characters."""
    found: list[Record] = []
    size = 0
    for record in until_unreadable(records):
        found.append(record)
        raw = record[1]
        size += len(raw) if isinstance(raw, bytes) else sum(map(len, raw))
        if len(found) == CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield Chunk(*zip(*found, strict=True))
            found, size = [], 0
    if found:
        yield Chunk(*zip(*found, strict=True))


def until_unreadable(records: Iterator[Record]) -> Iterator[Record]:
    """Raises OSError if this machine is the reason (`of_this_machine`)."""
    try:
        yield from records
    except (OSError, ValueError) as error:
        if of_this_machine(error):
            raise
        yield 0, b"", unreadable(error)


def of_this_machine(error: Exception) -> TypeGuard[OSError]:
    """Whether it is no fault of a file that it was not read, but of a disk, say. What a file holds has no number."""
    return isinstance(error, OSError) and error.errno is not None


def unreadable(error: Exception) -> BadField:
    """The file as a whole, from where it could not be read on; a BadField says itself what is wrong with it."""
    return error if isinstance(error, BadField) else BadField(None, f"the file cannot be read on: {error}")


def too_long() -> BadField:
    return BadField(None, f"longer than {LONGEST_RECORD >> 20} MiB")


def twice(kind: str, name: str) -> BadField:
    """A name that stands twice, so that one value would be lost."""
    shown = printable(name.encode("utf-8", "surrogatepass"))
    return BadField(shown, f"stands there twice as a {kind}: take one of them out, or rename it")


def printable(raw: Any) -> str:
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else repr(raw)
    text = text.rstrip("\r\n")[:RAW_CHARACTERS]
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
