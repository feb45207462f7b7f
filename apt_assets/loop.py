"""The loop as the command line drives it: one iteration at a time, in order, through Dagster."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import apt_assets.assets  # noqa: F401 - declares the stages
from apt_assets.engine.execute import reusable
from apt_assets.engine.plan import stages_of
from apt_assets.engine.stages import BASE
from apt_assets.experiment import REPOSITORY
from apt_assets.partitions import key_of
from apt_assets.project import Project

if TYPE_CHECKING:
    import dagster as dg

    from apt_assets.engine.plan import Planner

Echo = Callable[[str], None]


@dataclass
class LoopResult:
    """How a run of the loop ended.

    passed: every iteration asked for is up to date and its gate passed. reason: why not, if not.
    computed, reused: (iteration, stage) by what happened to them in this run.
    """

    passed: bool = True
    reason: str = ""
    computed: list[tuple[str, str]] = field(default_factory=list)
    reused: list[tuple[str, str]] = field(default_factory=list)


def run_loop(project: Project, iterations: int, echo: Echo) -> LoopResult:
    """Bring base and iterations 1..n up to date, in order.

    Stops at the first failure, and after a refused gate unless new data has landed since.
    """
    result = LoopResult()
    dagster = Dagster(project, echo)
    for key in [BASE, *(key_of(number) for number in range(1, iterations + 1))]:
        before = project.planner()
        if key != BASE:
            if stopped := before.stopped(key):
                result.passed = False
                result.reason = result.reason or f"iteration {key} does not run: {stopped}"
                return result
            project.open_iteration(key)
            dagster.open_iteration(key)
        plans = {name: before.stage(key, name) for name in stages_of(key)}
        settled = all(plan.status in ("fresh", "refused") for plan in plans.values()) and all(
            reusable(project, plan.manifest) for plan in plans.values() if plan.manifest
        )
        if settled and dagster.knows(key, plans):
            result.reused += [(key, name) for name in plans]
        else:
            run_id, failure = dagster.materialize(key)
            after = project.planner()
            fresh = {n: after.stage(key, n) for n in plans if after.stage(key, n).status == "fresh"}
            for name, plan in fresh.items():
                computed = plan.manifest is not None and plan.manifest.run_id == run_id
                (result.computed if computed else result.reused).append((key, name))
            if failure and not refused(after, key):
                result.passed, result.reason = False, f"iteration {key}: {failure}"
                return result
        # Whether a refusal ends the loop is for the next iteration to say: new data may have landed.
        reason = refused(project.planner(), key)
        result.passed = reason is None
        result.reason = f"iteration {key} is not promoted: {reason}" if reason else ""
    return result


def refused(planner: "Planner", key: str) -> str | None:
    """Why the gate of the iteration refused it; None if it passed or has not decided."""
    verdict = None if key == BASE else planner.gate(key)
    return None if verdict is None or verdict["passed"] else verdict["reason"]


def prepare_dagster_home(project: Project) -> None:
    """Point this process at the project's Dagster instance, with its settings in place."""
    os.environ["DAGSTER_HOME"] = str(project.dagster_home)
    project.dagster_home.mkdir(parents=True, exist_ok=True)
    settings = project.dagster_home / "dagster.yaml"
    if not settings.exists():
        shutil.copyfile(REPOSITORY / "dagster_home" / "dagster.yaml", settings)


class Dagster:
    """This process's view of the Dagster instance and of the project's jobs."""

    def __init__(self, project: Project, echo: Echo):
        prepare_dagster_home(project)
        import dagster as dg

        from apt_assets.definitions import build_definitions

        self._project = project
        self.instance = dg.DagsterInstance.get()
        self._definitions = build_definitions(project, echo)
        # dagster.yaml's default limit does not bind the first runs that ever use a pool.
        self.instance.event_log_storage.set_concurrency_slots("apt_loop", 1)

    def open_iteration(self, key: str) -> None:
        """Make the partition exist, with what its two sources are now."""
        from apt_assets.dagster_assets import observation, previous_adapter_version
        from resources.digest import digest_json

        self.instance.add_dynamic_partitions("iteration", [key])
        versions = {
            "landing_files": digest_json(self._project.landing_files(key)),
            "previous_adapter": previous_adapter_version(self._project, key),
        }
        for asset, version in versions.items():
            if version is not None and self._observed(asset, key) != version:
                self.instance.report_runless_asset_event(observation(asset, key, version))

    def knows(self, key: str, plans: dict[str, Any]) -> bool:
        """Whether Dagster's last materialisations are the artifacts of `plans`."""
        return all(
            self._materialized(name, None if key == BASE else key) == plan.manifest.data_version
            for name, plan in plans.items()
            if name != "gate" and plan.status == "fresh"
        )

    def materialize(self, key: str) -> tuple[str, str | None]:
        """Run the stages of one iteration (or of BASE): (run id, what failed, if anything did).

        Dagster turns Ctrl-C into an error of its own; here it is KeyboardInterrupt again.
        """
        import dagster as dg

        job = self._definitions.resolve_job_def("score_base" if key == BASE else "iterate")
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

    def _materialized(self, asset: str, key: str | None) -> str | None:
        import dagster as dg

        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[key] if key else None)
        return data_version(self.instance.fetch_materializations(wanted, limit=1).records)

    def _observed(self, asset: str, key: str) -> str | None:
        import dagster as dg

        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[key])
        return data_version(self.instance.fetch_observations(wanted, limit=1).records)


def data_version(records: "list[dg.EventLogRecord] | Any") -> str | None:
    """The data version of the latest of some event records, if there is one."""
    for record in records:
        event = record.asset_materialization or record.asset_observation
        return (event.tags or {}).get("dagster/data_version") if event else None
    return None
