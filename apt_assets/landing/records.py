"""Landed files -> rows and rejects. Every record of a file ends as one or the other.

A million rows pass here, so records are checked column by column: those that are plainly good together,
and one by one only those that are not (`check`, which knows what is wrong, and that some of them are good).
"""

import json
import re
import reprlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress, groupby
from pathlib import Path
from types import NoneType
from typing import Any

import polars as pl

from apt_assets.landing.formats import as_prompt_and_answer
from apt_assets.landing.readers import SURROGATE, BadField, Chunk, printable, read_chunks
from resources.store.digest import digest_json, digest_rows

SPLITS = ("train", "validation", "test")
FIELDS = frozenset(("prompt", "answer", "split", "id", "metadata"))
LONGEST_TEXT = 1_000_000  # characters of a prompt or an answer
SHORT_TEXT = 1000  # so short that nothing in it takes long
MOST_MARKS = 100
UNCLEAN = re.compile(r"[\x00\ud800-\udfff]")
METADATA = json.JSONEncoder(ensure_ascii=False, default=str)
CONTENT = dict.fromkeys(("prompt", "answer", "split", "source_id", "metadata"), pl.String)
ROWS = {"line": pl.Int64, **CONTENT, "record": pl.String}


@dataclass(frozen=True)
class Reject:
    """One record that was not accepted; line 0 means the file as a whole."""

    file: str
    line: int
    field: str | None
    reason: str
    raw: str


@dataclass(frozen=True)
class Landed:
    """A part of a landed file.

    rows: the accepted records, as ROWS: the line on which each stands, prompt, answer, and split, source_id
        and metadata (a JSON object) or null; `record` is 16 hex digits of what the row says, wherever it stands.
    """

    file: str
    rows: pl.DataFrame
    rejects: list[Reject]


@dataclass(frozen=True)
class Contents:
    """What a landed file says. digest: 64 hex digits, whatever the order of its rows and the form of its lines.
    rows: how many are accepted. widest: no prompt has more tokens with its answer, whatever the tokenizer."""

    digest: str
    rows: int
    rejects: list[Reject]
    widest: int


def records_of(rejects: Sequence[Reject]) -> list[str]:
    """Of each, 16 hex digits of what was found and what is wrong with it."""
    columns = [[getattr(bad, name) for bad in rejects] for name in ("field", "reason", "raw")]
    return digest_rows(["reject"] * len(rejects), *columns, digits=16)


def read_landed(path: Path) -> Iterator[Landed]:
    """Read one landed file by its suffix: .jsonl, .csv or .parquet.

    Never raises for the content of the file: what cannot be read is a Reject.
    """
    for chunk in read_chunks(path):
        yield sort_out(path.name, chunk)


def contents_of(path: Path) -> Contents:
    """What a landed file says, in one pass over it."""
    records: list[pl.Series] = []
    rejects: list[Reject] = []
    widest = 0
    for part in read_landed(path):
        widest = max(widest, part.rows.select(width().max()).item() or 0)
        records += [part.rows["record"], pl.Series(records_of(part.rejects), dtype=pl.String)]
        rejects += part.rejects
    found = pl.concat(records) if records else pl.Series(dtype=pl.String)
    return Contents(digest_json(found.sort().to_list()), len(found) - len(rejects), rejects, widest)


def width() -> pl.Expr:
    """The most tokens that a row's prompt and answer can become: one for a byte, and of text that a tokenizer may
    rewrite at length, as it does with ligatures, four."""
    widths = []
    for text in (pl.col("prompt"), pl.col("answer")):
        length = text.str.len_bytes().cast(pl.Int64)
        widths.append(pl.when(length == text.str.len_chars()).then(length).otherwise(4 * length))
    return widths[0] + widths[1]


# -- many records --------------------------------------------------------------------------------------


def sort_out(file: str, chunk: Chunk) -> Landed:
    """The records of a chunk as rows and rejects, in their order."""
    plain = plainly_good(chunk.records)
    try:
        columns = columns_of(list(compress(chunk.records, plain)))
    except BadField:
        plain, columns = [False] * len(plain), columns_of([])
    content = {"line": list(compress(chunk.lines, plain)), **columns}
    others: list[list[Any]] = []
    rejects = []
    for n in [n for n, good in enumerate(plain) if not good]:
        try:
            others.append([chunk.lines[n], *check(chunk.records[n])])
        except BadField as bad:
            rejects.append(Reject(file, chunk.lines[n], bad.field, bad.reason, printable(chunk.raws[n])))
    rows = as_rows(content)
    if others:
        rows = pl.concat([rows, as_rows(dict(zip(content, zip(*others, strict=True), strict=True)))]).sort("line")
    return Landed(file, rows, rejects)


def as_rows(columns: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """ROWS of its columns but the last, which it adds."""
    records = digest_rows(*(columns[name] for name in CONTENT), digits=16)
    return pl.DataFrame({**columns, "record": records}, schema=ROWS)


def plainly_good(records: Sequence[Any]) -> list[bool]:
    """Of each record, whether `check` accepts it, as far as that is seen without looking at it twice; metadata
    that is no text is found later."""
    objects = [record if type(record) is dict else {} for record in records]
    fields = ([record.get(name) for record in objects] for name in ("prompt", "answer", "split", "id", "metadata"))
    return [
        type(prompt) is str
        and type(answer) is str
        and (split is None or split in SPLITS)
        and (type(source_id) in (NoneType, int) or (type(source_id) is str and not UNCLEAN.search(source_id)))
        and type(metadata) in (NoneType, dict)
        and not UNCLEAN.search(prompt)
        and not UNCLEAN.search(answer)
        and prompt.strip() != ""
        and answer.strip() != ""
        and len(prompt) < SHORT_TEXT
        and len(answer) < SHORT_TEXT
        for prompt, answer, split, source_id, metadata in zip(*fields, strict=True)
    ]


def columns_of(records: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """CONTENT of plainly good records. Raises BadField if the metadata of one cannot be kept as text."""
    ids = [record.get("id") for record in records]
    return {
        "prompt": [record["prompt"].strip() for record in records],
        "answer": [record["answer"].strip() for record in records],
        "split": [record.get("split") for record in records],
        "source_id": [None if source_id is None else str(source_id) for source_id in ids],
        "metadata": [
            metadata_of(record) if record.get("metadata") or not record.keys() <= FIELDS else None for record in records
        ],
    }


# -- one record ----------------------------------------------------------------------------------------


def check(record: Any) -> tuple[str, str, str | None, str | None, str | None]:
    """A record as CONTENT. Raises BadField naming the first field that is wrong."""
    if isinstance(record, BadField):
        raise record
    if not isinstance(record, dict):
        raise BadField(None, f"must be an object with prompt and answer, got {type(record).__name__}")
    record = as_prompt_and_answer(record)
    prompt = text_field(record, "prompt")
    answer = text_field(record, "answer")
    split = record.get("split")
    if split is not None and split not in SPLITS:
        raise BadField("split", f"must be one of {', '.join(SPLITS)}, got {reprlib.repr(split)}")
    source_id = record.get("id")
    if isinstance(source_id, bool) or not isinstance(source_id, str | int | None):
        raise BadField("id", f"must be text or a whole number, got {type(source_id).__name__}")
    given = record.get("metadata")
    if given is not None and not isinstance(given, dict):
        raise BadField("metadata", f"must be an object, got {type(given).__name__}")
    source_id = None if source_id is None else encodable(str(source_id), "id")
    return prompt, answer, split, source_id, metadata_of(record)


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
    check_amount(value, name)
    return encodable(value.strip(), name)


def check_amount(text: str, field: str) -> None:
    """Raise BadField if a text is too long, or would take too long to normalise."""
    if len(text) > LONGEST_TEXT:
        raise BadField(field, f"longer than {LONGEST_TEXT} characters")
    # They are put in order one by one when a text is normalised: half a million take an hour. A run of them
    # has one at a place that is looked at first, since a whole search takes longer than all else.
    if len(text) >= SHORT_TEXT and not combining_marks().isdisjoint(text[MOST_MARKS :: MOST_MARKS + 1]):
        lengths = (sum(1 for _ in run) for is_mark, run in groupby(text, combining_marks().__contains__) if is_mark)
        if max(lengths) > MOST_MARKS:
            raise BadField(field, f"holds more than {MOST_MARKS} combining marks in a row")


@cache
def combining_marks() -> frozenset[str]:
    # A halfwidth voiced sign is a letter until it is normalised.
    every = map(chr, range(0x300, 0x1F000))
    return frozenset(c for c in every if unicodedata.category(c)[0] == "M" or c in "\uff9e\uff9f")


def metadata_of(record: dict[str, Any]) -> str | None:
    """All other fields, and those of `metadata`, as one JSON object; None if there are none. Raises BadField."""
    others = {name: value for name, value in record.items() if name not in FIELDS}
    metadata = {**others, **(record.get("metadata") or {})}
    try:
        return encodable(METADATA.encode(metadata), "metadata") if metadata else None
    except RecursionError:
        raise BadField("metadata", "JSON is nested too deeply") from None


def encodable(text: str, field: str) -> str:
    if SURROGATE.search(text):
        raise BadField(field, "holds a lone surrogate, which is not text")
    return text
