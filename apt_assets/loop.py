"""The loop as the command line drives it: one iteration at a time, in order, through Dagster."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apt_assets.assets  # noqa: F401 - declares the stages
from apt_assets.display import Display
from apt_assets.driver import End, Run, next_run
from apt_assets.engine.execute import reusable
from apt_assets.engine.plan import StagePlan, stages_of
from apt_assets.engine.stages import BASE
from apt_assets.experiment import REPOSITORY
from apt_assets.partitions import number_of
from apt_assets.project import Project
from resources import locks
from resources.digest import digest_json
from resources.sealed import Damaged, read_sealed, write_sealed


@dataclass
class LoopResult:
    """How a run of the loop ended.

    passed: what was asked for is up to date and promoted. reason: why it ended.
    computed, reused: (iteration, stage) by what happened to them in this run.
    """

    passed: bool = True
    reason: str = ""
    computed: list[tuple[str, str]] = field(default_factory=list)
    reused: list[tuple[str, str]] = field(default_factory=list)


def run_loop(project: Project, iterations: int | None, display: Display) -> LoopResult:
    """Bring base and iterations 1..n up to date, in order; None: run until the loop ends by itself.

    Stops at the first failure, and where `driver.next_run` says that the loop ends.
    """
    result = LoopResult()
    runs: set[str] = set()
    dagster: Dagster | None = None
    for step in in_turn(project, iterations):
        if isinstance(step, End):
            result.passed, result.reason = step.passed, step.reason
            break
        dagster = dagster or Dagster(project, display)
        if step.opens:
            project.open_iteration(step.key)
        dagster.settle()
        run_id, failure = dagster.materialize(step.key)
        runs.add(run_id)
        verdict = None if step.key == BASE else project.planner().verdict(step.key)
        if failure and (verdict is None or verdict["passed"]):
            result.passed, result.reason = False, f"iteration {step.key}: {failure}"
            break
    # Opening Dagster takes longer than all the rest of a run that changes nothing.
    if project.store.iterations(project.experiment.name) and (dagster or not is_settled(project)):
        (dagster or Dagster(project, display)).settle()
        remember_settled(project)
    for plan in point_at_fresh(project):
        if iterations is None or plan.iteration == BASE or number_of(plan.iteration) <= iterations:
            assert plan.manifest is not None
            computed = plan.manifest.run_id in runs and plan.manifest.iteration == plan.iteration
            (result.computed if computed else result.reused).append((plan.iteration, plan.stage))
    return result


def in_turn(project: Project, iterations: int | None) -> Iterator[Run | End]:
    """The next run, each time the one before it was done, and at last the end: of the loop, or because a run
    left everything as it was. Raises UsageError if this machine cannot run the base model."""
    verified: set[str] = set()
    quarantine_damaged(project, verified)
    before: Run | None = None
    while True:
        step = next_run(project, project.planner(), iterations)
        if isinstance(step, End):
            if not quarantine_damaged(project, verified):
                yield step
                return
        elif step == before:
            yield Stuck(f"iteration {step.key} did not come up to date: {step.reason}", passed=False)
            return
        else:
            # Before anything is computed: a run that cannot train should not answer first.
            project.check_model()
            before = step
            yield step


class Stuck(End):
    """A run left everything as it was, so that the next one would do the same."""


def point_at_fresh(project: Project) -> list[StagePlan]:
    """The plans of all fresh stages of base and the opened iterations; each is pointed at from now on."""
    name = project.experiment.name
    fresh = [plan for plan in plans_of_opened(project) if plan.status == "fresh" and plan.manifest is not None]
    for plan in fresh:
        if plan.manifest is not None and project.store.pointed(name, plan.iteration, plan.stage) != plan.manifest:
            project.store.point(name, plan.iteration, plan.manifest)
            where = {"iteration": plan.iteration, "stage": plan.stage}
            project.store.journal("pointed", **where, reason=["it is fresh, and its pointer was not of it"])
    return fresh


def quarantine_damaged(project: Project, verified: set[str]) -> int:
    """Verify every artifact that is reused; a damaged one is then missing, and computed again.

    `verified` holds the data versions that were looked at, and is added to. Returns the number damaged.
    """
    project.store.restore_snapshots(project.experiment.name)
    damaged = 0
    for plan in plans_of_opened(project):
        if plan.status != "fresh" or plan.manifest is None or plan.manifest.data_version in verified:
            continue
        if reusable(project, plan.manifest):
            verified.add(plan.manifest.data_version)
        else:
            project.store.forget(plan.manifest)
            damaged += 1
    return damaged


def plans_of_opened(project: Project) -> list[StagePlan]:
    """The plans of now of base and of every opened iteration, in the order in which they would run."""
    planner, keys = project.planner(), [BASE, *project.store.iterations(project.experiment.name)]
    return [planner.stage(key, name) for key in keys for name in stages_of(key)]


def is_settled(project: Project) -> bool:
    """Whether everything is fresh, and Dagster has been told so and heard nothing since."""
    try:
        known = read_sealed(settled_path(project), "settled")
    except (OSError, Damaged):
        return False
    return known == settled_state(project)


def remember_settled(project: Project) -> None:
    if state := settled_state(project):
        write_sealed(settled_path(project), "settled", state)


def settled_path(project: Project) -> Path:
    return project.dagster_home / "history" / "settled.json"


def settled_state(project: Project) -> dict[str, Any] | None:
    """{plan, log}; None if a stage of base or of an opened iteration is not fresh.

    plan: digest of all fingerprints, which hold sources, settings and code, and of all data versions.
    log: what `Project.dagster_log` tells.
    """
    plans = plans_of_opened(project)
    log = project.dagster_log()
    if log is None or any(plan.status != "fresh" or plan.manifest is None for plan in plans):
        return None
    known = [[p.iteration, p.stage, p.fingerprint, p.manifest.data_version] for p in plans if p.manifest]
    return {"plan": digest_json(known), "log": log}


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
        from apt_assets.dagster_ledger import settle

        keys = self._project.store.iterations(self._project.experiment.name)
        settle(self._project, self.instance, [*keys, *([also] if also else [])])

    def materialize(self, key: str) -> tuple[str, str | None]:
        """Run the stages of one iteration (or of BASE): (run id, what failed, if anything did).

        Dagster turns Ctrl-C into an error of its own; here it is KeyboardInterrupt again.
        """
        import dagster as dg

        from apt_assets.definitions import build_definitions

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
