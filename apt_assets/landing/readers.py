"""Landed files -> records, a chunk at a time: each as it was found, and what it says or why it cannot be read.

JSONL is parsed line by line and CSV record by record, so that one broken row costs one row. Parquet is
read by pyarrow in a process of its own (apt_assets/landing/parquet.py): polars' reader can panic on malformed
files, and no reader of it survives all of them. No record is longer than LONGEST_RECORD in memory.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import compress, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from apt_assets.landing.parquet import LONGEST_RECORD, read_batches

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_BYTES = 1 << 22
CHUNK_RECORDS = 1 << 14
RAW_CHARACTERS = 500
RAW_BYTES = 4 * RAW_CHARACTERS  # of which these characters are made at most
ENDS = ("\n", "\r", ord("\n"))  # of a line of text, or of bytes
# White space around a JSON value, which `raw_decode` takes neither before nor after it.
JSON_SPACE = " \t\n\r"
SURROGATE = re.compile(r"[\ud800-\udfff]")
DECODER = json.JSONDecoder()
csv.field_size_limit(LONGEST_RECORD)


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
    """Read a file by its suffix, one of READERS. Never raises for its content: where a file cannot be read on, the
    last record is a BadField on line 0."""
    try:
        yield from READERS[path.suffix](path)
    except (OSError, ValueError) as error:
        yield Chunk([0], [b""], [unreadable(error)])


def unreadable(error: Exception) -> BadField:
    return BadField(None, f"the file cannot be read on: {error}")


def too_long() -> BadField:
    return BadField(None, f"longer than {LONGEST_RECORD >> 20} MiB")


# -- JSONL ---------------------------------------------------------------------------------------------


def read_jsonl(path: Path) -> Iterator[Chunk]:
    """Lines of about CHUNK_BYTES together; blank lines are skipped."""
    with path.open("rb") as file:
        first = 1
        while part := file.read(CHUNK_BYTES):
            raws = BytesIO(part).readlines()
            if not raws[-1].endswith(b"\n"):
                raws[-1] += file.readline(LONGEST_RECORD)
            last = raws[-1]
            if cut := len(last) > LONGEST_RECORD:
                skip_line(file, last)
                raws.pop()
            try:
                yield parse_lines(first, raws)
            except (ValueError, RecursionError):
                yield parse_line_by_line(first, raws)
            first += len(raws)
            if cut:
                yield Chunk([first], [last[:RAW_BYTES]], [too_long()])
                first += 1


def skip_line(file: IO[Any], line: Any) -> None:
    """Read to the end of the line of which `line` is the beginning, without keeping it."""
    while line and line[-1] not in ENDS:
        line = file.readline(CHUNK_BYTES)


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
    """CSV records in chunks of at most CHUNK_RECORDS and about CHUNK_BYTES characters."""
    found, size = [], 0
    for record in until_unreadable(records):
        found.append(record)
        size += sum(map(len, record[1]))
        if len(found) == CHUNK_RECORDS or size >= CHUNK_BYTES:
            yield Chunk(*zip(*found, strict=True))
            found, size = [], 0
    if found:
        yield Chunk(*zip(*found, strict=True))


def until_unreadable(records: Iterator[Record]) -> Iterator[Record]:
    try:
        yield from records
    except (OSError, ValueError, csv.Error) as error:
        yield 0, "", unreadable(error)


class CsvLines:
    """The physical lines of a CSV file, counted. More than LONGEST_RECORD characters of them since `begin`
    raise BadField."""

    def __init__(self, file: IO[str]):
        self.file, self.number, self.left, self.ended = file, 0, 0, False

    def begin(self) -> None:
        self.left = LONGEST_RECORD

    def __iter__(self) -> "CsvLines":
        return self

    def __next__(self) -> str:
        line = self.file.readline(self.left + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        self.left -= len(line)
        if self.left < 0:
            skip_line(self.file, line)
            raise too_long()
        return line


def read_csv(path: Path) -> Iterator[Record]:
    """(line on which the record ends, cells, dict or BadField); the first line names the columns."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = CsvLines(file)
        lines.begin()
        reader = csv.reader(lines, strict=True)
        header = next(reader, [])
        while not lines.ended:
            lines.begin()
            try:
                for cells in islice(reader, 1):
                    if cells:
                        yield lines.number, cells, by_name(header, cells)
            except BadField as bad:
                yield lines.number, "", bad
            except csv.Error as error:
                if lines.ended:
                    raise  # a quote that is never closed may have swallowed many rows
                yield lines.number, "", BadField(None, f"not valid CSV: {error}")


def by_name(header: list[str], cells: list[str]) -> dict[str, Any] | BadField:
    """The cells that are not empty, by column."""
    if len(cells) > len(header):
        return BadField(None, f"{len(cells)} cells, but {len(header)} columns")
    if SURROGATE.search("".join(cells)):
        name = next(name for name, cell in zip(header, cells, strict=False) if SURROGATE.search(cell))
        return BadField(printable(name.encode("utf-8", "surrogateescape")), "not valid UTF-8")
    filled: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=False) if cell != ""}
    if isinstance(filled.get("metadata"), str):
        filled["metadata"] = {"metadata": filled["metadata"]}
    return filled


def read_parquet(path: Path) -> Iterator[Chunk]:
    """Batch by batch. Raises ValueError where the file cannot be read on."""
    first = 1
    for batch in read_batches(path):
        if not batch.num_rows:
            yield Chunk([first], [b""], [too_long()])
            first += 1
            continue
        try:
            rows: list[Any] = batch.to_pylist()
        except Exception:  # of one value in one row; `parquet_row` knows them
            rows = [parquet_row(batch, n) for n in range(batch.num_rows)]
        broken = [isinstance(row, BadField) for row in rows]
        yield Chunk(
            range(first, first + len(rows)),
            [b"" if bad else row for bad, row in zip(broken, rows, strict=True)],
            [
                row if bad else {name: value for name, value in row.items() if value is not None}
                for bad, row in zip(broken, rows, strict=True)
            ],
        )
        first += len(rows)


def parquet_row(batch: "pa.RecordBatch", n: int) -> dict[str, Any] | BadField:
    """A row of a batch in which some value is none of Python's: text that is not UTF-8, a date after the year
    9999, a time zone that no one knows."""
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[n].as_py()
        except UnicodeDecodeError:
            return BadField(printable(name.encode()), "not valid UTF-8")
        except Exception as error:
            return BadField(printable(name.encode()), f"cannot be read: {error}")
    return row


def printable(raw: Any) -> str:
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else repr(raw)
    text = text.rstrip("\r\n")[:RAW_CHARACTERS]
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


# The formats that land, by suffix.
READERS: dict[str, Callable[[Path], Iterator[Chunk]]] = {
    ".jsonl": read_jsonl,
    ".csv": lambda path: in_chunks(read_csv(path)),
    ".parquet": read_parquet,
}
