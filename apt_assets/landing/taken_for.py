"""What a file is taken for, and what may be wrong with all of it: for people, before or after it lands."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from apt_assets.landing.csv_files import dialect_of
from apt_assets.landing.formats import shape_of
from apt_assets.landing.guess import first_not_utf8
from apt_assets.landing.json_files import layout_of
from apt_assets.landing.opening import open_utf8
from apt_assets.landing.readers import format_of, read_chunks
from apt_assets.landing.records import Contents, Reject, read_landed

LOOKED_AT = 100  # records from which fields and shapes are told
MOST_FIELDS = 20
SHOWN_ROWS = 3
NOT_UTF8 = "not valid UTF-8"
# What two reasons may differ in, and are of one kind: numbers, and what was found.
DETAIL = re.compile(r"\d+|'[^']*'|\"[^\"]*\"")
KINDS = {"lines": "JSON, a row a line", "values": "JSON, rows in a list or one after the other"}


def taken_for(path: Path) -> dict[str, Any]:
    """{format, separator, encoding, packing, shape, fields}: what a file is read as; separator is of CSV alone.
    What cannot be told is None."""
    found: dict[str, Any] = {"format": "Parquet", "separator": None, "encoding": None, "packing": None}
    try:
        if format_of(path.name) != ".parquet":
            found["format"], found["separator"] = text_format(path)
            with open_utf8(path) as source:
                found |= {"encoding": source.encoding, "packing": source.packing}
    except (OSError, ValueError):
        found["format"] = None  # its one reject says why
    return {**found, **fields_and_shape(path)}


def text_format(path: Path) -> tuple[str, str | None]:
    """(format, separator of CSV). Raises OSError, ValueError."""
    if format_of(path.name) in (".csv", ".tsv"):
        return "CSV", dialect_of(path).separator
    layout = layout_of(path)
    names = " and ".join(f'"{name}"' for name in layout.names)
    return KINDS.get(layout.kind, f"JSON, an object with rows under {names}"), None


def fields_and_shape(path: Path) -> dict[str, Any]:
    """{fields: names in the order in which they occur, shape: for people, or None}, of the first records."""
    records = first_records(path)
    names = list(dict.fromkeys(name for record in records for name in record if name))
    shapes = list(dict.fromkeys(shape for shape in map(shape_of, records) if shape))
    return {"fields": [printable_name(name) for name in names[:MOST_FIELDS]], "shape": " and ".join(shapes) or None}


def first_records(path: Path) -> list[dict[str, Any]]:
    first = next(read_chunks(path), None)
    return [record for record in islice(first.records if first else (), LOOKED_AT) if isinstance(record, dict)]


def printable_name(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()[:100]


def first_rows(path: Path) -> list[dict[str, Any]]:
    """Rows as they would land."""
    rows: list[dict[str, Any]] = []
    for part in read_landed(path):
        rows += part.rows.drop("record").head(SHOWN_ROWS - len(rows)).to_dicts()
        if len(rows) == SHOWN_ROWS:
            break
    return rows


# -- what is wrong with all of it ------------------------------------------------------------------------


@dataclass(frozen=True)
class Alike:
    """Rejects of one kind. lines: of all; first: the first of them."""

    lines: list[int]
    first: Reject


def alike(rejects: Sequence[Reject]) -> list[Alike]:
    """Rejects by field and reason, numbers and what was found left aside; in the order of the first ones."""
    kinds: dict[tuple[str, str], Alike] = {}
    for bad in rejects:
        kind = DETAIL.sub("", bad.field or ""), DETAIL.sub("", bad.reason)
        kinds.setdefault(kind, Alike([], bad)).lines.append(bad.line)
    return list(kinds.values())


def hints(path: Path, found: Contents) -> list[str]:
    """Of what is wrong with a whole file, or to know of it, a line that says what to do."""
    lines = list(found.remarks)
    if wrong := [bad for bad in found.rejects if NOT_UTF8 in bad.reason]:
        lines.append(about_encoding(path, wrong))
    kinds = alike(found.rejects)
    if not wrong and not found.rows and len(kinds) == 1 and kinds[0].first.line > 0:
        lines.append(about_fields(path, kinds[0]))
    return lines


def about_encoding(path: Path, bad: Sequence[Reject]) -> str:
    try:
        wrong = first_not_utf8(path) if format_of(path.name) != ".parquet" else None
    except (OSError, ValueError):
        wrong = None
    what = "1 row is" if len(bad) == 1 else f"{len(bad)} rows are"
    told = f"{what if bad[0].line else 'its column names are'} {NOT_UTF8}"
    if wrong is None:  # Parquet, or half a character in UTF-16
        return f"{told}: write the file anew"
    place = f"the first at byte {wrong.place} (0x{wrong.byte:02X}) of the file"
    if wrong.looks_like == "utf-8":
        return f"{told}, {place}; the text around is UTF-8, so the bytes are damaged: write these rows anew"
    return f"{told}, {place}; it looks like {wrong.looks_like}: land it with --encoding {wrong.looks_like}"


def about_fields(path: Path, kind: Alike) -> str:
    bad, told = kind.first, fields_and_shape(path)
    where = f"{bad.field}: {bad.reason}" if bad.field else bad.reason
    lines = f"the row is bad: {where}" if len(kind.lines) == 1 else f"all {len(kind.lines)} rows are bad alike: {where}"
    if not told["fields"]:
        return f"{lines}; it holds no objects with fields, such as prompt and answer"
    shape = f", which is taken for {told['shape']}" if told["shape"] else ""
    inner = [printable_name(name) for name, value in first_records(path)[0].items() if holds_objects(value)]
    nested = f"if the rows stand inside of {inner[0]}, write each as an object of its own; " if inner else ""
    return (
        f"{lines}; the fields that are there: {', '.join(told['fields'])}{shape}; {nested}"
        "name the question `prompt` and its answer `answer`"
    )


def holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(inner, dict) for inner in value))
