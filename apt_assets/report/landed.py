"""What is told of files that were landed, and how `land` prints it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.landing.land import land_files
from apt_assets.landing.records import Reject
from apt_assets.landing.taken_for import NOT_UTF8, Alike, alike
from apt_assets.report.left_out import LeftOut, left_out_of_landed
from apt_assets.report.terminal import escaped, print_table
from apt_assets.settings.experiment import UsageError

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.project import Project

SHOWN = 20  # kinds of bad rows
LINES = 3  # of each
CELL = 60  # characters


@dataclass(frozen=True)
class Landed:
    """What became of the files, or would on a dry run.

    report: what `land_files` returns of each, with `left_out`, its counts by reason, where that was looked at.
    left_out: rows of all that has landed that the data set will leave out; None: not looked at.
    """

    report: list[dict[str, Any]]
    left_out: LeftOut | None

    @property
    def good(self) -> int:
        """How many rows landed, or would."""
        return sum(one["good"] for one in self.report)

    @property
    def files(self) -> "pl.DataFrame":
        """file, landed (its name in the landing folder, or null), good, bad (rows), hints (what to do, or null)."""
        import polars as pl

        schema = {"file": pl.String, "landed": pl.String, "good": pl.Int64, "bad": pl.Int64, "hints": pl.String}
        rows = [
            (one["file"], one["landed"], one["good"], len(one["bad"]), "; ".join(one["hints"]) or None)
            for one in self.report
        ]
        return pl.DataFrame(rows, schema, orient="row")

    @property
    def quarantined(self) -> "pl.DataFrame":
        """file, line, field, reason, raw of each row that cannot be used; line 0 is the file as a whole."""
        import polars as pl

        schema = {"file": pl.String, "line": pl.Int64, "field": pl.String, "reason": pl.String, "raw": pl.String}
        return pl.DataFrame([{**bad, "file": one["file"]} for one in self.report for bad in one["bad"]], schema)


class NothingLanded(UsageError):
    """No file had a good row. landed: what is wrong with them."""

    def __init__(self, landed: Landed, *, dry_run: bool):
        super().__init__(f"no file had a good row: nothing {'would land' if dry_run else 'was landed'}")
        self.landed = landed


def land(
    project: "Project", files: Sequence[Path], folder: Path, encoding: str | None = None, *, dry_run: bool = False
) -> Landed:
    """Land files in a folder; where it is the project's, with what its data set will leave out. Raises UsageError for
    files that cannot be landed whatever is in them."""
    report = land_files(list(files), folder, encoding, dry_run=dry_run)
    left_out = None if dry_run or folder != project.landing else left_out_of_landed(project)
    if left_out:
        report = [{**one, "left_out": left_out.of_file(one["landed"])} for one in report]
    return Landed(report, left_out)


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
