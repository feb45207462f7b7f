"""What people decide, kept at once: decisions as files of corrections in the landing folder, grades in
`human-grades/EXPERIMENT/`.

A line is written whole and is on the disk before the page says so. A file that an iteration has taken up is left as it
is, and the next decision begins another: what was computed stays fresh, and the next iteration sees all.
"""

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from apt_assets.landing.corrections import NEW_ROW, NO_ROW, UNDO
from apt_assets.landing.human_grades import read_human_grades
from apt_assets.landing.names import is_corrections, new_name
from apt_assets.landing.records import read_landed
from apt_assets.method.corrections import taken_on
from apt_assets.method.splits import row_id
from apt_assets.project import Project
from resources.store.digest import sync

ARGILLA = "argilla:"  # what a name of there begins with


class Journal:
    """The decisions of all people so far, and those that `by` adds.

    decided: digest of what a decision was taken on -> the decision that holds, as a line of corrections. of_asked:
    row_id of an asked question -> what became of it. written: how many decisions this journal has kept.
    """

    def __init__(self, project: Project, by: str):
        self.by, self.project = by, project
        self.written = 0
        self._file: Path | None = None
        self._grades_folder = project.home / "human-grades" / project.experiment.name
        self._grades_file: Path | None = None
        self._grades, self._graded_at = grades_in(self._grades_folder, by)
        self._lock = threading.Lock()
        self._others: dict[str, int] = {}
        self._recall(decisions_in(project.landing))

    def decide(self, prompt: str, decision: str, answer: str | None = None, row: str | None = None) -> None:
        """Keep a decision. Raises OSError if it could not be written: then nothing of it is there."""
        self.add([{"prompt": prompt, "decision": decision, "answer": answer, "row": row, "by": self.by, "at": None}])

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Keep decisions, those of others too: whole lines of corrections; `at` is None of one that is taken now.
        Raises OSError."""
        # An iteration is opened under this lock: it takes up a whole file, or none.
        with self._lock, self.project.store.locks.take(f"open-{self.project.experiment.name}"):
            self._read_others()
            dated = [{**line, "at": line["at"] or later_than(self._last)} for line in lines]
            lines = sorted(dated, key=lambda line: line["at"])
            if self._file is None or self._taken_up(self._file.name):
                self._file = begin(self.project.landing)
            append(self._file, self._with_undos(lines))
            self.written += len(lines)
            if lines and lines[0]["at"] < self._last:
                self._recall(decisions_in(self.project.landing))  # what was taken over may be older than what is here
            else:
                for line in lines:
                    self._remember(line)

    def look(self) -> None:
        """Take up what others decided meanwhile. Raises OSError."""
        with self._lock:
            self._read_others()

    def _read_others(self) -> None:
        """Take up what others decided meanwhile."""
        files = (path for path in self.project.landing.glob("corrections-*.jsonl") if path != self._file)
        taken_away = self._file is not None and not self._file.exists()
        if (others := {path.name: path.stat().st_size for path in files}) != self._others or taken_away:
            self._others, self._file = others, None if taken_away else self._file
            self._recall(decisions_in(self.project.landing))

    def _with_undos(self, lines: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Lines to be written: before a `no_row` the undo of the row that was made, for which an iteration opens."""
        holds = dict(self.of_asked)
        for line in lines:
            asked = row_id(line["prompt"])
            before = holds.get(asked)
            if line["decision"] == NO_ROW and before is not None and before["row"] and before["at"] <= line["at"]:
                yield {**line, "decision": UNDO, "row": before["row"]}
            if line["decision"] in (NEW_ROW, NO_ROW):
                holds[asked] = line
            yield line

    def knows(self, line: Mapping[str, Any]) -> bool:
        """Whether a decision of elsewhere is here. One that says what holds now is not: another may lie between."""
        return said(line) in self._known

    def grade(self, prompt: str, answer: str, golds: Sequence[str], grade: int) -> None:
        """Keep a person's grade of an answer, 1-5. Raises OSError."""
        also = {"also": golds[1:]} if len(golds) > 1 else {}
        line = {
            "prompt": prompt,
            "answer": answer,
            "gold": golds[0],
            **also,
            "grade": grade,
            "by": self.by,
        }
        with self._lock:
            self._graded_at = later_than(self._graded_at)
            if self._grades_file is None:
                name = f"review-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.jsonl"
                self._grades_folder.mkdir(parents=True, exist_ok=True)
                self._grades_file = self._grades_folder / name
            append(self._grades_file, [{**line, "at": self._graded_at}])
            self._grades[prompt.strip(), answer.strip()] = grade

    def graded(self, prompt: str, answer: str) -> int | None:
        """The last grade that `by` gave an answer; None: none."""
        return self._grades.get((prompt.strip(), answer.strip()))

    def _taken_up(self, name: str) -> bool:
        """By an iteration of any experiment: several may use one landing folder."""
        store = self.project.store
        last = [
            (experiment, opened[-1]) for experiment in store.experiments() if (opened := store.iterations(experiment))
        ]
        return any(name in (store.snapshot(*one) or []) for one in last)

    def _recall(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Begin anew with these decisions, in their order."""
        self.decided: dict[str, Mapping[str, Any]] = {}
        self.of_asked: dict[str, Mapping[str, Any]] = {}
        self._known: set[tuple[Any, ...]] = set()
        self._last = ""
        for line in lines:
            self._remember(line)

    def _remember(self, line: Mapping[str, Any]) -> None:
        decision, row, asked = line["decision"], line["row"], row_id(line["prompt"])
        self._known.add(said(line))
        self._last = line["at"]
        if decision == UNDO:
            self.decided.pop(row or "", None)
            if asked in self.of_asked and self.of_asked[asked]["row"] == row:
                del self.of_asked[asked]
            return
        if row is not None:
            self.decided[row] = line
        if decision in (NEW_ROW, NO_ROW):
            self.of_asked[asked] = line


def said(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a decision is known by. Argilla tells no time: what one person decided there once is known for good."""
    when = "by" if line["by"].startswith(ARGILLA) else "at"
    return tuple(line[name] for name in ("prompt", "decision", "answer", "row", when))


def as_new_row(prompt: str, answer: str) -> str:
    """The digest of a row that a decision makes."""
    return taken_on(prompt, answer, None)


def decisions_in(folder: Path) -> list[dict[str, Any]]:
    """The decisions of all files of corrections in a landing folder, in the order in which they were taken."""
    files = sorted(path for path in folder.glob("corrections-*.jsonl") if is_corrections(path.name))
    lines = [line for path in files for part in read_landed(path) for line in part.corrections.rows(named=True)]
    return sorted(lines, key=lambda line: (line["at"], line["record"]))


def grades_in(folder: Path, by: str) -> tuple[dict[tuple[str, str], int], str]:
    """((prompt, answer) -> the last grade that a person gave, of the files of human grades in a folder; when the last
    one was given, "" if none was)."""
    found, _ = read_human_grades(sorted(folder.glob("*.jsonl")))
    mine = found.filter(by=by).sort("at", maintain_order=True)
    grades = {(line["prompt"], line["answer"]): line["grade"] for line in mine.rows(named=True)}
    return grades, mine["at"].max() or ""  # type: ignore[return-value]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def later_than(last: str) -> str:
    """Now, and later than `last`, if there is one: clocks are set back, and what people said last holds."""
    if not last:
        return now()
    following = datetime.fromisoformat(last) + timedelta(microseconds=1)
    return max(now(), following.isoformat(timespec="microseconds"))


def begin(folder: Path) -> Path:
    """A new file of corrections."""
    folder.mkdir(parents=True, exist_ok=True)
    started, number = datetime.now(UTC), 1
    while True:
        path = folder / new_name(started, number)
        try:
            path.open("x").close()
        except FileExistsError:
            number += 1
            continue
        sync(folder)
        return path


def append(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write lines to the end of a file and to the disk, all of them or none. Raises OSError."""
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8")
    with path.open("ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            if file.write(content) != len(content):
                raise OSError(f"{path}: not all of it could be written")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise
