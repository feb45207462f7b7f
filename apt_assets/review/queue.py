"""What there is to review, in order: the bad cases of an iteration, the most doubtful golds first, the questions
that people asked, and answers to grade."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.landing.asked import Asked, as_asked
from apt_assets.project import Project
from apt_assets.report.look import ProjectLook
from apt_assets.settings.experiment import UsageError
from resources.store.digest import digest_json

if TYPE_CHECKING:
    import polars as pl

DRAWN = 200  # answers to grade


@dataclass(frozen=True)
class Case:
    """A bad case. golds: the learned one first. prediction: what the policy said. other: of the golds of similar rows
    the strongest other one. row: digest of what a decision is taken on. doubt: 0-1; None: not ranked."""

    row_id: str
    row: str
    prompt: str
    golds: tuple[str, ...]
    prediction: str
    grade: int
    doubt: float | None
    other: str | None


@dataclass(frozen=True)
class Answer:
    """An answer of the policy, for a person to grade. It has no grade of the assessor: whoever sees one gives it."""

    row_id: str
    prompt: str
    golds: tuple[str, ...]
    prediction: str


Item = Case | Asked | Answer


@dataclass(frozen=True)
class Queue:
    """similar: row_id of a case -> its similar cases, nearest first. unreadable: lines of asked questions that are
    none. notes: what could not be read, for people."""

    iteration: str | None
    cases: list[Case]
    similar: dict[str, list[dict[str, Any]]]
    asked: list[Asked]
    answers: list[Answer]
    unreadable: int
    notes: list[str]


def queue_of(project: Project, key: str | None) -> Queue:
    """The queue of an iteration; key None: the last one whose bad cases are there. Raises UsageError if there is
    nothing to review."""
    asked, unreadable = asked_of(project.home / "review" / "queue" / project.experiment.name)
    look = ProjectLook(project, project.planner(), (), "")
    opened = project.store.iterations(project.experiment.name)
    for one in reversed(opened) if key is None else [key]:
        if (bad := look.table(one, "bad_cases")) is not None:
            cases = ranked(bad, look.table(one, "doubtful_golds", "doubtful"))
            answers = drawn(look.table(one, "eval_predictions"))
            return Queue(one, cases, similar_of(look, one), asked, answers, unreadable, look.all_notes())
    if key is not None or not asked:
        what = f"iteration {key} has" if key else f"{project.experiment.name} has"
        note = "".join(f"; {line}" for line in look.all_notes())
        raise UsageError(f"{what} no bad cases to review: `apt-assets run` finds them{note}")
    return Queue(None, [], {}, asked, [], unreadable, look.all_notes())


def ranked(bad: "pl.DataFrame", doubtful: "pl.DataFrame | None") -> list[Case]:
    """Bad cases, the most doubtful golds first, those that are not ranked last."""
    import polars as pl

    from apt_assets.method.corrections import taken_on
    from apt_assets.method.golds import golds_of

    if doubtful is None:
        rows = bad.with_columns(doubt=pl.lit(None, pl.Float64), other=pl.lit(None, pl.String))
    else:
        rows = bad.join(doubtful.select("row_id", "doubt", "other"), on="row_id", how="left")
    return [
        Case(
            row["row_id"],
            taken_on(row["prompt"], row["answer"], row["also"]),
            row["prompt"],
            golds_of(row),
            row["prediction"],
            row["grade"],
            row["doubt"],
            row["other"],
        )
        for row in rows.sort("doubt", "row_id", descending=[True, False], nulls_last=True).iter_rows(named=True)
    ]


def drawn(answered: "pl.DataFrame | None") -> list[Answer]:
    """Of all answers of the policy up to DRAWN to grade, whatever the assessor's grade of them: by a digest of the row,
    so that the same ones are drawn again, and in no order that tells anything."""
    from apt_assets.method.golds import golds_of

    if answered is None:
        return []
    rows = answered.select("row_id", "prompt", "answer", "also", "prediction").rows(named=True)
    chosen = sorted(rows, key=lambda row: digest_json(["to grade", row["row_id"]]))[:DRAWN]
    return [Answer(row["row_id"], row["prompt"], golds_of(row), row["prediction"]) for row in chosen]


def similar_of(look: ProjectLook, key: str) -> dict[str, list[dict[str, Any]]]:
    near, answered = look.table(key, "neighbors"), look.table(key, "similar_predictions")
    if near is None:
        return {}
    if answered is not None:
        near = near.join(answered.select("row_id", "prediction", "grade"), on="row_id", how="left")
    shown = [name for name in ("prompt", "answer", "prediction", "grade", "similarity") if name in near.columns]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in near.sort("case_id", "rank").iter_rows(named=True):
        found.setdefault(row["case_id"], []).append({name: row[name] for name in shown})
    return found


def asked_of(folder: Path) -> tuple[list[Asked], int]:
    """(each question once, the last asked first; lines that are no question and answer) of JSON lines {prompt, answer,
    adapter, asked_at, times}; times: how often it was asked, 1 where a line does not say."""
    from apt_assets.method.splits import row_id

    found: dict[str, Asked] = {}
    unreadable = 0
    lines = (record for path in sorted(folder.glob("*.jsonl")) for record in records_of(path))
    for record in lines:
        asked = as_asked(record, row_id)
        if asked is None:
            unreadable += 1
            continue
        before = found.get(asked.row_id)
        latest = asked if before is None or asked.asked_at >= before.asked_at else before
        found[asked.row_id] = replace(latest, times=asked.times + (before.times if before else 0))
    return sorted(found.values(), key=lambda one: (one.asked_at, one.row_id), reverse=True), unreadable


def records_of(path: Path) -> Iterator[Any]:
    from apt_assets.landing.readers import read_chunks

    for chunk in read_chunks(path):
        yield from chunk.records
