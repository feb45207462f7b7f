"""What a program or a notebook uses: one project, its commands as methods, and what they find as polars frames.

    from apt_assets import Project

    project = Project("experiment.yaml")
    project.land(rows)
    project.plan()
    project.run()
    project.scores()

A method does what the command of its name does, by the same functions, and raises what the command would end with:
UsageError says what to change. The settings are those that were read when the project was opened.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from apt_assets.project import Project as Opened
from apt_assets.report.landed import Landed, NothingLanded, land
from apt_assets.settings.experiment import Experiment, UsageError
from apt_assets.settings.reader import checked, find_experiment, find_home, path_of, read_experiment

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.display import Display

__all__ = ["Landed", "NothingLanded", "Project", "RunResult", "UsageError"]

Named = str | os.PathLike[str]


@dataclass(frozen=True)
class RunResult:
    """How a run of the loop ended.

    passed: what was asked for is up to date and promoted. False is no error: a stage failed, or the gate refused.
    reason: why it ended, for people.
    computed, reused: iteration, stage, seconds (when it was computed; null if an earlier iteration computed the same).
    """

    passed: bool
    reason: str
    computed: "pl.DataFrame"
    reused: "pl.DataFrame"


class Project:
    """An experiment and all that was computed for it.

    experiment: a file, or its content as a dict; None: $APT_EXPERIMENT, else ./experiment.yaml, else the embedded
        default.
    home: the folder in which everything is kept; None: $APT_HOME, else the repository.

    Opening raises UsageError for a setting or a folder that cannot be used.
    """

    def __init__(self, experiment: Named | Mapping[str, Any] | None = None, *, home: Named | None = None):
        below = None if home is None else Path(home)
        if isinstance(experiment, Mapping):
            self._content = dict(experiment)
            self._project = Opened(checked(self._content, "experiment"), find_home(below), fetch=False)
        else:
            file = find_experiment(None if experiment is None else Path(experiment))
            self._content = read_experiment(file)
            self._project = Opened.open(file, home=below, fetch=False)

    def __repr__(self) -> str:
        return f"Project({self.experiment.name!r}, home={str(self.home)!r})"

    @property
    def experiment(self) -> Experiment:
        """Every setting, defaults included."""
        return self._project.experiment

    @property
    def home(self) -> Path:
        return self._project.home

    def with_settings(self, **sections: Any) -> "Project":
        """The same project with some settings changed, to ask what that would cost or to run it:
        `project.with_settings(training={"beta": 0.2}).plan()`. A value replaces the one that is there, whole lists and
        mappings included; no file is written. Raises UsageError."""
        content = dict(self._content)
        for name, values in sections.items():
            content[name] = {**(content.get(name) or {}), **values} if isinstance(values, Mapping) else values
        return Project(content, home=self.home)

    # -- before a run ----------------------------------------------------------------------------

    def land(
        self,
        rows: "Named | Sequence[Named] | Iterable[Mapping[str, Any]] | pl.DataFrame | Any",
        *,
        name: str = "rows",
        encoding: str | None = None,
        dry_run: bool = False,
    ) -> Landed:
        """Validate rows and land them for the next iteration. Bad ones stay out and are in the result's `quarantined`.

        rows: a polars or pandas frame, dicts with `prompt` and `answer` (or another shape that `land` reads), or a
            file, or files. The line of a row that is no file's is its number, from 1.
        name: of the landed file, where rows are no file.
        encoding: of text files that are not UTF-8.
        dry_run: only tell.

        Raises NothingLanded, which has the same result, if no row is good; UsageError for a file that cannot be read.
        """
        with files_of(rows, name) as files:
            landed = land(self._project, files, self._project.landing, encoding, dry_run=dry_run)
        if not landed.good:
            raise NothingLanded(landed, dry_run=dry_run)
        return landed

    def plan(self, iterations: int | None = None) -> "pl.DataFrame":
        """What is fresh, what `run` would compute, and why: a row for each stage, in the order in which they run.

        Columns: iteration, stage, status (fresh, stale, missing, waiting, held, refused, stopped), why (null when
        fresh), rows (to answer, grade, embed or score) and steps (of the optimiser) that are missing, exact (whether
        these are known, or what a stage that waits took the last time; null: not known yet), memory (bytes that it
        needs of the device), seconds (what it took the last time; null: never computed). Computes nothing, downloads
        nothing.
        """
        from apt_assets.loop.outlook import planned
        from apt_assets.report.frames import of_plan

        return of_plan(planned(self._project, counted(iterations)))

    # -- the loop --------------------------------------------------------------------------------

    def run(
        self, iterations: int | None = None, *, force: Sequence[str] = (), display: "Display | None" = None
    ) -> RunResult:
        """Bring the loop up to date: base scores, then each iteration in order. Fresh stages are reused.

        iterations: bring 1..N up to date; None: until the loop ends by itself.
        force: stages to compute although they are fresh, as "STAGE" or "STAGE@ITERATION".
        display: what shows lines and how far it is (apt_assets.engine.display); None: bars in a terminal, lines
            elsewhere, on stderr. `Display()` shows nothing.

        A refused gate or a failed stage is told by the result. Raises UsageError if no data has landed, or what is to
        be computed cannot be. After an interrupt, call it again: finished stages are kept.
        """
        from apt_assets.engine.display import display as usual
        from apt_assets.orchestration.run import run_project
        from apt_assets.report.frames import of_stages

        iterations = counted(iterations)
        shown, models = display or usual(as_json=False), self._project.models
        models.fetch = True  # what only looks downloads nothing
        try:
            result = run_project(self._project, iterations, force, shown)
        finally:
            models.fetch = False
            shown.close()
        found = self.results()
        computed, reused = of_stages(result.computed, found), of_stages(result.reused, found)
        return RunResult(result.passed, result.reason, computed, reused)

    def approve(self, iteration: int, *, by: str, reason: str, refuse: bool = False) -> None:
        """Decide, in a person's name, on an iteration that its gate passed, where `gate.approval` asks for that; the
        next run promotes it. refuse: it is as if the gate had refused it. Raises UsageError if nothing waits for it."""
        from apt_assets.loop.approval import decide
        from apt_assets.report.show import parse_key

        decide(self._project, parse_key(str(iteration)), by=by, reason=reason, approves=not refuse)

    # -- what came of it -------------------------------------------------------------------------

    def scores(self) -> "pl.DataFrame":
        """Every score of base and of each iteration.

        Columns: iteration; of (validation, test, `general: TASK`, where `all` is all tasks, `passages: TASK`); measure;
        score, low, high (a 95 % interval: Wilson's of shares, else by the standard error); n (rows or items).
        Measures: exact and lenient (graded 4 or 5) and accuracy are shares 0-1, gold (log-likelihood of right choices)
        and margin are nats per character, word_perplexity is as lm-eval has it.
        """
        from apt_assets.report.frames import of_scores

        return of_scores(self.results())

    def results(self) -> dict[str, Any]:
        """The same and more as plain data, as `apt-assets status --json` has it: states of stages, bad cases, pairs,
        and the gate with its reason, by iteration."""
        from apt_assets.report.results import results

        return results(self._project)

    def rows(self, name: str, iteration: int | Literal["base"]) -> "pl.DataFrame":
        """The rows of a stage, or of one of its tables such as "quarantine", as it was last computed. Raises UsageError
        if it is not there, naming those that are."""
        from apt_assets.report.show import table_of

        return table_of(self._project, name, str(iteration))

    def bad_cases(self, iteration: int) -> "pl.DataFrame":
        """The questions that the policy of an iteration answered badly, with answer, gold and grade."""
        return self.rows("bad_cases", iteration)

    def pairs(self, iteration: int) -> "pl.DataFrame":
        """What an iteration trains on: prompt, chosen, rejected, and where each pair comes from."""
        return self.rows("preference_pairs", iteration)

    def explain(self, stage: str, iteration: int | Literal["base"]) -> dict[str, Any]:
        """What a stage was computed from, whether that still holds, and its history, as `apt-assets explain --json` has
        it."""
        from apt_assets.report.explain import explain
        from apt_assets.report.show import parse_key, require_stage

        key = parse_key(str(iteration))
        require_stage(key, stage)
        return explain(self._project, stage, key)

    def report(self, file: Named) -> None:
        """Write one HTML page of all that was found."""
        from apt_assets.report.page import write_report
        from apt_assets.settings.reader import file_to_write

        write_report(self._project, file_to_write(Path(file)))

    def export(
        self,
        folder: Named,
        what: Literal["adapter", "merged", "pairs", "results"] = "adapter",
        *,
        iteration: int | None = None,
    ) -> str:
        """Write what others load into a new or empty folder; returns the iteration that it is of. iteration: None: the
        last promoted one. Raises UsageError if there is none."""
        from apt_assets.report.export import export

        return export(self._project, path_of(Path(folder), "export"), iteration, what)


def counted(iterations: int | None) -> int | None:
    """How many iterations; None: until the loop ends by itself. Raises UsageError for what is no such number."""
    if iterations is None or (type(iterations) is int and 1 <= iterations <= 9999):
        return iterations
    raise UsageError(f"iterations: give a number from 1 to 9999, such as 3; got {iterations!r}")


@contextmanager
def files_of(rows: Any, name: str) -> Iterator[list[Path]]:
    """The files that rows are, or a file of them that is there for as long as the context is. Raises UsageError."""
    if isinstance(rows, str | os.PathLike):
        rows = [rows]
    if type(rows).__module__.partition(".")[0] in ("polars", "pandas") and hasattr(rows, "columns"):
        rows = dicts_of(rows)
    if not isinstance(rows, Iterable):
        raise UsageError(f"rows: give dicts, a frame or files; got {rows!r}")
    rows = [rows] if isinstance(rows, Mapping) else list(rows)
    if rows and all(isinstance(one, str | os.PathLike) for one in rows):
        yield [Path(one) for one in rows]
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{file_name(name)}.jsonl"
        file.write_text("".join(as_line(number, row) for number, row in enumerate(rows, 1)), encoding="utf-8")
        yield [file]


def file_name(name: Any) -> str:
    """Raises UsageError for what no file can be called."""
    try:
        if name and "\0" not in name and len(name.encode()) < 200:
            return str(name.replace("/", "_"))
    except (AttributeError, TypeError, UnicodeEncodeError):  # no text, or half of a character
        pass
    raise UsageError(f"name: {str(name)[:40]!r} cannot be the name of a file")


def as_line(number: int, row: Any) -> str:
    """A row as a line of JSON, arrays as lists, dates and the like as text. Raises UsageError for bytes, which no text
    follows from, sets, which have no order, and what is no JSON otherwise."""

    def as_json(value: Any) -> str | list[Any]:
        if isinstance(value, bytes | bytearray | memoryview):
            raise UsageError(f"row {number}: {bytes(value)[:40]!r} is bytes and no text: decode it")
        if isinstance(value, set | frozenset):
            raise UsageError(f"row {number}: a set has no order: make a list of it")
        if not getattr(value, "ndim", 0):
            return str(value)
        return (value if getattr(value.dtype, "kind", "") not in "Mm" else value.astype(str)).tolist()

    try:
        return f"{json.dumps(row, default=as_json)}\n"
    except (TypeError, ValueError, RecursionError) as error:  # a name that is no text, or what holds itself
        raise UsageError(f"row {number}: {error}") from None


def dicts_of(frame: Any) -> list[dict[str, Any]]:
    """The rows of a polars or pandas frame. Raises UsageError for a column that is there twice."""
    import polars as pl

    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame.to_dicts()
    if frame.columns.duplicated().any():
        raise UsageError(f"rows: the column {str(frame.columns[frame.columns.duplicated()][0])!r} is there twice")
    try:
        return pl.from_pandas(frame).to_dicts()
    except Exception:  # of arrow or polars: a column has one type there, so that one odd cell would lose all rows
        cells = frame.astype(object).where(frame.notna(), None).set_axis(map(str, frame.columns), axis="columns")
        rows: list[dict[str, Any]] = cells.to_dict("records")
        return rows
