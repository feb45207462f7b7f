"""Corrections: what people decided about rows. They land as a file of a kind of their own, a decision a line:

    {"prompt": ..., "decision": ..., "answer": ..., "row": ..., "by": who, "at": when, ISO 8601 with its time zone}

    gold_is_right        the gold stands, however doubtful it looks
    answer_is_right_too  `answer` is one more gold
    both_wrong           `answer` is the gold, in place of all that were there
    leave_out            the question leaves the data set
    undo                 what was decided about this row does not hold
    new_row              a question that people asked, and its right answer: a row like one of any other file
    no_row               a question that people asked, of which no row is made

`row` is the digest of what a decision was taken on (method/corrections.py); null of no_row, and where that is undone.
What these lines make of the rows stands there; no landed file is changed by them.
"""

import re
from datetime import UTC, datetime
from typing import Any

import polars as pl

from apt_assets.landing.chunks import BadField
from apt_assets.landing.fields import check_text, text_of

GOLD_IS_RIGHT, ANSWER_IS_RIGHT_TOO, BOTH_WRONG = "gold_is_right", "answer_is_right_too", "both_wrong"
LEAVE_OUT, UNDO, NEW_ROW, NO_ROW = "leave_out", "undo", "new_row", "no_row"
DECISIONS = (GOLD_IS_RIGHT, ANSWER_IS_RIGHT_TOO, BOTH_WRONG, LEAVE_OUT, UNDO, NEW_ROW, NO_ROW)
WITH_ANSWER = (ANSWER_IS_RIGHT_TOO, BOTH_WRONG, NEW_ROW)
ROW = re.compile(r"[0-9a-f]{16}")
LONGEST_NAME = 100  # characters of who decided
COLUMNS = {"line": pl.Int64, **dict.fromkeys(("prompt", "decision", "answer", "row", "by", "at", "record"), pl.String)}
Decision = tuple[str, str, str | None, str | None, str, str]  # COLUMNS without line and record


def check_decision(record: Any) -> Decision:
    """A line as (prompt, decision, answer, row, by, at), the time in UTC. Raises BadField naming the first field that
    is wrong."""
    if isinstance(record, BadField):
        raise record
    if not isinstance(record, dict):
        raise BadField(None, f"must be an object with prompt and decision, got {type(record).__name__}")
    decision, row = record.get("decision"), record.get("row")
    if decision not in DECISIONS:
        raise BadField("decision", f"is none of what can be decided: {', '.join(DECISIONS)}")
    prompt = checked(record, "prompt")
    answer = checked(record, "answer") if decision in WITH_ANSWER else None
    if decision == NO_ROW or (decision == UNDO and row is None):
        row = None
    elif not isinstance(row, str) or not ROW.fullmatch(row):
        raise BadField("row", "must be 16 hex digits")
    return prompt, decision, answer, row, checked(record, "by")[:LONGEST_NAME], time_of(record.get("at"))


def checked(record: dict[str, Any], field: str) -> str:
    text = text_of(record.get(field), field)
    check_text(text, field)
    return text


def time_of(value: Any) -> str:
    """A time as ISO 8601 in UTC with microseconds, which sorts as text. Raises BadField."""
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is not None:
            return found.astimezone(UTC).isoformat(timespec="microseconds")
    except (TypeError, ValueError, OverflowError):
        pass
    raise BadField("at", "must be a time as ISO 8601 has it, with its time zone")


def in_order(corrections: pl.DataFrame) -> pl.DataFrame:
    """Decisions of any files in the order in which they were taken."""
    return corrections.sort("at", "record")


def standing(corrections: pl.DataFrame) -> int:
    """How many decisions of a file still say something: of a row the last, and none that the file itself takes back."""
    last: set[tuple[str, str]] = set()
    for prompt, row, decision in in_order(corrections).select("prompt", "row", "decision").drop_nulls().iter_rows():
        if decision == UNDO and (prompt, row) in last:
            last.remove((prompt, row))
        else:
            last.add((prompt, row))
    return len(last)
