"""The race's results as Markdown tables: `python -m benchmarks.incremental.report FILE`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apt_assets.report.markdown import table

COLUMNS = (
    "scenario", "tool", "generated rows", "tokens", "graded rows", "embedded rows", "optimiser steps",
    "scored requests", "seconds", "processor seconds", "unnecessary units", "wrong outputs",
)  # fmt: skip
KINDS = {"generate": "answers", "grade": "grades", "embed": "embeddings", "train": "steps", "score": "requests"}


def report(results: dict[str, Any]) -> str:
    """A summary; then work per scenario and tool, unnecessary units by kind, wrong outputs by name,
    exit codes and no-op seconds."""
    names = list(dict.fromkeys(name for tool in results.values() for name in tool["scenarios"]))
    names.sort(key=lambda name: int(name[1:]))
    played = [(n, t, results[t]["scenarios"][n]) for n in names for t in results if n in results[t]["scenarios"]]
    unnecessary = [
        [name, tool, *(str(entry["work"][kind]["unnecessary"]) for kind in KINDS)] for name, tool, entry in played
    ]
    wrong = [[name, tool, ", ".join(entry["wrong"])] for name, tool, entry in played if entry["wrong"]]
    failed = [[name, tool, str(entry["exits"])] for name, tool, entry in played if any(entry["exits"])]
    noop = [[tool, f"{entry['seconds']:.1f}"] for name, tool, entry in played if name == "S1"]
    parts = [
        summary(results, names),
        "All units of work:",
        markdown(COLUMNS, [work_row(*one) for one in played]),
        "Unnecessary units by kind:",
        markdown(("scenario", "tool", *KINDS.values()), unnecessary),
        "Wrong outputs (iteration/output):",
        markdown(("scenario", "tool", "wrong"), wrong),
        "Exit codes other than 0:",
        markdown(("scenario", "tool", "exit codes"), failed),
        "Seconds when nothing changed (S1):",
        markdown(("tool", "seconds"), noop),
    ]
    return "\n\n".join(parts)


def summary(results: dict[str, Any], names: list[str]) -> str:
    """A row per scenario: what each tool did, then of it what it had done before, and what was wrong."""
    rows = []
    for name in names:
        entries = {tool: results[tool]["scenarios"].get(name) for tool in results}
        title = next(entry["title"] for entry in entries.values() if entry)
        cells = [cell for entry in entries.values() for cell in summary_cells(entry)]
        rows.append([f"{name} {title}", *cells])
    columns = [f"{tool}: {what}" for tool in results for what in ("done", "repeated", "wrong")]
    return markdown(("after", *columns), rows)


def summary_cells(entry: dict[str, Any] | None) -> list[str]:
    if entry is None:
        return ["-"] * 3
    done, repeated = (
        ", ".join(f"{entry['work'][kind][count]} {unit}" for kind, unit in KINDS.items() if entry["work"][kind][count])
        for count in ("units", "unnecessary")
    )
    return [done or "nothing", repeated or "0", f"{len(entry['wrong'])} of {entry['compared']}"]


def work_row(name: str, tool: str, entry: dict[str, Any]) -> list[str]:
    work = entry["work"]
    counts = [
        work["generate"]["units"],
        work["generate"]["amount"],
        work["grade"]["units"],
        work["embed"]["units"],
        work["train"]["units"],
        work["score"]["units"],
    ]
    unnecessary = sum(kind["unnecessary"] for kind in work.values())
    wrong = f"{len(entry['wrong'])} of {entry['compared']}"
    label = f"{name} {entry['title']}"
    seconds = [f"{entry[which]:.1f}" for which in ("seconds", "processor")]
    return [label, tool, *map(str, counts), *seconds, str(unnecessary), wrong]


def markdown(columns: Sequence[str], rows: list[list[str]]) -> str:
    return table(columns, rows) if rows else "none"


if __name__ == "__main__":
    print(report(json.loads(Path(sys.argv[1]).read_text())))
