"""The report: what the loop found and did, as one HTML file without a script and without a network.

templates/report.html holds the sections, in the order in which the owner of a domain asks; here is what they show.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apt_assets.engine.plan import in_order
from apt_assets.engine.stage import STAGES
from apt_assets.loop.money import amount_of
from apt_assets.project import Project
from apt_assets.report import doubtful, judge
from apt_assets.report.findings import findings
from apt_assets.report.html import Table, render, rows_of
from apt_assets.report.tables import SCORE_COLUMNS, general_rows, left_out, recent, score_rows, second_rows, why

STALE = 40  # stages that are listed, more are folded away
STATES = {
    "worse": "more bad answers than before",
    "remains": "as many bad answers as before",
    "better": "fewer bad answers than before",
    "cured": "fewer, and at most one in five",
    "not confirmed": "no bad answer before, and none after",
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
    head = {
        "title": f"apt-assets report: {found['experiment']}",
        "subtitle": f"{Path(found['file']).name}, {made}",
    }
    if not found["iterations"]:
        option = f" --experiment {found['file']}" if found["file"] else ""
        return render("empty_report.html", **head, landed=found["landed"], experiment=option)
    shown, line = latest(found)
    return render(
        "report.html",
        **head,
        verdict=found["verdict"],
        start=found["start"],
        scores=scores(shown),
        judge=judge.section(shown),
        stale=stale(shown),
        notes=found["notes"],
        left_out=line,
        figures=figures(found),
        states=STATES,
        weaknesses=weaknesses(shown),
        forgotten=[compared(one, found["start"]) for one in shown["forgotten"]],
        doubtful=doubtful.section(shown["doubtful"]),
        pairs=pairs(shown),
        costs=costs(shown),
        settings=settings(found),
        versions=versions(found),
    )


def latest(found: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(the findings on base and the last iterations, a line on what is left out, if anything is)."""
    keys = [entry["iteration"] for entry in found["iterations"]]
    kept = set(recent(keys))
    shown = {
        name: {k: v for k, v in found[name].items() if k in kept} for name in ("data", "doubtful", "pairs", "work")
    }
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


def scores(found: dict[str, Any]) -> dict[str, Any]:
    """of_pairs: whether training is on pairs, so that the reader is told of plain fine-tuning."""
    trained = next((one["value"] for one in found["settings"] if one["key"] == "training.objective"), None)
    return {
        "by_iteration": Table(SCORE_COLUMNS, score_rows(found), numbers=range(1, 7)),
        "general": Table(*general_rows(found), numbers=range(1, 99)),
        "of_pairs": trained != "sft",
        "gates": [f"{e['iteration']}: {e['gate']['reason']}" for e in found["iterations"] if e.get("gate")],
        "data": [
            f"{key}: {facts['train_rows']} train, {facts['validation_rows']} validation and {facts['test_rows']} test "
            f"rows, {facts['quarantine_rows']} rows in quarantine"
            for key, facts in found["data"].items()
        ],
    }


def stale(found: dict[str, Any]) -> dict[str, Any]:
    rows = [[s["iteration"], s["stage"], s["status"], why(s["causes"])] for s in found["stale"]]
    columns = ("iteration", "stage", "status", "why")
    return {
        "number": len(rows),
        "first": Table(columns, rows[:STALE], texts=(3,)),
        "more": len(rows[STALE:]),
        "rest": Table(columns, rows[STALE:], texts=(3,)),
    }


def figures(found: dict[str, Any]) -> dict[str, str]:
    """Caption -> SVG of every plot that a stage declares: first what came out of the loop, then how."""
    declared = {plot.name: plot for name in reversed(in_order()) for plot in STAGES[name].plots}
    return {plot.title: plot.draw(found["plots"][name]) for name, plot in declared.items() if name in found["plots"]}


def weaknesses(found: dict[str, Any]) -> dict[str, Any]:
    entries = found["weaknesses"]
    by_state = {state: [entry for entry in entries if entry["state"] == state] for state in STATES}
    keys = list(dict.fromkeys(key for entry in entries for key in entry["rates"]))
    return {
        "number": len(entries),
        "grouped_by": "gold label"
        if found["closed"]
        else "k-means over the questions' vectors, named by telling words",
        "counts": ", ".join(f"{len(part)} {state}" for state, part in by_state.items() if part),
        "parts": [
            {"state": state, "groups": groups(part, keys), "examples": examples(part)}
            for state, part in by_state.items()
            if part
        ],
    }


def groups(entries: list[dict[str, Any]], keys: list[str]) -> Table:
    """Weaknesses of one state; keys: the iterations that have a column."""
    columns = (
        "weakness",
        "bad cases",
        *(f"bad in {key}" for key in keys),
        "held-out bad %",
        "right when asked again",
    )
    rows = [
        [
            entry["name"],
            entry["size"],
            *(counted(entry["rates"].get(key)) for key in keys),
            change(entry["heldout"]),
            f"{entry['again']['right']} of {entry['again']['asked']}" if entry["again"]["asked"] else "-",
        ]
        for entry in entries
    ]
    return Table(columns, rows, numbers=range(1, len(columns)))


def examples(entries: list[dict[str, Any]]) -> Table:
    rows = [{"weakness": entry["name"], **row} for entry in entries for row in entry["examples"]]
    return rows_of(rows, ("weakness", "question", "gold", "answer", "grade", "iteration", "last_answer", "last_grade"))


def counted(rate: dict[str, int] | None) -> str:
    return f"{rate['bad']} of {rate['asked']}" if rate else "-"


def change(heldout: dict[str, Any] | None) -> str:
    """82 -> 40 of 11, the shares in percent."""
    if heldout is None:
        return "-"
    before, after = heldout["before"], heldout["after"]
    return f"{100 * before['mean']:.0f} \N{RIGHTWARDS ARROW} {100 * after['mean']:.0f} of {after['n']}"


def compared(one: dict[str, Any], start: str) -> dict[str, Any]:
    """What one iteration forgot; examples: (part, rows) of the parts that have some."""
    columns = ("part", "items", "right_before", "forgotten", "gained")
    return {
        "before": start if one["before"] == "base" else f"iteration {one['before']}",
        "after": one["after"],
        "parts": Table(
            [name.replace("_", " ") for name in columns],
            [[part[name] for name in columns] for part in one["parts"]],
            numbers=range(1, 5),
        ),
        "examples": [
            (part["part"], rows_of(part["examples"], list(part["examples"][0])))
            for part in one["parts"]
            if part["examples"]
        ],
    }


def pairs(found: dict[str, Any]) -> list[dict[str, Any]]:
    names = ("kind", "prompt", "chosen", "rejected", "grade", "case", "rank", "similarity", "file", "line")
    return [
        {
            "iteration": key,
            "counts": ", ".join(f"{n} {kind}" for kind, n in one["kinds"].items()) or "none",
            "files": Table(
                ("kind", "landed file", "pairs"),
                [[kind, file, n] for kind, files in one["files"].items() for file, n in files.items()],
                numbers=(2,),
            ),
            "rows": rows_of(one["rows"], names),
        }
        for key, one in found["pairs"].items()
    ]


def costs(found: dict[str, Any]) -> dict[str, Any]:
    """money: None where the experiment has no prices."""
    rows = []
    for key, stages in found["work"].items():
        for stage, work in stages.items():
            for kind, amount in work.items():
                new, reused = (amount["computed"], amount["reused"]) if isinstance(amount, dict) else (amount, 0)
                rows.append([key, stage, kind.replace("_", " "), new, reused])
    return {
        "seconds": Table(*second_rows(found), numbers=range(1, 99)),
        "work": Table(("iteration", "stage", "what", "computed", "reused"), rows, numbers=(3, 4)),
        "money": in_money(found) if "money" in found else None,
    }


def in_money(found: dict[str, Any]) -> dict[str, Any]:
    money, names = found["money"], ("cost", "device", "grader", "saved")
    shown = [entry["iteration"] for entry in found["iterations"]]
    rows = [[key, *(amount_of(money["iterations"][key][name]) for name in names)] for key in shown]
    columns = ("iteration", *(f"{name}, {money['currency']}" for name in (*names[:3], "saved by reuse")))
    return {"by_iteration": Table(columns, rows, numbers=range(1, 5)), "spent": money["in_words"]}


def settings(found: dict[str, Any]) -> dict[str, Table]:
    changed = [[s["key"], s["value"], s["default"], s["meaning"]] for s in found["settings"] if s["changed"]]
    usual = [[s["key"], s["value"], s["meaning"]] for s in found["settings"] if not s["changed"]]
    return {
        "changed": Table(("setting", "value", "default", "meaning"), changed, texts=(3,)),
        "usual": Table(("setting", "value", "meaning"), usual, texts=(2,)),
    }


def versions(found: dict[str, Any]) -> dict[str, Table]:
    return {
        "libraries": Table(("library", "version"), list(found["versions"].items())),
        "digests": Table(("what", "digest"), list(found["digests"].items()), codes=(1,)),
    }
