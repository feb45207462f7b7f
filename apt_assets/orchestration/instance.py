"""This process's Dagster instance, in the project's own folder."""

import os
import sqlite3
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from apt_assets.engine.display import Display
from apt_assets.engine.stage import STAGES
from apt_assets.orchestration import postgres
from apt_assets.orchestration.failures import what_failed
from apt_assets.orchestration.lost import fail_lost_runs
from apt_assets.orchestration.sqlite_engines import keep_engines
from apt_assets.project import Project
from apt_assets.report import interrupts
from apt_assets.settings.experiment import REPOSITORY, UsageError
from apt_assets.settings.iterations import BASE
from resources.store import locks
from resources.store.digest import write_atomically

if TYPE_CHECKING:
    import dagster as dg


def prepare_dagster_home(project: Project) -> None:
    """Point this process at the project's Dagster instance, with its settings in place."""
    os.environ["DAGSTER_HOME"] = str(project.dagster_home)
    project.dagster_home.mkdir(parents=True, exist_ok=True)
    settings = project.dagster_home / postgres.SETTINGS
    if not settings.exists():
        ours = (REPOSITORY / "dagster_home" / postgres.SETTINGS).read_text(encoding="utf-8")
        write_atomically(settings, ours)  # half of it would count


SQLITE = b"SQLite format 3\0"  # how its files begin


@contextmanager
def readable_history(project: Project) -> Iterator[None]:
    """What SQLite, PostgreSQL or Dagster's settings are the reason of, as a UsageError that says what to do."""
    import dagster as dg
    import yaml

    try:
        yield
    except storage_errors() as error:
        cause = first_cause(error)
        if postgres.postgres(project.dagster_home) is not None:
            raise postgres.unreachable(project.dagster_home, cause) from None
        reason = str(cause)
        folder = project.dagster_home / damaged_part(project.dagster_home)
        raise UsageError(f"{folder}: Dagster's history: {reason}; {way_out(reason)}") from None
    except (dg.DagsterInvalidConfigError, yaml.YAMLError) as error:
        said = error.error_messages if isinstance(error, dg.DagsterInvalidConfigError) else [str(error)]
        reason = " ".join(" ".join(said).split())
        raise UsageError(f"{project.dagster_home / postgres.SETTINGS}: Dagster cannot use it: {reason[:300]}") from None


def storage_errors() -> tuple[type[Exception], ...]:
    """What is raised where Dagster's records cannot be read or written."""
    from sqlalchemy.exc import DBAPIError

    return (sqlite3.Error, DBAPIError, *postgres.errors())


def first_cause(error: BaseException) -> BaseException:
    while error.__cause__:
        error = error.__cause__
    return error


def damaged_part(home: Path) -> str:
    """The folder of Dagster's that has a file which is no database; history, if each is one."""
    for path in sorted(home.glob("*/**/*.db")):
        with path.open("rb") as file:
            if file.read(len(SQLITE)) not in (SQLITE, b""):
                return path.relative_to(home).parts[0]
    return "history"


def way_out(reason: str) -> str:
    """What helps against an error of SQLite."""
    if "locked" in reason:
        return "another program holds it: run again when that has ended"
    if "malformed" in reason or "not a database" in reason or "no such table" in reason:
        return "move that folder away, and `apt-assets run` makes it anew from the store"
    return "see that this user may write there, and that its disk has room"


class Dagster:
    """This process's view of the Dagster instance and of the project's jobs."""

    def __init__(self, project: Project, display: Display):
        prepare_dagster_home(project)
        postgres.require(project.dagster_home)
        import dagster as dg

        keep_engines()
        self._project, self._display = project, display
        # Two processes that create its databases at the same time fail in its migrations.
        with project.store.locks.take(locks.DAGSTER), readable_history(project):
            self.instance = dg.DagsterInstance.get()
            # dagster.yaml's default limit does not bind the first runs that ever use a pool.
            self.instance.event_log_storage.set_concurrency_slots("apt_loop", 1)
            self.instance.get_dynamic_partitions("iteration")
            fail_lost_runs(project, self.instance)

    def settle(self, also: str | None = None) -> None:
        """Make Dagster know the opened iterations, their sources and what is reused of them; `also`: an
        iteration that only becomes a partition, its files being fixed when it first runs."""
        from apt_assets.orchestration.ledger import settle

        keys = self._project.store.iterations(self._project.experiment.name)
        with readable_history(self._project):
            settle(self._project, self.instance, [*keys, *([also] if also else [])])

    def materialize(self, key: str, stages: Collection[str]) -> tuple[str, str | None]:
        """Run these stages of one iteration (or of BASE), or all if none is named: (run id, what failed, if anything
        did). It fails if one that is not named went out of date meanwhile; the next run computes that.

        Dagster turns Ctrl-C into an error of its own; here it is KeyboardInterrupt again. Raises UsageError if the
        machine was the reason: a full disk, say, or Dagster's history.
        """
        import dagster as dg

        from apt_assets.orchestration.assets import MACHINE
        from apt_assets.orchestration.definitions import build_definitions

        # Built anew each time: code versions are those of now.
        definitions = build_definitions(self._project, self._display)
        job = definitions.resolve_job_def("score_base" if key == BASE else "iterate")
        run_id = str(uuid.uuid4())
        try:
            with interrupts.kept_from_children(), readable_history(self._project):
                result = job.execute_in_process(
                    run_id=run_id,
                    instance=self.instance,
                    partition_key=None if key == BASE else key,
                    asset_selection=assets_of(stages) or None,
                    raise_on_error=False,
                    run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                )
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            self._cancel_unbegun(run_id)
            raise KeyboardInterrupt from None
        if result.success:
            return result.run_id, None
        failures = [event for event in result.all_events if event.is_step_failure]
        if not failures:
            return result.run_id, "the run failed"
        data = failures[0].step_failure_data
        if data.error and data.error.cls_name == "DagsterExecutionInterruptedError":
            raise KeyboardInterrupt
        if data.user_failure_data and MACHINE in data.user_failure_data.metadata:
            raise UsageError(data.user_failure_data.description)
        return result.run_id, what_failed(failures[0])

    def _cancel_unbegun(self, run_id: str) -> None:
        """Dagster leaves a run that was interrupted before it began as one that is to begin."""
        import dagster as dg

        run = self.instance.get_run_by_id(run_id)
        if run is not None and run.status == dg.DagsterRunStatus.NOT_STARTED:
            self.instance.report_run_canceled(run)


def assets_of(stages: Collection[str]) -> "list[dg.AssetKey]":
    """The assets that stand for them: for the gate, whose checks are those of benchmark_scores, that one."""
    import dagster as dg

    names = {name if STAGES[name].asset else "benchmark_scores" for name in stages}
    return [dg.AssetKey(name) for name in STAGES if name in names]
