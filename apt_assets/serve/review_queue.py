"""From the log of questions to a queue for people to review: the way back into the loop."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apt_assets.landing.asked import as_asked
from apt_assets.landing.corrections import NO_ROW
from apt_assets.method.splits import row_id
from apt_assets.project import Project
from apt_assets.report import terminal
from apt_assets.serve.asked_log import days_in
from apt_assets.settings.experiment import UsageError
from resources.store.digest import digest_json, write_atomically

QUEUE = ("review", "queue")  # below the project's folder; in it a folder for each experiment
FIELDS = ("prompt", "answer", "adapter", "asked_at")


@dataclass
class Queued:
    """What became of the lines of a log. queued: questions to review, in `file` if there are any. known: somebody
    decided on it, or it is queued with this answer of this adapter, or a later one. repeated: asked more than once; the
    last answer counts. others: lines that are not one question alone, or that a review cannot read."""

    queued: int = 0
    known: int = 0
    repeated: int = 0
    others: int = 0
    file: str | None = None

    def __str__(self) -> str:
        where = f" in {self.file}: look at them with `apt-assets review`" if self.file else ""
        return (
            f"{self.queued} questions to review{where}; left out: {self.known} that are in the data or the queue "
            f"already, {self.repeated} asked again, {self.others} that are not one question alone"
        )


def queue_asked(project: Project, folder: Path, *, dry_run: bool = False) -> Queued:
    """Write the questions of a log that are new to review/queue/EXPERIMENT/, and again those on which nobody decided
    and that were answered otherwise since; dry_run: write nothing. Raises UsageError if the folder has no log."""
    if not folder.is_dir() or not days_in(folder):
        raise UsageError(f"--from-log: no asked-YYYY-MM-DD.jsonl in {folder}; `apt-assets serve --log` writes them")
    queue = project.home.joinpath(*QUEUE, project.experiment.name)
    decided, queued = decided_questions(project), queued_questions(queue)
    found, last = Queued(), {}
    times: Counter[str] = Counter()  # since it was queued last
    for line in lines_of(folder):
        asked = asked_once(line)
        if asked is None:
            found.others += 1
        elif (row := row_id(asked["prompt"])) in decided:
            found.known += 1
        else:
            found.repeated += row in last
            last[row] = asked
            times[row] += row not in queued or when(asked) > when(queued[row])
    news = {row: asked for row, asked in last.items() if row not in queued or is_news(asked, queued[row])}
    new = {row: {**asked, "times": times[row]} for row, asked in news.items()}
    found.known += len(last) - len(new)
    found.queued = len(new)
    if new and not dry_run:
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in new.values())
        target = queue / f"asked-{digest_json(list(new.values()))[:12]}.jsonl"
        queue.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text)
        found.file = str(target)
    return found


def decided_questions(project: Project) -> set[str]:
    """The questions, by row_id, that have landed, or on which somebody decided that they do not and nobody took that
    back."""
    from apt_assets.landing.records import read_landed
    from apt_assets.method.splits import row_ids

    landed: set[str] = set()
    decisions: list[tuple[str, str, str]] = []
    for part in (part for name in project.landed() for part in read_landed(project.landing / name)):
        landed |= set(row_ids(part.rows["prompt"]))
        decisions += part.corrections.select("at", "prompt", "decision").rows()
    # In the order of the file where times are the same: a row is taken back before its question is refused.
    in_order = sorted(decisions, key=lambda decided: decided[0])
    refused = {row_id(prompt): decision == NO_ROW for _, prompt, decision in in_order}
    return landed | {row for row, is_refused in refused.items() if is_refused}


def queued_questions(queue: Path) -> dict[str, dict[str, Any]]:
    """row_id -> the last line of the question that is queued."""
    found: dict[str, dict[str, Any]] = {}
    for asked in (asked for file in sorted(queue.glob("*.jsonl")) for asked in read_lines(file)):
        if asked and (one := as_asked(asked, row_id)):
            found[one.row_id] = max(found.get(one.row_id, asked), asked, key=when)
    return found


def is_news(asked: dict[str, str], queued: dict[str, Any]) -> bool:
    """Whether a question of the queue was answered otherwise, or by another adapter, and later."""
    otherwise = any(asked[field] != queued.get(field) for field in ("answer", "adapter"))
    return otherwise and when(asked) > when(queued)


def when(asked: dict[str, Any]) -> str:
    return str(asked.get("asked_at"))


def lines_of(folder: Path) -> Iterator[dict[str, Any] | None]:
    for day in days_in(folder):
        yield from read_lines(folder / f"asked-{day}.jsonl")


def read_lines(file: Path) -> Iterator[dict[str, Any] | None]:
    """The JSON objects of a file, None for a line that is none, such as the torn end of a killed server's."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                content = json.loads(line)
            except (ValueError, RecursionError):
                content = None
            yield content if isinstance(content, dict) else None


def asked_once(line: dict[str, Any] | None) -> dict[str, str] | None:
    """The fields of the queue, of a line that is one question and its answer, both such as a review can show; None of
    any other."""
    match line:
        case {
            "messages": [{"role": "user", "content": str(prompt)}],
            "answer": str(answer),
            "adapter": str(adapter),
            "asked_at": str(asked_at),
        }:
            asked = dict(zip(FIELDS, (prompt, answer, adapter, asked_at), strict=True))
            return asked if as_asked(asked, row_id) else None
    return None


def queue_for_review(project: Project, files: list[Path] | None, folder: Path, *, dry_run: bool, as_json: bool) -> None:
    """`apt-assets land --from-log`: queue what was asked, and tell; dry_run: only tell. Raises UsageError."""
    if files:
        raise UsageError("--from-log lands nothing: name no files beside it")
    found = queue_asked(project, folder, dry_run=dry_run)
    terminal.print_json(asdict(found)) if as_json else print(found)
