"""CSV: what separates its cells, and its records one by one, so that one broken record costs one row."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from apt_assets.landing.chunks import SURROGATE, BadField, Chunk, Record, in_chunks, printable, too_long, twice
from apt_assets.landing.json_lines import skip_line
from apt_assets.landing.opening import open_text
from apt_assets.landing.parquet import LONGEST_RECORD, repeated

SEPARATORS = ",;\t|"
# A first line with which Excel is told the separator: sep=;
TOLD = re.compile(r'"?sep=([^\w"\r\n])"?(?=[\r\n])', re.IGNORECASE)
LOOKED_AT = 1 << 16  # characters from which the separator is told
FEW = 20  # records
csv.field_size_limit(LONGEST_RECORD)


@dataclass(frozen=True)
class Dialect:
    """separator: what stands between cells. told: the first line says so, and holds no column names. spaced: a space
    follows each separator, also before a quote."""

    separator: str
    told: bool = False
    spaced: bool = False

    def reader(self, lines: Any) -> Any:
        return csv.reader(lines, delimiter=self.separator, skipinitialspace=self.spaced, strict=True)


def dialect_of(path: Path) -> Dialect:
    """By the first line if it tells; else the separator that makes the most columns of the first line, and as many of
    the lines after it. Raises OSError, ValueError."""
    with open_text(path) as (file, _):
        head = file.read(LOOKED_AT)
    if told := TOLD.match(head):
        return Dialect(told[1], told=True)
    found = {separator: first_records(head, separator) for separator in SEPARATORS}
    separator = max(found, key=lambda one: evenness(found[one]))
    names = found[separator][0] if found[separator] else []
    return Dialect(separator, spaced=any(name.startswith(" ") for name in names[1:]))


def first_records(head: str, separator: str) -> list[list[str]]:
    """Of a text, the records that are whole, or are broken but for the last."""
    found: list[list[str]] = []
    try:
        records = (record for record in Dialect(separator).reader(io.StringIO(head, newline="")) if record)
        found.extend(islice(records, FEW + 1))
    except csv.Error:
        pass
    return found if len(found) < 2 else found[:-1]


def evenness(records: list[list[str]]) -> tuple[float, int]:
    """(share of records with as many cells as the first, how many these are); (0, 0) for one column."""
    columns = len(records[0]) if records else 0
    if columns < 2:
        return 0, 0
    return sum(len(record) == columns for record in records) / len(records), columns


class CsvLines:
    """The physical lines of a CSV file, counted. More than LONGEST_RECORD characters of them since `begin`
    raise BadField. failure: says why the file was cut off, if it was; then a line without an end does not count."""

    def __init__(self, file: IO[str], failure: Callable[[], str | None]):
        self.file, self.failure = file, failure
        self.number, self.left, self.ended = 0, 0, False

    def begin(self) -> None:
        self.left = LONGEST_RECORD

    def __iter__(self) -> "CsvLines":
        return self

    def __next__(self) -> str:
        line = self.file.readline(self.left + 1)
        if not line or (line[-1] not in "\r\n" and len(line) <= self.left and self.failure()):
            self.ended = True
            raise StopIteration
        self.number += 1
        self.left -= len(line)
        if self.left < 0:
            skip_line(self.file, line)
            raise too_long()
        return line


def read_csv(path: Path) -> Iterator[Chunk]:
    """The first line names the columns. Raises OSError or ValueError where the file cannot be read on."""
    yield from in_chunks(read_records(path, dialect_of(path)))


def read_records(path: Path, dialect: Dialect) -> Iterator[Record]:
    """(line on which the record ends, cells, dict or BadField)."""
    with open_text(path) as (file, source):
        lines = CsvLines(file, lambda: source.failure)
        lines.begin()
        if dialect.told:
            next(lines)
        reader = dialect.reader(lines)
        header = column_names(first_record(reader))
        nameless = [n for n, name in enumerate(header) if not name]
        while not lines.ended:
            lines.begin()
            begun = lines.number + 1
            try:
                for cells in islice(reader, 1):
                    if cells:
                        yield lines.number, cells, by_name(header, nameless, cells)
            except BadField as bad:
                yield lines.number, "", bad
            except csv.Error as error:
                if lines.ended:
                    source.check()
                    # A quote that is never closed may have swallowed many rows.
                    raise ValueError(f"{error}: a quote that opens after line {begun - 1} is not closed") from None
                yield lines.number, "", BadField(None, f"not valid CSV: {error}")
        source.check()


def first_record(reader: Iterator[list[str]]) -> list[str]:
    """The first that is no blank line. Raises ValueError if it cannot be read."""
    try:
        return next((cells for cells in reader if cells), [])
    except csv.Error as error:
        raise ValueError(f"the names of its columns are not valid CSV: {error}") from None


def column_names(cells: list[str]) -> list[str]:
    """The names of columns, without white space around them. Raises BadField if two are the same, or one is no text."""
    names = [cell.strip().strip("\ufeff").strip() for cell in cells]
    if SURROGATE.search("".join(names)):
        raise BadField(None, "the names of its columns are not valid UTF-8")
    if (name := repeated(filter(None, names))) is not None:
        raise twice("column", name)
    return names


def by_name(header: list[str], nameless: list[int], cells: list[str]) -> dict[str, Any] | BadField:
    """The cells that are not empty, by column."""
    if len(cells) > len(header):
        return BadField(None, f"{len(cells)} cells, but {len(header)} columns")
    if len(nameless) > 1 and sum(n < len(cells) and cells[n] != "" for n in nameless) > 1:
        return BadField(None, "text in several columns that have no name")
    if SURROGATE.search("".join(cells)):
        name = next(name for name, cell in zip(header, cells, strict=False) if SURROGATE.search(cell))
        return BadField(printable(name.encode("utf-8", "surrogateescape")), "not valid UTF-8")
    filled: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=False) if cell != ""}
    if isinstance(filled.get("metadata"), str):
        filled["metadata"] = {"metadata": filled["metadata"]}
    return filled
