"""The lines in which rows are kept, wherever they lie.

The first line of a file, or of a segment, holds the context that its rows were computed under. Every further line is
one row: {"key": ..., "value": ..., "check": ...}, where the check is a CRC-32 over the bytes of the line before it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import compress
from typing import IO, Any
from zlib import crc32

CHUNK_BYTES = 1 << 22
# The parts of a line; a hot path tells them apart by these bytes, without parsing it.
BEFORE_KEY, BEFORE_VALUE, CHECK = b'{"key": "', b'", "value": ', b', "check": "%08x"}'
KEY_AT, CHECK_BYTES = len(BEFORE_KEY), len(CHECK % 0)
PLAIN = re.compile(r"[0-9A-Za-z-]+")
ENCODER = json.JSONEncoder(allow_nan=False)


def encode_rows(rows: Mapping[str, Any]) -> list[bytes]:
    """A line for each row, without its end. Raises ValueError for a key that is not plain text."""
    if odd := [key for key in rows if not PLAIN.fullmatch(key)]:
        raise ValueError(f"a key of a row is letters, digits and -, not {odd[0]!r}")
    bodies = [
        b"%b%b%b%b" % (BEFORE_KEY, key.encode(), BEFORE_VALUE, ENCODER.encode(value).encode())
        for key, value in rows.items()
    ]
    return [body + CHECK % crc32(body) for body in bodies]


def read_rows(file: IO[bytes], wanted: set[bytes]) -> dict[str, Any]:
    """{key: value} of the whole lines with a key in `wanted`, from where the file stands, which is after its first
    line; of lines with the same key the last counts."""
    rows: dict[str, Any] = {}
    while part := file.read(CHUNK_BYTES):
        lines = (part + file.readline()).split(b"\n")
        found = [key_of(line) in wanted for line in lines]
        rows.update(whole_rows(list(compress(lines, found))))
    return rows


def key_of(line: bytes) -> bytes:
    return line[KEY_AT : line.find(b'"', KEY_AT)]


def is_whole(line: bytes) -> bool:
    return line[-CHECK_BYTES:] == CHECK % crc32(line[:-CHECK_BYTES])


def whole_rows(lines: list[bytes]) -> Iterator[tuple[str, Any]]:
    """(key, value) of the lines that match their check."""
    whole = [line for line in lines if is_whole(line)]
    ends = [line.find(BEFORE_VALUE) for line in whole]
    keys = [line[KEY_AT:end].decode() for line, end in zip(whole, ends, strict=True)]
    values = [line[end + len(BEFORE_VALUE) : -CHECK_BYTES] for line, end in zip(whole, ends, strict=True)]
    # Each value is JSON by itself, or it would not match the check: so they can be parsed as one array.
    return zip(keys, json.loads(b"[%b]" % b",".join(values)), strict=True)
