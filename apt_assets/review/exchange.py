"""Review in another tool: what is to be decided as its file, and what was decided there as corrections.

Label Studio (its JSON export) and Argilla (what `Dataset.records.to_json` writes); and corrections of another folder,
as they are. A task has the digest that its decision is taken on with it, so that one on a row that changed meanwhile
is reported and not applied, as any other.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from apt_assets.landing.chunks import BadField
from apt_assets.landing.corrections import (
    ANSWER_IS_RIGHT_TOO,
    BOTH_WRONG,
    GOLD_IS_RIGHT,
    LEAVE_OUT,
    NEW_ROW,
    NO_ROW,
    check_decision,
)
from apt_assets.landing.readers import read_chunks
from apt_assets.report.html import templates
from apt_assets.review.desk import Desk
from apt_assets.review.journal import ARGILLA, Journal, as_new_row, now
from apt_assets.review.queue import Case
from apt_assets.settings.experiment import UsageError

CHOICES = {
    GOLD_IS_RIGHT: "gold is right",
    ANSWER_IS_RIGHT_TOO: "answer is right too",
    BOTH_WRONG: "both wrong: type the right one",
    LEAVE_OUT: "leave this row out",
}
# What a task says, by name, and its title for people.
FIELDS = {"prompt": "question", "gold": "gold", "answer": "the answer", "about": "about", "similar": "similar cases"}
Task = dict[str, Any]
AHEAD = timedelta(days=1)  # that the clock of another machine may be


@dataclass
class Taken:
    """lines: decisions that are new, as lines of corrections. known: how many were here already. notes: what was not
    taken over, for people."""

    lines: list[Mapping[str, Any]] = field(default_factory=list)
    known: int = 0
    notes: list[str] = field(default_factory=list)


# -- out -------------------------------------------------------------------------------------------------


def write_tasks(desk: Desk, file: Path, tool: str) -> list[Path]:
    """Write the open items of a desk for a tool, and beside them how it is to show them. Returns both files."""
    tasks = list(tasks_of(desk))
    if tool == "label-studio":
        settings = file.with_suffix(".config.xml")
        content: Any = [{"data": task} for task in tasks]
        settings.write_text(templates().get_template("label_studio.xml").render(fields=FIELDS, choices=CHOICES))
    else:
        settings = file.with_suffix(".settings.json")
        content = [as_record(task) for task in tasks]
        settings.write_text(json.dumps(argilla_settings(), indent=1))
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return [file, settings]


def tasks_of(desk: Desk) -> Iterator[Task]:
    """The open items, but for asked questions that were answered with nothing: the page alone has those."""
    for kind, items in (("cases", desk.queue.cases), ("asked", desk.queue.asked)):
        for item in items:
            if desk.decision(item) is not None:
                continue
            task = {"kind": kind, "prompt": item.prompt, "answer": item.prediction, "row": None}
            if not isinstance(item, Case):
                if not item.prediction:
                    continue  # the tools want each field filled
                yield {**task, "gold": "-", "about": f"asked {item.times} times", "similar": "-"}
                continue
            doubt = "not ranked" if item.doubt is None else f"{item.doubt:.2f}"
            similar = desk.queue.similar.get(item.row_id, [])
            yield {
                **task,
                "row": item.row,
                "gold": " or ".join(item.golds),
                "about": f"doubt {doubt}, grade {item.grade}",
                "similar": "\n".join(f"{row['prompt']} -> {row['answer']}" for row in similar) or "-",
            }


def as_record(task: Task) -> dict[str, Any]:
    """A task as a record of Argilla."""
    fields = {name: task[name] for name in FIELDS}
    metadata = {"kind": task["kind"], "row": task["row"] or ""}
    return {"id": task["row"] or as_new_row(task["prompt"], task["answer"]), "fields": fields, "metadata": metadata}


def argilla_settings() -> dict[str, Any]:
    """As `argilla.Settings.from_json` reads them."""
    fields = [
        {"name": name, "title": title, "required": True, "settings": {"type": "text", "use_markdown": False}}
        for name, title in FIELDS.items()
    ]
    options = [{"value": value, "text": text} for value, text in CHOICES.items()]
    decision = {"type": "label_selection", "options": options, "visible_options": len(options)}
    typed = {"type": "text", "use_markdown": False}
    return {
        "guidelines": None,
        "fields": fields,
        "questions": [
            {"name": "decision", "title": "decision", "required": True, "settings": decision},
            {"name": "right_answer", "title": "the right answer", "required": False, "settings": typed},
        ],
        "vectors": [],
        "metadata": [],
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "mapping": None,
    }


# -- in --------------------------------------------------------------------------------------------------


def decisions_of(file: Path, journal: Journal) -> Taken:
    """The decisions in a file of a tool, or of corrections, that a journal does not have. Raises UsageError if it is
    neither."""
    taken = Taken()
    for place, found in enumerate(given(file), 1):
        try:
            line = as_line(found)
        except BadField as bad:
            taken.notes.append(f"{file}: decision {place} is not taken over: {bad.field or 'it'}: {bad.reason}")
            continue
        if journal.knows(line):
            taken.known += 1
            continue
        taken.lines.append(line)
        if (holds := journal.decided.get(line["row"])) is not None and holds["at"] > line["at"]:
            taken.notes.append(
                f"{file}: decision {place} is older than that of {holds['by']}, which holds: {holds['at']}"
            )
    return taken


def given(file: Path) -> Iterator[Any]:
    """What stands in a file, decision by decision: a record of corrections, or a BadField."""
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    if file.suffix == ".jsonl":
        yield from (record for chunk in read_chunks(file) for record in chunk.records)
        return
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: not valid JSON: {error}") from None
    tasks = content if isinstance(content, list) and all(isinstance(one, dict) for one in content) else []
    if tasks and all("annotations" in task and "data" in task for task in tasks):
        yield from (decision for task in tasks for decision in label_studio(task))
    elif tasks and all("responses" in task and "fields" in task for task in tasks):
        yield from (decision for task in tasks for decision in argilla(task))
    else:
        raise UsageError(
            f"{file}: neither Label Studio's export as JSON (not JSON-MIN), nor records of Argilla (to_json), nor "
            "corrections (.jsonl)"
        )


def label_studio(task: Mapping[str, Any]) -> Iterator[Any]:
    annotations = task["annotations"] or []
    if not are_objects(annotations):
        yield BadField("annotations", "must be a list of objects")
        return
    for annotation in annotations:
        if annotation.get("was_cancelled"):
            continue
        values: dict[str, Any] = {}
        results = annotation.get("result") or []
        if not are_objects(results) or not are_objects([result.get("value", {}) for result in results]):
            yield BadField("result", "must be a list of objects with a value, which is an object too")
            continue
        for result in results:
            value = result.get("value", {})
            texts = value.get("choices") or value.get("text")
            values[str(result.get("from_name"))] = texts[-1] if isinstance(texts, list) and texts else texts
        who = annotation.get("completed_by")
        who = who.get("email") or who.get("id") if isinstance(who, dict) else who
        when = annotation.get("updated_at") or annotation.get("created_at")
        yield decision_on(task["data"], values, f"label-studio:{who}", when)


def argilla(record: Mapping[str, Any]) -> Iterator[Any]:
    """Argilla tells no time of a response: it counts as taken now."""
    by_user: dict[str, dict[str, Any]] = {}
    asked = record["responses"] or {}
    if not are_objects([asked]) or not all(map(are_objects, asked.values())):
        yield BadField("responses", "must be an object with a list of objects for each question")
        return
    for question, responses in asked.items():
        for response in responses:
            by_user.setdefault(str(response.get("user_id")), {})[question] = response.get("value")
    parts = [record.get("metadata") or {}, record["fields"]]
    data = {**parts[0], **parts[1]} if are_objects(parts) else {}
    for user, values in by_user.items():
        yield decision_on({**data, "row": data.get("row") or None}, values, f"{ARGILLA}{user}", now())


def decision_on(data: Any, values: Mapping[str, Any], by: str, at: Any) -> Any:
    """A record of corrections, or the BadField that it is; values: {decision, right_answer}."""
    decision, typed = values.get("decision"), values.get("right_answer")
    if not isinstance(decision, str) or decision not in CHOICES:
        return BadField("decision", f"is none of what can be decided: {', '.join(CHOICES)}")
    prompt, answer = (data.get(name) for name in ("prompt", "answer")) if isinstance(data, dict) else (None, None)
    answer = typed if decision == BOTH_WRONG else answer
    row = data.get("row") if isinstance(data, dict) else None
    if isinstance(data, dict) and data.get("kind") == "asked":
        if decision == GOLD_IS_RIGHT:
            return BadField("decision", "an asked question has no gold")
        decision = NO_ROW if decision == LEAVE_OUT else NEW_ROW
        if decision == NEW_ROW and isinstance(prompt, str) and isinstance(answer, str):
            row = as_new_row(prompt.strip(), answer.strip())
    return {"prompt": prompt, "decision": decision, "answer": answer, "row": row, "by": by, "at": at}


def are_objects(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(one, dict) for one in found)


def as_line(found: Any) -> dict[str, Any]:
    """A checked line of corrections. Raises BadField."""
    line = check_decision(found)
    # What is decided here later has to be later, and would be dated as late.
    if line[-1] > (datetime.now(UTC) + AHEAD).isoformat(timespec="microseconds"):
        raise BadField("at", "is in the future")
    return dict(zip(("prompt", "decision", "answer", "row", "by", "at"), line, strict=True))
