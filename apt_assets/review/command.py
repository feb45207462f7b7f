"""`apt-assets review`: the page, or what passes between it and other annotation tools."""

import getpass
from pathlib import Path
from typing import Literal

from apt_assets.loop.approval import require_text
from apt_assets.project import Project
from apt_assets.report import terminal
from apt_assets.report.show import parse_key
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import BASE

Tool = Literal["label-studio", "argilla"]


def review(
    project: Project,
    iteration: str | None,
    *,
    by: str | None,
    port: int,
    export_to: tuple[Path, Tool] | None,
    imported: Path | None,
) -> None:
    """Serve the page of an iteration, write its queue to a file, or take decisions over from one. Raises UsageError."""
    from apt_assets.review.desk import KINDS, Desk
    from apt_assets.review.exchange import decisions_of, write_tasks
    from apt_assets.review.journal import Journal
    from apt_assets.review.queue import queue_of

    key = parse_key(iteration) if iteration else None
    if key == BASE:
        raise UsageError("iteration: base has no bad cases; give a number such as 1")
    by = (by or user()).strip() or "unknown"
    require_text("--by", by)
    journal = Journal(project, by)
    if imported is not None:
        taken = decisions_of(imported, journal)
        if taken.lines:
            journal.add(taken.lines)
        terminal.say(f"{len(taken.lines)} decisions taken over, {taken.known} were known")
        for line in taken.notes:
            terminal.say(line)
        return
    queue = queue_of(project, key)
    if export_to is not None:
        for path in write_tasks(Desk(queue, journal), *export_to):
            terminal.say(f"wrote {path}")
        return
    from apt_assets.review.server import serve

    desk = Desk(queue, journal)
    cases, asked, answers = map(desk.open_items, KINDS)
    terminal.say(f"{cases} bad cases and {asked} asked questions to review, {answers} answers to grade")
    for line in queue.notes:
        terminal.say(line)
    serve(desk, port, terminal.say)
    terminal.say(f"{journal.written} decisions are kept in {project.landing}: the next run takes them up")


def user() -> str:
    """The name of who calls; "": none is known, as in a container under a number of its own."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
