"""What people decided about rows, applied to them (the decisions: landing/corrections.py).

A decision names by a digest what it was taken on: a question with its golds of then. It holds for all rows that say so,
and goes before rows of the question that say something else: these contradict it. The next decision may be taken on
what an earlier one made of the golds; one that is taken on the same again replaces it and all that followed. One whose
row is not there, or has other golds by now, is reported and not applied. Of the rows that decisions made of an asked
question the last one counts, and none after `no_row`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import not_
from typing import Any, NamedTuple

import polars as pl

from apt_assets.landing.corrections import (
    ANSWER_IS_RIGHT_TOO,
    BOTH_WRONG,
    LEAVE_OUT,
    NEW_ROW,
    NO_ROW,
    UNDO,
    in_order,
)
from apt_assets.landing.names import is_corrections
from apt_assets.method.golds import further, golds_of
from apt_assets.method.splits import row_id, row_ids
from resources.store.digest import digest_json

Golds = tuple[str, str | None]  # as the columns `answer` and `also`
NOT_APPLIED = "a decision that does not apply: "
APPLIED = ("row_id", "decision", "landed_answer", "landed_also", "by", "at", "file")


def taken_on(prompt: str, answer: str, also: str | None) -> str:
    """Digest of a question and its golds, 16 hex digits: the `row` of a decision about them."""
    return digest_json([row_id(prompt), answer, also])[:16]


@dataclass(frozen=True)
class State:
    """A question's golds after a decision (None: as they landed). golds: None if it is left out."""

    row: str | None
    golds: Golds | None
    decision: Mapping[str, Any] | None


def states_of(
    landed: Mapping[str, Golds], decisions: Iterable[Mapping[str, Any]]
) -> tuple[list[State], list[Mapping[str, Any]]]:
    """(the states of a question from the landed golds to those that hold, none if no decision applies; decisions that
    do not apply).

    landed: golds of its rows by their digest. decisions: in the order in which they were taken, as COLUMNS.
    """
    states: list[State] = []
    refused = []
    for one in decisions:
        known = [state.row for state in states]
        if one["row"] in known:
            states = states[: known.index(one["row"]) + 1]
        elif one["row"] in landed:
            states = [State(one["row"], landed[one["row"]], None)]
        else:
            refused += [one] if one["decision"] != UNDO else []
            continue
        if one["decision"] != UNDO:
            states.append(after(states[-1], one))
    return states, refused


def after(state: State, decision: Mapping[str, Any]) -> State:
    golds, kind = state.golds, decision["decision"]
    assert golds is not None, "no decision is taken on what is left out: it has no digest"
    if kind == LEAVE_OUT:
        return State(None, None, decision)
    if kind == BOTH_WRONG:
        golds = decision["answer"], None
    elif kind == ANSWER_IS_RIGHT_TOO and decision["answer"] != golds[0]:
        golds = golds[0], json.dumps(sorted({*further(golds[1]), decision["answer"]}), ensure_ascii=False)
    return State(taken_on(decision["prompt"], *golds), golds, decision)


class Corrected(NamedTuple):
    """untouched: rows of no question that decisions are about. changed: the others, those first that a decision holds
    for. applied: APPLIED. left_out: (row, reason). refused: (decision, reason)."""

    untouched: pl.DataFrame
    changed: pl.DataFrame
    applied: pl.DataFrame
    left_out: list[tuple[dict[str, Any], str]]
    refused: list[tuple[Mapping[str, Any], str]]


def corrected(rows: pl.DataFrame, corrections: pl.DataFrame) -> Corrected:
    """rows: with file, prompt, answer, also, rejected and row_id. corrections: COLUMNS and file, in any order."""
    taken = in_order(corrections.filter(pl.col("row").is_not_null() | (pl.col("decision") == NO_ROW)))
    taken = taken.with_columns(pl.Series("row_id", row_ids(taken["prompt"]), dtype=pl.String))
    found = taken.rows_by_key("row_id", named=True, include_key=True)
    by_question = {question: on_rows(decisions) for question, decisions in found.items()}
    by_question = {question: decisions for question, decisions in by_question.items() if decisions}
    if not by_question:
        return Corrected(rows, rows.clear(), pl.DataFrame(schema=dict.fromkeys(APPLIED, pl.String)), [], [])
    about = pl.col("row_id").is_in(list(by_question))
    touched = rows.filter(about).rows_by_key("row_id", named=True, include_key=True)
    changed: list[dict[str, Any]] = []
    applied: list[tuple[Any, ...]] = []
    left_out: list[tuple[dict[str, Any], str]] = []
    refused: list[tuple[Mapping[str, Any], str]] = []
    for question, decisions in by_question.items():
        its = touched.get(question, [])
        digests = [taken_on(row["prompt"], row["answer"], row["also"]) for row in its]
        landed = {digest: (row["answer"], row["also"]) for digest, row in zip(digests, its, strict=True)}
        states, others = states_of(landed, decisions)
        why = "its row has other golds by now" if its else "its row is not there any more"
        refused += [(one, f"{NOT_APPLIED}{why}: {words(one)}") for one in others]
        out, held = decided(its, digests, states, decisions)
        left_out += out
        changed += held
        if states and states[-1].decision is not None and states[-1].golds is not None:
            last, first = states[-1].decision, landed[states[0].row or ""]
            applied.append((question, last["decision"], *first, last["by"], last["at"], last["file"]))
    table = pl.DataFrame(applied, schema=dict.fromkeys(APPLIED, pl.String), orient="row")
    return Corrected(rows.filter(~about), pl.DataFrame(changed, schema=rows.schema), table, left_out, refused)


def decided(
    rows: Sequence[dict[str, Any]],
    digests: Sequence[str],
    states: Sequence[State],
    decisions: Sequence[Mapping[str, Any]],
) -> tuple[list[tuple[dict[str, Any], str]], list[dict[str, Any]]]:
    """(the rows of a question that are left out with the reason, the others as decided)."""
    if not states:
        return [], list(rows)
    made = rows_made(decisions)
    back = [is_corrections(row["file"]) and its not in made for row, its in zip(rows, digests, strict=True)]
    out = [(row, by_whom(decisions[-1])) for row in compress(rows, back)]
    stay = list(map(not_, back))
    kept, last = list(compress(rows, stay)), states[-1]
    if last.decision is None:  # all is undone
        return out, kept
    if last.golds is None:
        return [*out, *((row, by_whom(last.decision)) for row in kept)], []
    meant = [digest == states[0].row for digest in compress(digests, stay)]
    held = [with_golds(row, last.golds) for row in compress(kept, meant)]
    return out, [*held, *compress(kept, map(not_, meant))]


def on_rows(decisions: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Decisions on a question, in their order, each on a row: `no_row` as the undo of what was made before it."""
    found: list[Mapping[str, Any]] = []
    for one in decisions:
        back = [{**one, "decision": UNDO, "row": row} for row in rows_made(found)]
        found += back if one["decision"] == NO_ROW else [one]
    return found


def rows_made(decisions: Iterable[Mapping[str, Any]]) -> set[str]:
    """Digest of the row that decisions on a question made, of several the last; none if it was undone."""
    made: set[str] = set()
    for one in decisions:
        if one["decision"] == NEW_ROW:
            made = {taken_on(one["prompt"], one["answer"], None)}
        elif one["decision"] == UNDO:
            made.discard(one["row"])
    return made


def with_golds(row: dict[str, Any], golds: Golds) -> dict[str, Any]:
    row = {**row, "answer": golds[0], "also": golds[1]}
    return {**row, "rejected": None} if row["rejected"] in golds_of(row) else row


def by_whom(decision: Mapping[str, Any]) -> str:
    return f"left out by {decision['by']} on {decision['at'][:10]}"


def words(decision: Mapping[str, Any]) -> str:
    return f"{decision['decision'].replace('_', ' ')}, by {decision['by']} on {decision['at'][:10]}"
