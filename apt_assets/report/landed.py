"""What `land` prints of the files that it read."""

from typing import Any

from apt_assets.landing.records import Reject
from apt_assets.landing.taken_for import NOT_UTF8, Alike, alike
from apt_assets.report.terminal import escaped, print_table

SHOWN = 20  # kinds of bad rows
LINES = 3  # of each
CELL = 60  # characters


def print_landed(report: list[dict[str, Any]]) -> None:
    """Print what `land_files` returned: of each file one line, and one for each kind of bad rows."""
    for one in report:
        lines = [f"{one['file']}: {line}" for line in (outcome(one), *one["hints"])]
        kinds = alike([Reject(**bad) for bad in one["bad"]])
        lines += [f"{one['file']}: {of_file(kind.first)}" for kind in kinds if kind.first.line == 0]
        print("\n".join(str(escaped(line)) for line in lines))
        if told := [kind for kind in kinds if kind.first.line and not hinted(kind, kinds, one)]:
            print_bad(told)
        if rows := one.get("rows"):
            columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
            print_table(columns, [[str(row[name])[:CELL] for name in columns] for row in rows])


def print_bad(kinds: list[Alike]) -> None:
    cells = [
        [
            str(len(kind.lines)),
            ", ".join(map(str, kind.lines[:LINES])) + ", ..." * (len(kind.lines) > LINES),
            kind.first.field or "-",
            kind.first.reason,
            kind.first.raw[:CELL],
        ]
        for kind in kinds[:SHOWN]
    ]
    print_table(("rows", "line", "field", "reason", "row"), cells)
    more = f"{len(kinds) - SHOWN} more kinds; " if len(kinds) > SHOWN else ""
    if more or any(len(kind.lines) > 1 for kind in kinds):
        print(f"{more}all of them: --json, or `apt-assets show quarantine ITERATION`")


def outcome(one: dict[str, Any]) -> str:
    bad = f"{len(one['bad'])} bad rows"
    if "taken_for" in one:
        return f"{description(one['taken_for'])}; {one['good']} rows would land, {bad}"
    return f"{one['good']} rows landed as {one['landed']}, {bad}" if one["landed"] else f"nothing landed, {bad}"


def description(taken: dict[str, Any]) -> str:
    """What a file is taken for, in one line."""
    if taken["format"] is None:
        return "cannot be read"
    parts = [taken["format"]]
    if taken["separator"]:
        parts.append(f"separated by {taken['separator']!r}")
    parts += [part for part in (taken["encoding"], taken["packing"]) if part]
    parts.append(f"fields {', '.join(taken['fields']) or 'none'}")
    return ", ".join(parts) + (f"; taken for {taken['shape']}" if taken["shape"] else "")


def hinted(kind: Alike, kinds: list[Alike], one: dict[str, Any]) -> bool:
    """Whether a hint has said all of it."""
    return bool(one["hints"]) and (NOT_UTF8 in kind.first.reason or (not one["good"] and len(kinds) == 1))


def of_file(bad: Reject) -> str:
    return f"{bad.field}: {bad.reason}" if bad.field else bad.reason
