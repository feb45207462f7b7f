"""The report: what the loop found and did, as one HTML file without a script and without a network.

Sections stand in the order in which the owner of a domain asks. Every value is escaped: an answer of a
model, or a file somebody landed, can hold anything.
"""

from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from apt_assets.drawing import plots
from apt_assets.project import Project
from apt_assets.report.findings import findings
from apt_assets.report.html import Html, document, folded, listed, rows_of, section, table
from apt_assets.report.tables import SCORE_COLUMNS, general_rows, left_out, recent, score_rows, second_rows, why

STALE = 40  # stages that are listed, more are folded away
STATES = {
    "worse": "more bad answers than before",
    "remains": "as many bad answers as before",
    "better": "fewer bad answers than before",
    "cured": "fewer, and at most one in five",
    "not asked again": "no later evidence",
}


def write_report(project: Project, target: Path) -> dict[str, Any]:
    """Write the page to `target`, whole or not at all; returns the data behind it."""
    from resources.store.digest import write_atomically

    found = findings(project)
    write_atomically(target, page(found))
    return found


def page(found: dict[str, Any]) -> str:
    """`findings` -> the HTML document."""
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = full_page(found) if found["iterations"] else empty_page(found)
    return document(f"apt-assets report: {found['experiment']}", f"{Path(found['file']).name}, {made}", sections)


def empty_page(found: dict[str, Any]) -> list[str]:
    where = f" --experiment {found['file']}" if found["file"] else ""
    land = "" if found["landed"] else f"<li>land data: <code>apt-assets land FILE{escape(where)}</code></li>"
    run = f"<li>run the loop: <code>apt-assets run{escape(where)}</code></li>"
    return [f'<p class="verdict">Nothing has run yet.</p><ol>{land}{run}</ol>']


def full_page(found: dict[str, Any]) -> list[str]:
    every = found["iterations"]
    found, line = latest(found)
    return [
        f'<p class="verdict">{escape(found["verdict"])}</p>',
        scores(found),
        not_up_to_date(found),
        *([f'<p class="soft">{escape(line)}</p>'] if line else []),
        section("Plots", drawn(found | {"iterations": every})),
        section("Weaknesses", weaknesses(found)),
        section("Forgotten", forgotten(found)),
        section("Preference pairs", pairs(found)),
        section("Cost by stage", costs(found)),
        section("Settings", settings(found)),
        section("Versions and digests", versions(found)),
    ]


def latest(found: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(the findings on base and the last iterations, a line on what is left out, if anything is)."""
    keys = [entry["iteration"] for entry in found["iterations"]]
    kept = set(recent(keys))
    shown = {name: {k: v for k, v in found[name].items() if k in kept} for name in ("data", "pairs", "work")}
    return {
        **found,
        **shown,
        "iterations": [entry for entry in found["iterations"] if entry["iteration"] in kept],
        "forgotten": [one for one in found["forgotten"] if one["after"] in kept],
        "weaknesses": [
            {**entry, "rates": {k: rate for k, rate in entry["rates"].items() if k in kept}}
            for entry in found["weaknesses"]
        ],
    }, left_out(keys, "all of them are in the plots and in apt-assets report --json")


# -- sections --------------------------------------------------------------------------------------


def scores(found: dict[str, Any]) -> str:
    data = [
        f"{key}: {facts['train_rows']} train, {facts['validation_rows']} validation and {facts['test_rows']} test "
        f"rows, {facts['quarantine_rows']} rows in quarantine"
        for key, facts in found["data"].items()
    ]
    gates = [f"{e['iteration']}: {e['gate']['reason']}" for e in found["iterations"] if e.get("gate")]
    soft = (
        "Shares in percent with 95 % intervals. Validation decides the gate; test is reported only. base is "
        f"{escape(found['start'])}."
    )
    return section(
        "Scores by iteration",
        [
            table(SCORE_COLUMNS, score_rows(found), numbers=range(1, 7)),
            table(*general_rows(found), numbers=range(1, 99)),
            f'<p class="soft">{soft}</p>',
            *another_recipe(found),
            listed("The gate", gates),
            listed("Data", data),
        ],
    )


def another_recipe(found: dict[str, Any]) -> list[str]:
    """What the evidence says to somebody who trains on pairs."""
    if any((one["key"], one["value"]) == ("training.objective", "sft") for one in found["settings"]):
        return []
    return [
        '<p class="soft">Plain fine-tuning on the whole pool gained more in our own study (docs/evidence.md). '
        "Whether it does on this data: <code>apt-assets study experiments/studies/own-data.yaml</code>.</p>"
    ]


def not_up_to_date(found: dict[str, Any]) -> str:
    """What the reader must know before reading on; nothing if all is fresh and readable."""
    rows = [[s["iteration"], s["stage"], s["status"], why(s["causes"])] for s in found["stale"]]
    columns = ("iteration", "stage", "status", "why")
    parts: list[str] = [table(columns, rows[:STALE], texts=(3,))] if rows else []
    if rows[STALE:]:
        parts.append(folded(f"{len(rows) - STALE} more", table(columns, rows[STALE:], texts=(3,))))
    if rows:
        parts.append(
            '<p class="soft">Stale stages are shown below as they were last computed. Plan: apt-assets plan.</p>'
        )
    parts += [f"<p>Not readable: {escape(note)}</p>" for note in found["notes"]]
    return section("Not up to date", parts) if parts else ""


def drawn(found: dict[str, Any]) -> list[str]:
    data, shown = found["plots"], f"iteration {found['shown']}"
    figures = {
        "Domain against general ability": plots.scores_by_iteration([e for e in found["iterations"] if e["scores"]])
    }
    if data["grades"]:
        figures["Grades of the mined answers"] = plots.grade_histogram(data["grades"])
    if data["curves"]:
        figures["Training"] = plots.training_curves(data["curves"])
    if data["labels"]:
        figures[f"By gold label, held-out rows, base and {shown}"] = plots.label_rates(data["labels"], "base", shown)
    if data["confusion"]:
        figures[f"Gold against said label, held-out rows, {shown}"] = plots.confusion_table(data["confusion"], shown)
    shapes = [f"<figure><figcaption>{escape(name)}</figcaption>{svg}</figure>" for name, svg in figures.items()]
    return [f'<div class="plots">{"".join(shapes)}</div>']


def weaknesses(found: dict[str, Any]) -> list[str]:
    entries = found["weaknesses"]
    if not entries:
        return ["<p>No bad case is known.</p>"]
    counts = {state: [e for e in entries if e["state"] == state] for state in STATES}
    spoken = ", ".join(f"{len(part)} {state}" for state, part in counts.items() if part)
    kind = "gold label" if found["closed"] else "k-means over the questions' vectors, named by telling words"
    parts: list[str] = [
        f"<p>{len(entries)} weaknesses found, by {kind}: {spoken}.</p>",
        f'<p class="soft">{"; ".join(f"{state}: {meaning}" for state, meaning in STATES.items())}. Judged by the '
        f"held-out rows of {escape(found['start'])} and of the served adapter where they have the label, else by the "
        "questions of the last iteration that asked some.</p>",
    ]
    keys = list(dict.fromkeys(key for entry in entries for key in entry["rates"]))
    for state, part in counts.items():
        if not part:
            continue
        rows = [
            [
                entry["name"],
                entry["size"],
                *(counted(entry["rates"].get(key)) for key in keys),
                change(entry["heldout"]),
                f"{entry['again']['right']} of {entry['again']['asked']}" if entry["again"]["asked"] else "-",
            ]
            for entry in part
        ]
        columns = (
            "weakness",
            "bad cases",
            *(f"bad in {key}" for key in keys),
            "held-out bad %",
            "right when asked again",
        )
        parts.append(f'<h3 class="state">{escape(state)}</h3>')
        parts.append(table(columns, rows, numbers=range(1, len(columns))))
        examples = [{"weakness": entry["name"], **row} for entry in part for row in entry["examples"]]
        names = ("weakness", "question", "gold", "answer", "grade", "iteration", "last_answer", "last_grade")
        parts.append(folded(f"examples: {state}", rows_of(examples, names)))
    return parts


def forgotten(found: dict[str, Any]) -> list[str]:
    if not found["forgotten"]:
        return ["<p>No two sets of scores to compare yet.</p>"]
    parts = ['<p class="soft">Held-out items right before and wrong after; gained: the other way round.</p>']
    for one in found["forgotten"]:
        before = found["start"] if one["before"] == "base" else f"iteration {one['before']}"
        parts.append(f"<h3>Iteration {escape(one['after'])} against {escape(before)}</h3>")
        columns = ("part", "items", "right_before", "forgotten", "gained")
        rows = [[part[name] for name in columns] for part in one["parts"]]
        parts.append(table([name.replace("_", " ") for name in columns], rows, numbers=range(1, 5)))
        for part in one["parts"]:
            if part["examples"]:
                parts.append(folded(f"{part['part']}: examples", rows_of(part["examples"], list(part["examples"][0]))))
    return parts


def pairs(found: dict[str, Any]) -> list[str]:
    parts = []
    for key, one in found["pairs"].items():
        counts = ", ".join(f"{n} {kind}" for kind, n in one["kinds"].items()) or "none"
        parts.append(f"<h3>Iteration {escape(key)}: {escape(counts)}</h3>")
        rows = [[kind, file, n] for kind, files in one["files"].items() for file, n in files.items()]
        parts.append(table(("kind", "landed file", "pairs"), rows, numbers=(2,)))
        names = ("kind", "prompt", "chosen", "rejected", "grade", "case", "rank", "similarity", "file", "line")
        parts.append(folded("the first rows of each kind", rows_of(one["rows"], names)))
    note = (
        "Chosen is the gold answer, rejected the policy's own; a replay row has the gold as both. Counterfactual rows "
        "were answered right, and their rejected answer was made or sampled. Case: the bad case a row came by. "
        "No similarity: a row drawn at random."
    )
    return [f'<p class="soft">{note}</p>', *parts] if parts else ["<p>None yet.</p>"]


def costs(found: dict[str, Any]) -> list[str]:
    rows = []
    for key, stages in found["work"].items():
        for stage, work in stages.items():
            for kind, amount in work.items():
                new, reused = (amount["computed"], amount["reused"]) if isinstance(amount, dict) else (amount, 0)
                rows.append([key, stage, kind, new, reused])
    return [
        table(*second_rows(found), numbers=range(1, 99)),
        '<p class="soft">Wall-clock seconds of the computation that made each result; "-": reused, or not there.</p>',
        folded(
            "rows and steps computed and reused",
            table(("iteration", "stage", "what", "computed", "reused"), rows, numbers=(3, 4)),
        ),
    ]


def settings(found: dict[str, Any]) -> list[str]:
    changed = [[s["key"], s["value"], s["default"], s["meaning"]] for s in found["settings"] if s["changed"]]
    usual = [[s["key"], s["value"], s["meaning"]] for s in found["settings"] if not s["changed"]]
    return [
        table(("setting", "value", "default", "meaning"), changed, texts=(3,))
        if changed
        else "<p>All are the defaults.</p>",
        folded(f"{len(usual)} settings at their default", table(("setting", "value", "meaning"), usual, texts=(2,))),
    ]


def versions(found: dict[str, Any]) -> list[str]:
    digests = [[what, Html(f"<code>{escape(digest)}</code>")] for what, digest in found["digests"].items()]
    return [
        table(("library", "version"), list(found["versions"].items())),
        folded("digests of models, adapter and data", table(("what", "digest"), digests)),
    ]


def counted(rate: dict[str, int] | None) -> str:
    return f"{rate['bad']} of {rate['asked']}" if rate else "-"


def change(heldout: dict[str, Any] | None) -> str:
    """82 -> 40 of 11, the shares in percent."""
    if heldout is None:
        return "-"
    before, after = heldout["before"], heldout["after"]
    return f"{100 * before['mean']:.0f} \N{RIGHTWARDS ARROW} {100 * after['mean']:.0f} of {after['n']}"
