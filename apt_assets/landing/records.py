"""Landed files -> rows and rejects. Every record of a file ends as one or the other.

A million rows pass here, so records are checked column by column: those that are plainly good together,
and one by one only those that are not (`check`, which knows what is wrong, and that some of them are good).
"""

import json
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import polars as pl

from apt_assets.landing.chunks import BadField, Chunk, printable
from apt_assets.landing.corrections import COLUMNS, NEW_ROW, check_decision, standing
from apt_assets.landing.fields import SHORT_TEXT, Fields, normal
from apt_assets.landing.formats import read_record
from apt_assets.landing.names import is_corrections
from apt_assets.landing.readers import read_chunks
from apt_assets.landing.side_fields import SPLITS, metadata_of, side_fields, unknown_split
from apt_assets.landing.spellings import ALIASES, REJECTED
from resources.store.digest import digest_json, digest_rows

READ = frozenset(("prompt", "answer", "split", "id"))
FIELDS = READ | {"metadata"}
# Fields that are read if they stand beside these, under whatever spelling.
READ_TOO = FIELDS | {*ALIASES, *REJECTED}
BEFORE_A_GOLD = 8  # tokens
UNCLEAN = re.compile(r"[\x00\ud800-\udfff]")


class Content(NamedTuple):
    """What an accepted record says. answer: the gold. also: a JSON list of further right answers. rejected: a wrong
    answer that came with it. metadata: a JSON object."""

    prompt: str
    answer: str
    also: str | None
    rejected: str | None
    split: str | None
    source_id: str | None
    metadata: str | None


ROWS = {"line": pl.Int64, **dict.fromkeys(Content._fields, pl.String), "record": pl.String}


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

    rows: the accepted records, as ROWS: the line on which each stands, its Content, and in `record` 16 hex digits of
        what the row says, wherever it stands.
    unknown_splits: words in `split` that we do not know.
    corrections: of a file of decisions these, as COLUMNS; its rows are those that decisions made.
    """

    file: str
    rows: pl.DataFrame
    rejects: list[Reject]
    unknown_splits: frozenset[str] = frozenset()
    corrections: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=COLUMNS))

    @property
    def texts(self) -> pl.DataFrame:
        """The rows, and the questions with the golds that decisions give them: all that may be asked and trained on."""
        if self.corrections.is_empty():
            return self.rows
        given = self.corrections.drop_nulls("answer").select("line", "prompt", "answer")
        return pl.concat([self.rows, given], how="diagonal")


@dataclass(frozen=True)
class Contents:
    """What a landed file says. digest: 64 hex digits, whatever the order of its rows and the form of its lines.
    rows: how many are accepted, or how many decisions say something. remarks: what to know of accepted rows, told once
    for the file. widest: no row has more tokens in all, whatever the tokenizer."""

    digest: str
    rows: int
    rejects: list[Reject]
    remarks: list[str]
    widest: int


def records_of(rejects: Sequence[Reject]) -> list[str]:
    """Of each, 16 hex digits of what was found and what is wrong with it."""
    columns = [[getattr(bad, name) for bad in rejects] for name in ("field", "reason", "raw")]
    return digest_rows(["reject"] * len(rejects), *columns, digits=16)


def read_landed(path: Path) -> Iterator[Landed]:
    """Read one landed file by its suffix: .jsonl, .csv or .parquet.

    Never raises for the content of the file: what cannot be read is a Reject.
    """
    sorted_out = decisions_of if is_corrections(path.name) else sort_out
    for chunk in read_chunks(path):
        yield sorted_out(path.name, chunk)


def contents_of(path: Path) -> Contents:
    """What a landed file says, in one pass over it."""
    records: list[pl.Series] = []
    rejects: list[Reject] = []
    decisions = [pl.DataFrame(schema=COLUMNS)]
    widest = rows = 0
    unknown: set[str] = set()
    for part in read_landed(path):
        widest = max(widest, part.texts.select(width().max()).item() or 0)
        found = part.rows["record"] if part.corrections.is_empty() else part.corrections["record"]
        records += [found, pl.Series(records_of(part.rejects), dtype=pl.String)]
        rows += part.rows.height
        decisions.append(part.corrections)
        rejects += part.rejects
        unknown |= part.unknown_splits
    found = pl.concat(records) if records else pl.Series(dtype=pl.String)
    remarks = [unknown_in_words(unknown)] if unknown else []
    rows = standing(pl.concat(decisions)) if is_corrections(path.name) else rows
    return Contents(digest_json(found.sort().to_list()), rows, rejects, remarks, widest)


def width() -> pl.Expr:
    """The most tokens that a row's prompt and all of its answers can become: one for a byte, and of text that a
    tokenizer may rewrite at length, as it does with ligatures, four."""
    widths = []
    for text in (pl.col(name) for name in ("prompt", "answer", "also", "rejected")):
        length = text.str.len_bytes().cast(pl.Int64)
        widths.append(pl.when(length == text.str.len_chars()).then(length).otherwise(4 * length))
    # What a rubric writes before a further gold, for each of the two quotes that it stands in.
    also = BEFORE_A_GOLD * pl.col("also").str.count_matches('"', literal=True).cast(pl.Int64)
    return pl.sum_horizontal(*widths, also)  # of what is not there none


def unknown_in_words(splits: Iterable[str]) -> str:
    words = sorted(splits)
    named = ", ".join(reprlib.repr(word) for word in words[:5]) + (", ..." if len(words) > 5 else "")
    return (
        f"split: {named} is none of {', '.join(SPLITS)}: these rows are split by content, so some are trained on; "
        "rename it if they are to be held out"
    )


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
    unknown = set()
    for n in [n for n, good in enumerate(plain) if not good]:
        try:
            others.append([chunk.lines[n], *check(chunk.records[n])])
            unknown.add(unknown_split(chunk.records[n]))
        except BadField as bad:
            rejects.append(Reject(file, chunk.lines[n], bad.field, bad.reason, printable(chunk.raws[n])))
    rows = as_rows(content)
    if others:
        rows = pl.concat([rows, as_rows(dict(zip(content, zip(*others, strict=True), strict=True)))]).sort("line")
    return Landed(file, rows, rejects, frozenset(word for word in unknown if word is not None))


def as_rows(columns: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """ROWS of its columns but the last, which it adds."""
    always = (columns[name] for name in Content._fields if name not in ("also", "rejected"))
    # What few rows have does not change the digest of the others.
    rare = None
    if any(columns["also"]) or any(columns["rejected"]):
        given = zip(columns["also"], columns["rejected"], strict=True)
        rare = [json.dumps(pair, ensure_ascii=False) if any(pair) else None for pair in given]
    records = digest_rows(*always, optional=rare, digits=16)
    return pl.DataFrame({**columns, "record": records}, schema=ROWS)


def plainly_good(records: Sequence[Any]) -> list[bool]:
    """Of each record, whether `check` accepts it, as far as that is seen without looking at it twice; metadata
    that is no text is found later."""
    objects = [record if type(record) is dict else {} for record in records]
    # Most records of a file have the same names.
    names = [tuple(record) for record in objects]
    plain = {its: are_plain(its) for its in set(names)}
    fields = ([record.get(name) for record in objects] for name in ("prompt", "answer", "split", "id", "metadata"))
    return [
        plain[its]
        and type(prompt) is str
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
        for its, prompt, answer, split, source_id, metadata in zip(names, *fields, strict=True)
    ]


def are_plain(names: Sequence[str]) -> bool:
    """Whether nothing beside FIELDS, as they are written here, is read of a record with these names."""
    return all(name in FIELDS or normal(name) not in READ_TOO for name in names)


def columns_of(records: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Content of plainly good records, column by column. Raises BadField if the metadata of one cannot be kept."""
    ids = [record.get("id") for record in records]
    return {
        "prompt": [record["prompt"].strip() for record in records],
        "answer": [record["answer"].strip() for record in records],
        "also": [None] * len(records),
        "rejected": [None] * len(records),
        "split": [record.get("split") for record in records],
        "source_id": [None if source_id is None else str(source_id) for source_id in ids],
        "metadata": [
            metadata_of({name: value for name, value in record.items() if name not in READ})
            if record.get("metadata") or not record.keys() <= FIELDS
            else None
            for record in records
        ],
    }


def decisions_of(file: str, chunk: Chunk) -> Landed:
    """The records of a chunk of corrections."""
    found: list[tuple[Any, ...]] = []
    rejects = []
    for line, raw, record in zip(chunk.lines, chunk.raws, chunk.records, strict=True):
        try:
            found.append((line, *check_decision(record)))
        except BadField as bad:
            rejects.append(Reject(file, line, bad.field, bad.reason, printable(raw)))
    columns = list(zip(*found, strict=True)) if found else [()] * (len(COLUMNS) - 1)
    records = digest_rows(*columns[1:], digits=16)
    decisions = pl.DataFrame(dict(zip(COLUMNS, [*columns, records], strict=True)), schema=COLUMNS)
    made = decisions.filter(pl.col("decision") == NEW_ROW)
    empty = dict.fromkeys(Content._fields, [None] * made.height)
    rows = as_rows(
        {"line": made["line"].to_list(), **empty, **made.select("prompt", "answer").to_dict(as_series=False)}
    )
    return Landed(file, rows, rejects, corrections=decisions)


# -- one record ----------------------------------------------------------------------------------------


def check(record: Any) -> Content:
    """A record of any shape (apt_assets/landing/formats.py). Raises BadField naming the first field that is wrong."""
    if isinstance(record, BadField):
        raise record
    if not isinstance(record, dict):
        raise BadField(None, f"must be an object with prompt and answer, got {type(record).__name__}")
    fields = Fields(record)
    try:
        prompt, golds, rejected = read_record(fields)
        return Content(prompt, golds[0], as_further(golds), rejected, *side_fields(fields))
    except RecursionError:
        raise BadField(None, "JSON is nested too deeply") from None


def as_further(golds: Sequence[str]) -> str | None:
    """The golds behind the first as a JSON list, in an order of their own: they are right whichever comes first."""
    return json.dumps(sorted(golds[1:]), ensure_ascii=False) if len(golds) > 1 else None
