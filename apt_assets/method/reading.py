"""Landed files -> records, a chunk at a time: each as it was found, and what it says or why it cannot be read.

JSONL is parsed line by line and CSV record by record, so that one broken row costs one row. Parquet is
read by pyarrow: polars' reader can panic on malformed files.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 22
CHUNK_RECORDS = 1 << 14
RAW_CHARACTERS = 500
# White space around a JSON value, which `raw_decode` takes neither before nor after it.
JSON_SPACE = " \t\n\r"
SURROGATE = re.compile(r"[\ud800-\udfff]")
DECODER = json.JSONDecoder()
csv.field_size_limit(1 << 24)


class BadField(ValueError):
    """A field of a row is wrong: (field, reason)."""

    def __init__(self, field: str | None, reason: str):
        super().__init__(reason)
        self.field, self.reason = field, reason


@dataclass(frozen=True)
class Chunk:
    """Records of a file that follow each other.

    lines: count from 1 (of a Parquet file: rows); 0 means the file as a whole.
    raws: each record as it was found: bytes of a JSONL line, cells of a CSV record, a Parquet row.
    records: each one parsed, or the BadField that it is.
    """

    lines: Sequence[int]
    raws: Sequence[Any]
    records: Sequence[Any]


def read_chunks(path: Path) -> Iterator[Chunk]:
    """Read a file by its suffix: .jsonl, .csv or .parquet. Never raises for its content: where a file cannot
    be read on, the last record is a BadField on line 0."""
    readers: dict[str, Callable[[Path], Iterator[Chunk]]] = {
        ".jsonl": read_jsonl,
        ".csv": lambda path: in_chunks(read_csv(path)),
        ".parquet": lambda path: in_chunks(read_parquet(path)),
    }
    try:
        yield from readers[path.suffix](path)
    except OSError as error:
        yield Chunk([0], [b""], [unreadable(error)])


def unreadable(error: Exception) -> BadField:
    return BadField(None, f"the file cannot be read on: {error}")


# -- JSONL ---------------------------------------------------------------------------------------------


def read_jsonl(path: Path) -> Iterator[Chunk]:
    """Lines of about CHUNK_BYTES together; blank lines are skipped."""
    with path.open("rb") as file:
        first = 1
        while raws := file.readlines(CHUNK_BYTES):
            try:
                yield parse_lines(first, raws)
            except (ValueError, RecursionError):
                yield parse_line_by_line(first, raws)
            first += len(raws)


def parse_lines(first: int, raws: list[bytes]) -> Chunk:
    """Lines that all hold one JSON value, or nothing. Raises ValueError or RecursionError if one does not."""
    lines: Sequence[int] = range(first, first + len(raws))
    texts = [raw.decode().strip(JSON_SPACE) for raw in raws]
    if not all(texts):
        lines, raws = list(compress(lines, texts)), list(compress(raws, texts))
        texts = [text for text in texts if text]
    # One value per call and not one array of all lines: joined, two broken lines may read as whole ones.
    found = [DECODER.raw_decode(text) for text in texts]
    if [end for _, end in found] != [len(text) for text in texts]:
        raise ValueError("a line goes on after its value")
    return Chunk(lines, raws, [record for record, _ in found])


def parse_line_by_line(first: int, raws: list[bytes]) -> Chunk:
    """The same for lines of which some are broken: these are a BadField."""
    written = [(line, raw) for line, raw in enumerate(raws, first) if raw.strip()]
    return Chunk(
        [line for line, _ in written], [raw for _, raw in written], [parse_line(line, raw) for line, raw in written]
    )


def parse_line(line: int, raw: bytes) -> Any:
    try:
        # A byte order mark is what some spreadsheet exports put before the first line.
        return json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        return BadField(None, f"not valid UTF-8 at byte {error.start + 1}")
    except RecursionError:
        return BadField(None, "JSON is nested too deeply")
    except ValueError as error:
        return BadField(None, f"not valid JSON: {error}")


# -- CSV and Parquet -----------------------------------------------------------------------------------

Record = tuple[int, Any, Any]


def in_chunks(records: Iterator[Record]) -> Iterator[Chunk]:
    readable = until_unreadable(records)
    while found := list(islice(readable, CHUNK_RECORDS)):
        yield Chunk(*zip(*found, strict=True))


def until_unreadable(records: Iterator[Record]) -> Iterator[Record]:
    try:
        yield from records
    except (OSError, ValueError, csv.Error) as error:
        yield 0, b"", unreadable(error)


def read_csv(path: Path) -> Iterator[Record]:
    """(line on which the record ends, cells, dict or BadField); the first line names the columns."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        for cells in reader:
            if not cells:
                continue
            if len(cells) > len(header):
                yield reader.line_num, cells, BadField(None, f"{len(cells)} cells, but {len(header)} columns")
            elif bad := [name for name, cell in zip(header, cells, strict=False) if SURROGATE.search(cell)]:
                yield (
                    reader.line_num,
                    cells,
                    BadField(printable(bad[0].encode("utf-8", "surrogateescape")), "not valid UTF-8"),
                )
            else:
                filled: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=False) if cell != ""}
                if isinstance(filled.get("metadata"), str):
                    filled["metadata"] = {"metadata": filled["metadata"]}
                yield reader.line_num, cells, filled


def read_parquet(path: Path) -> Iterator[Record]:
    """(row, dict, dict), batch by batch. Raises ValueError or OSError for a file that is not Parquet."""
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        number = 0
        for batch in file.iter_batches(batch_size=4096):
            for record in batch.to_pylist():
                number += 1
                yield number, record, {k: v for k, v in record.items() if v is not None}


def printable(raw: Any) -> str:
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else repr(raw)
    return text.rstrip("\r\n")[:RAW_CHARACTERS].encode("utf-8", "backslashreplace").decode("utf-8")
