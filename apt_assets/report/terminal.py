"""What the command line prints: tables, scores, and words on the side."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from apt_assets.landing.folder import UNSHOWN

if TYPE_CHECKING:
    from apt_assets.loop.outlook import Planned
    from apt_assets.project import Project


def prepare_streams() -> None:
    """Make stdout and stderr take any text: what they cannot show, such as Chinese in Latin-1 or a file name that is
    no text, is escaped. One that was closed goes nowhere, and no file that is opened later takes its place."""
    while (unused := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(unused, True)
    os.close(unused)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        else:
            stream.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """Progress goes to stderr, results to stdout. Nobody may be there to read it."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One line of JSON: escaped if stdout cannot show all text. What JSON has no type for is its text."""
    print(json.dumps(value, ensure_ascii=not sys.stdout.encoding.lower().startswith("utf"), default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    class Terminal(Console):
        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError  # rich would end the process here

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escaped(cell) for cell in row))
    # A file or a pipe gets whole lines; a terminal gets its own width.
    Terminal(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def escaped(cell: str) -> Any:
    """The cell as it is, but that no escape sequence in a row reaches the terminal."""
    from rich.text import Text

    shown = UNSHOWN.sub(lambda found: found[0] if found[0] in "\n\t" else repr(found[0])[1:-1], cell)
    # Here and not by the stream, so that columns are as wide as what they hold.
    encoding = sys.stdout.encoding or "utf-8"
    return Text(shown.encode(encoding, "backslashreplace").decode(encoding))


def print_results(found: dict[str, Any]) -> None:
    from apt_assets.report.tables import SCORE_COLUMNS, general_rows, left_out, score_rows, second_rows

    keys = [entry["iteration"] for entry in found["iterations"]]
    found = found | {"iterations": shown_of(found)}
    print_table(SCORE_COLUMNS, score_rows(found))
    print_table(*general_rows(found))
    print("Shares in percent with 95 % intervals; test is reported only, validation decides the gate.")
    if found["judge"]:
        print_judge(found)
    print_table(*second_rows(found))
    if line := left_out(keys, "--json has all"):
        print(line)


def print_judge(found: dict[str, Any]) -> None:
    """How far the assessor agrees with people, and the domain's scores corrected for that."""
    from apt_assets.report.judge import COLUMNS, corrected_rows, sentence

    print(sentence(found["judge"]))
    if rows := corrected_rows(found):
        print_table(COLUMNS, rows)


def print_plan(found: "Planned") -> None:
    """What is fresh of each stage, what computing it costs and needs; of iterations in which all is fresh only the
    last."""
    from apt_assets.loop.work import total
    from apt_assets.report.tables import recent, why
    from apt_assets.rows.memory import in_words

    plans, works, memory, quote = found.plans, found.works, found.memory, found.quote
    shown = {p.iteration for p in plans if p.status != "fresh"}
    shown |= set(recent(list(dict.fromkeys(p.iteration for p in plans))))
    rows = [
        [
            p.iteration,
            p.stage,
            p.status,
            str(w) if p.status in ("stale", "missing", "waiting") else "",
            in_words(peak) if peak is not None else "",
            why(p.causes),
        ]
        for p, w, peak in zip(plans, works, memory.peaks, strict=True)
        if p.iteration in shown
    ]
    columns = ["iteration", "stage", "status", "cost", "memory", "why"]
    if quote:
        columns.insert(4, "money")
        amounts = [amount for plan, amount in zip(plans, quote.amounts, strict=True) if plan.iteration in shown]
        rows = [[*row[:4], amount, *row[4:]] for row, amount in zip(rows, amounts, strict=True)]
    print_table(columns, rows)
    if hidden := len({p.iteration for p in plans} - shown):
        print(f"{hidden} earlier iterations, in which all is fresh, are not shown: --json has all")
    fresh = sum(p.status == "fresh" for p in plans)
    print(f"{fresh} of {len(plans)} stages are fresh; to compute: {total(works)}")
    if quote:
        print(f"that costs {quote.total}")
    for line in memory.warnings():
        print(line)


def print_states(found: dict[str, Any]) -> None:
    """The state of each stage, of what `results` found."""
    entries = shown_of(found)
    names = list(dict.fromkeys(name for entry in entries for name in entry["stages"]))
    cells = [[name, *(e["stages"].get(name, {}).get("status", "") for e in entries)] for name in names]
    print_table(("stage", *(entry["iteration"] for entry in entries)), cells)


def shown_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of `results` that a terminal has room for."""
    from apt_assets.report.tables import recent

    kept = set(recent([entry["iteration"] for entry in found["iterations"]]))
    return [entry for entry in found["iterations"] if entry["iteration"] in kept]


def print_downloads(project: "Project") -> None:
    """Say which models are not on this machine."""
    if absent := project.models.to_download():
        print(f"not on this machine yet, `apt-assets run` downloads first: {', '.join(absent)}")


def print_unused(project: "Project") -> None:
    """Say which landed files no iteration uses yet, and what to do."""
    from apt_assets.loop.next_run import Run, next_run, unused

    opened = project.store.iterations(project.experiment.name)
    if opened and (names := unused(project, opened)):
        goes_on = isinstance(next_run(project, project.planner()), Run) and not project.without_files()
        then = f"; `apt-assets run` opens iteration {len(opened) + 1} with it" if goes_on else ""
        print(f"{', '.join(names)}: in no iteration yet{then}")
