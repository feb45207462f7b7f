"""Files of human grades -> rows and rejects: one JSON object a line, from the review page or by hand.

{"prompt": ..., "answer": the answer that was graded, "gold": ..., "grade": 1-5, "by": who, "at": ISO 8601}

and, where more is right, "also": [further golds].
"""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from apt_assets.landing.chunks import BadField, printable, unreadable
from apt_assets.landing.fields import check_text, text_of
from apt_assets.landing.json_lines import read_lines
from apt_assets.landing.records import Reject

TEXTS = ("prompt", "answer", "gold", "by")
COLUMNS = {**dict.fromkeys((*TEXTS, "also", "at"), pl.String), "grade": pl.Int8}


class HumanGrade(NamedTuple):
    """also: a JSON list of further golds, as rows have it. at: in UTC."""

    prompt: str
    answer: str
    gold: str
    also: str | None
    by: str
    at: str
    grade: int


def read_human_grades(
    paths: Iterable[Path], ungradable: Callable[[str], str | None] | None = None
) -> tuple[pl.DataFrame, list[Reject]]:
    """(COLUMNS of the lines that can be used, those that cannot). Never raises for the content of a file.

    ungradable: a gold -> why the assessor cannot grade against it, or None; None: it can against any.
    """
    rows: list[HumanGrade] = []
    rejects = []
    for path in paths:
        for line, raw, record in lines_of(path):
            try:
                found = check(record)
                golds = (found.gold, *json.loads(found.also or "[]"))
                reasons = [reason for gold in golds if ungradable is not None and (reason := ungradable(gold))]
                if len(reasons) == len(golds):
                    reason, *_ = reasons
                    raise BadField("gold", reason)
                rows.append(found)
            except BadField as bad:
                rejects.append(Reject(path.name, line, bad.field, bad.reason, printable(raw)))
    return pl.DataFrame(rows, schema={name: COLUMNS[name] for name in HumanGrade._fields}, orient="row"), rejects


def lines_of(path: Path) -> Iterable[tuple[int, Any, Any]]:
    """(line, as found, what it says or the BadField that it is)."""
    try:
        for chunk in read_lines(path):
            yield from zip(chunk.lines, chunk.raws, chunk.records, strict=True)
    except (OSError, ValueError) as error:
        yield 0, b"", unreadable(error)


def check(record: Any) -> HumanGrade:
    """Raises BadField naming the first field that is wrong. Other fields are not read."""
    if isinstance(record, BadField):
        raise record
    if not isinstance(record, dict):
        raise BadField(None, f"must be an object with prompt, answer, gold, grade, by and at, got {record!r:.40}")
    prompt, answer, gold, by = (kept_text(record, name) for name in TEXTS)
    grade = record.get("grade")
    if type(grade) is not int or not 1 <= grade <= 5:
        raise BadField("grade", f"must be a whole number from 1 to 5, got {grade!r:.40}")
    return HumanGrade(prompt, answer, gold, further_golds(record.get("also")), by, moment_of(record.get("at")), grade)


def further_golds(found: Any) -> str | None:
    if found is None or found == []:
        return None
    if not isinstance(found, list):
        raise BadField("also", f"must be a list of further golds, got {found!r:.40}")
    golds = {text_of(gold, "also") for gold in found}
    for gold in golds:
        check_text(gold, "also")
    return json.dumps(sorted(golds), ensure_ascii=False)


def kept_text(record: dict[str, Any], name: str) -> str:
    """Only an answer may be empty: policies say nothing at times."""
    value = record.get(name)
    said_nothing = name == "answer" and isinstance(value, str) and not value.strip()
    text = "" if said_nothing else text_of(value, name)
    check_text(text, name)
    return text


def moment_of(at: Any) -> str:
    """As ISO 8601 in UTC, so that the later of two is the greater text; a time without a zone is taken for UTC."""
    try:
        found = datetime.fromisoformat(at)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    except (TypeError, ValueError, OverflowError):
        raise BadField(
            "at", f"must be a time as ISO 8601 has it, such as 2026-01-31T14:00:00Z, got {at!r:.40}"
        ) from None
