"""Landed files -> rows and rejects. Every line of a file ends as one or the other.

JSONL is read line by line and CSV record by record, so that one broken row costs one row. Parquet
is read by pyarrow: polars' reader can panic on malformed files.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_assets.method.splits import SPLITS
from resources.digest import digest_json

RAW_CHARACTERS = 500
csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class Row:
    """One accepted row; `line` counts from 1 (of a Parquet file: the row)."""

    file: str
    line: int
    prompt: str
    answer: str
    split: str | None
    source_id: str | None
    metadata: str | None

    @property
    def record(self) -> str:
        """16 hex digits of what the row says, wherever it stands in its file."""
        return digest_json([self.prompt, self.answer, self.split, self.source_id, self.metadata])[:16]


@dataclass(frozen=True)
class Reject:
    """One row that was not accepted; line 0 means the file as a whole."""

    file: str
    line: int
    field: str | None
    reason: str
    raw: str

    @property
    def record(self) -> str:
        """16 hex digits of what was found and what is wrong with it."""
        return digest_json(["reject", self.field, self.reason, self.raw])[:16]


class BadField(ValueError):
    """A field of a row is wrong: (field, reason)."""

    def __init__(self, field: str | None, reason: str):
        super().__init__(reason)
        self.field, self.reason = field, reason


def read_landed(path: Path) -> Iterator[Row | Reject]:
    """Read one landed file by its suffix: .jsonl, .csv or .parquet.

    Never raises for the content of the file: what cannot be read is a Reject.
    """
    readers = {".jsonl": read_jsonl, ".csv": read_csv, ".parquet": read_parquet}
    try:
        for line, raw, record in readers[path.suffix](path):
            try:
                if isinstance(record, BadField):
                    raise record
                yield check(path.name, line, record)
            except BadField as bad:
                yield Reject(path.name, line, bad.field, bad.reason, printable(raw))
    except (OSError, ValueError, csv.Error) as error:
        yield Reject(path.name, 0, None, f"the file cannot be read on: {error}", "")


def content_digest(path: Path) -> str:
    """Digest of what a landed file says, whatever the order of its rows and the form of its lines."""
    return digest_json(sorted(row.record for row in read_landed(path)))


Record = tuple[int, Any, Any]


def read_jsonl(path: Path) -> Iterator[Record]:
    """(line, raw bytes, object or BadField); blank lines are skipped."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                # A byte order mark is what some spreadsheet exports put before the first line.
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, raw, json.loads(text)
            except UnicodeDecodeError as error:
                yield number, raw, BadField(None, f"not valid UTF-8 at byte {error.start + 1}")
            except RecursionError:
                yield number, raw, BadField(None, "JSON is nested too deeply")
            except ValueError as error:
                yield number, raw, BadField(None, f"not valid JSON: {error}")


def read_csv(path: Path) -> Iterator[Record]:
    """(line on which the record ends, fields, dict or BadField); the first line names the columns."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        for cells in reader:
            if not cells:
                continue
            if len(cells) > len(header):
                yield reader.line_num, cells, BadField(None, f"{len(cells)} cells, but {len(header)} columns")
            elif bad := [name for name, cell in zip(header, cells, strict=False) if has_surrogate(cell)]:
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


def check(file: str, line: int, record: Any) -> Row:
    """A record as a Row. Raises BadField naming the first field that is wrong."""
    if not isinstance(record, dict):
        raise BadField(None, f"must be an object with prompt and answer, got {type(record).__name__}")
    prompt = text_field(record, "prompt")
    answer = text_field(record, "answer")
    split = record.get("split")
    if split is not None and split not in SPLITS:
        raise BadField("split", f"must be one of {', '.join(SPLITS)}, got {split!r}")
    source_id = record.get("id")
    if isinstance(source_id, bool) or not isinstance(source_id, str | int | None):
        raise BadField("id", f"must be text or a whole number, got {type(source_id).__name__}")
    given = record.get("metadata")
    if given is not None and not isinstance(given, dict):
        raise BadField("metadata", f"must be an object, got {type(given).__name__}")
    others = {k: v for k, v in record.items() if k not in ("prompt", "answer", "split", "id", "metadata")}
    metadata = {**others, **(given or {})}
    return Row(
        file,
        line,
        prompt,
        answer,
        split,
        None if source_id is None else encodable(str(source_id), "id"),
        encodable(json.dumps(metadata, ensure_ascii=False, default=str), "metadata") if metadata else None,
    )


def text_field(record: dict, name: str) -> str:
    """A required, non-empty text field, stripped of outer white space. Raises BadField."""
    if name not in record:
        raise BadField(name, "missing")
    value = record[name]
    if not isinstance(value, str):
        raise BadField(name, f"must be text, got {type(value).__name__}")
    if not value.strip():
        raise BadField(name, "empty")
    if "\x00" in value:
        raise BadField(name, "holds a NUL character")
    return encodable(value.strip(), name)


def encodable(text: str, field: str) -> str:
    if has_surrogate(text):
        raise BadField(field, "holds a lone surrogate, which is not text")
    return text


def has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def printable(raw: Any) -> str:
    text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else repr(raw)
    return text.rstrip("\r\n")[:RAW_CHARACTERS].encode("utf-8", "backslashreplace").decode("utf-8")
