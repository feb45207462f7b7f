"""This process's Dagster instance, in the project's own folder."""

import os
import shutil

from apt_assets.engine.display import Display
from apt_assets.project import Project
from apt_assets.settings.experiment import REPOSITORY
from apt_assets.settings.iterations import BASE
from resources.store import locks


def prepare_dagster_home(project: Project) -> None:
    """Point this process at the project's Dagster instance, with its settings in place."""
    os.environ["DAGSTER_HOME"] = str(project.dagster_home)
    project.dagster_home.mkdir(parents=True, exist_ok=True)
    settings = project.dagster_home / "dagster.yaml"
    if not settings.exists():
        shutil.copyfile(REPOSITORY / "dagster_home" / "dagster.yaml", settings)


class Dagster:
    """This process's view of the Dagster instance and of the project's jobs."""

    def __init__(self, project: Project, display: Display):
        prepare_dagster_home(project)
        import dagster as dg

        self._project, self._display = project, display
        # Two processes that create its databases at the same time fail in its migrations.
        with project.store.locks.take(locks.DAGSTER):
            self.instance = dg.DagsterInstance.get()
            # dagster.yaml's default limit does not bind the first runs that ever use a pool.
            self.instance.event_log_storage.set_concurrency_slots("apt_loop", 1)
            self.instance.get_dynamic_partitions("iteration")

    def settle(self, also: str | None = None) -> None:
        """Make Dagster know the opened iterations, their sources and what is reused of them; `also`: an
        iteration that only becomes a partition, its files being fixed when it first runs."""
        from apt_assets.orchestration.ledger import settle

        keys = self._project.store.iterations(self._project.experiment.name)
        settle(self._project, self.instance, [*keys, *([also] if also else [])])

    def materialize(self, key: str) -> tuple[str, str | None]:
        """Run the stages of one iteration (or of BASE): (run id, what failed, if anything did).

        Dagster turns Ctrl-C into an error of its own; here it is KeyboardInterrupt again.
        """
        import dagster as dg

        from apt_assets.orchestration.definitions import build_definitions

        # Built anew each time: code versions are those of now.
        definitions = build_definitions(self._project, self._display)
        job = definitions.resolve_job_def("score_base" if key == BASE else "iterate")
        try:
            result = job.execute_in_process(
                instance=self.instance,
                partition_key=None if key == BASE else key,
                raise_on_error=False,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        except dg.DagsterExecutionInterruptedError:
            raise KeyboardInterrupt from None
        if result.success:
            return result.run_id, None
        failures = [event for event in result.all_events if event.is_step_failure]
        if not failures:
            return result.run_id, "the run failed"
        data = failures[0].step_failure_data
        if data.error and data.error.cls_name == "DagsterExecutionInterruptedError":
            raise KeyboardInterrupt
        error = data.user_failure_data.description if data.user_failure_data else None
        cause = data.error.cause or data.error if data.error else None
        return result.run_id, f"{failures[0].step_key}: {error or (cause.message.strip() if cause else 'failed')}"
