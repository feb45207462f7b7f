"""From the log of questions to a queue for people to review: the way back into the loop."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apt_assets.method.splits import row_id
from apt_assets.project import Project
from apt_assets.report import terminal
from apt_assets.serve.asked_log import days_in
from apt_assets.settings.experiment import UsageError
from resources.store.digest import digest_json, write_atomically

QUEUE = ("review", "queue")  # below the project's folder
FIELDS = ("prompt", "answer", "adapter", "asked_at")


@dataclass
class Queued:
    """What became of the lines of a log. queued: questions to review, in `file` if there are any. known: in the data
    already, or in the queue. repeated: asked more than once; the last answer counts. others: lines that are not one
    question alone, or cannot be read."""

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


def queue_asked(project: Project, folder: Path) -> Queued:
    """Write the questions of a log that are new to review/queue/. Raises UsageError if the folder has no log."""
    if not folder.is_dir() or not days_in(folder):
        raise UsageError(f"--from-log: no asked-YYYY-MM-DD.jsonl in {folder}; `apt-assets serve --log` writes them")
    queue = project.home.joinpath(*QUEUE)
    known = known_questions(project, queue)
    found, new = Queued(), {}
    for line in lines_of(folder):
        asked = asked_once(line)
        if asked is None:
            found.others += 1
        elif (row := row_id(asked["prompt"])) in known:
            found.known += 1
        else:
            found.repeated += row in new
            new[row] = asked
    if new:
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in new.values())
        target = queue / f"asked-{digest_json(sorted(new))[:12]}.jsonl"
        queue.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text)
        found.queued, found.file = len(new), str(target)
    return found


def known_questions(project: Project, queue: Path) -> set[str]:
    """The questions, by row_id, that have landed or are queued."""
    from apt_assets.landing.records import read_landed
    from apt_assets.method.splits import row_ids

    files = [project.landing / name for name in project.landed()]
    known = {row for file in files for part in read_landed(file) for row in row_ids(part.rows["prompt"])}
    queued = (asked for file in sorted(queue.glob("*.jsonl")) for asked in read_lines(file))
    return known | {row_id(asked["prompt"]) for asked in queued if asked and isinstance(asked.get("prompt"), str)}


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
    """The fields of the queue, of a line that is one question and its answer; None of any other."""
    match line:
        case {
            "messages": [{"role": "user", "content": str(prompt)}],
            "answer": str(answer),
            "adapter": str(adapter),
            "asked_at": str(asked_at),
        } if prompt.strip():
            return dict(zip(FIELDS, (prompt, answer, adapter, asked_at), strict=True))
    return None


def queue_for_review(project: Project, files: list[Path] | None, folder: Path, *, as_json: bool) -> None:
    """`apt-assets land --from-log`: queue what was asked, and tell. Raises UsageError."""
    if files:
        raise UsageError("--from-log lands nothing: name no files beside it")
    found = queue_asked(project, folder)
    terminal.print_json(asdict(found)) if as_json else print(found)
