"""Landed files -> records, a chunk at a time. The formats that land, and how each is read.

Parquet is read by pyarrow in a process of its own (apt_assets/landing/parquet.py): polars' reader can panic on
malformed files, and no reader of it survives all of them. No record is longer than LONGEST_RECORD in memory.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.landing.chunks import BadField, Chunk, of_this_machine, printable, too_long, unreadable
from apt_assets.landing.csv_files import read_csv
from apt_assets.landing.json_files import read_json
from apt_assets.landing.opening import PACKINGS, unpacked
from apt_assets.landing.parquet import read_batches

if TYPE_CHECKING:
    import pyarrow as pa


def read_chunks(path: Path) -> Iterator[Chunk]:
    """Read a file by its suffix, one of READERS. Never raises for its content: where a file cannot be read on, the
    last record is a BadField on line 0. Raises OSError if this machine is the reason, as a full disk is: what is
    found of a file is remembered by its content."""
    try:
        yield from READERS[format_of(path.name)](path)
    except (OSError, ValueError) as error:
        if of_this_machine(error):
            place = f" ({error.filename})" if error.filename not in (None, str(path)) else ""
            raise OSError(error.errno, f"{error.strerror}{place}", str(path)) from error
        yield Chunk([0], [b""], [unreadable(error)])


def format_of(name: str) -> str:
    """Which of READERS a file's name says, in whatever case: rows.JSONL.GZ is ".jsonl"; "" if it is none of them."""
    path = Path(name.lower())
    suffix = Path(path.stem).suffix if path.suffix in PACKED else path.suffix
    return suffix if suffix in READERS else ""


def suffixes_of(name: str) -> str:
    """The end of a name of which `format_of` is known: ".jsonl.gz"."""
    suffix = Path(name).suffix
    return Path(Path(name).stem).suffix + suffix if suffix.lower() in PACKED else suffix


# -- Parquet ---------------------------------------------------------------------------------------------


def read_parquet(path: Path) -> Iterator[Chunk]:
    """Batch by batch. Raises OSError or ValueError where the file cannot be read on."""
    with parquet_file(path) as file:
        yield from parquet_chunks(file)


@contextmanager
def parquet_file(path: Path) -> Iterator[Path]:
    """The file itself, or what it holds if it is packed: Parquet cannot be read from the beginning to the end."""
    with path.open("rb") as file:
        packing = next((name for mark, name in PACKINGS.items() if file.peek(8).startswith(mark)), None)
        if packing is None:
            yield path
            return
        with tempfile.NamedTemporaryFile(suffix=".parquet") as plain:
            plain.writelines(unpacked(file, packing))
            plain.flush()
            yield Path(plain.name)


def parquet_chunks(path: Path) -> Iterator[Chunk]:
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


# The formats that land, by suffix; each may also be packed.
READERS: dict[str, Callable[[Path], Iterator[Chunk]]] = {
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}
PACKED = (".gz", ".zst")
