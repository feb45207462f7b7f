"""Two sensors: one notices landed data, the other runs what is out of date. A third one frees the way for both.

Only the driver starts runs, so nothing is ever started twice. What decides is the store and the run
history, never a sensor's cursor: a cursor holds the file sizes of the last look, and a deleted one
costs one look. These two are off until someone turns them on (`apt-assets ui --watch` does).
"""

import json
import os
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus

from apt_assets.engine.plan import stages_of
from apt_assets.engine.stage import STAGES
from apt_assets.loop.next_run import End, Run, next_run, unused
from apt_assets.orchestration.alerts import Alerts
from apt_assets.orchestration.ledger import FOR_EVERY_ITERATION, Ledger, settle
from apt_assets.orchestration.lost import DEAD_AFTER, fail_lost_runs
from apt_assets.project import Project
from apt_assets.settings.iterations import BASE, key_of, number_of
from resources.store import locks
from resources.store.digest import digest_json

WORK_TAG = "apt/work"  # what a run is to bring up to date, from what
START_TAG = "apt/start"  # the stage it begins with, and its fingerprint
IN_PROGRESS = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.MANAGED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
INTERRUPTED = dg.DagsterExecutionInterruptedError.__name__
MOST_RESTARTS = 3  # of a run whose process vanished or was interrupted
INTERVAL = 15  # seconds between two looks


@dataclass(frozen=True)
class Look:
    """The landing folder at one look: file -> [bytes, modification time in ns]."""

    files: dict[str, list[int]]

    @classmethod
    def now(cls, project: Project) -> "Look":
        stats = {name: (project.landing / name).stat() for name in project.landed()}
        return cls({name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()})

    def unstable(self, cursor: str | None) -> list[str]:
        """Files that may still be written: new or changed since the look that `cursor` holds."""
        try:
            before = json.loads(cursor or "{}")
        except ValueError:
            before = {}
        return [name for name, size in self.files.items() if not isinstance(before, dict) or before.get(name) != size]

    @property
    def cursor(self) -> str:
        return json.dumps(self.files)


def build_sensors(project: Project, jobs: dict[str, Any]) -> list[dg.SensorDefinition]:
    """`landing`, `loop_driver` and `lost_runs` of one project."""
    running = os.environ.get("APT_WATCH") == "1"
    status = dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name="landing",
        minimum_interval_seconds=INTERVAL,
        default_status=status,
        job=jobs["iterate"],
        description=(
            "Notices files in the landing folder once their size and time stand still, and opens an iteration for "
            "new ones. Edits and withdrawals show as new data versions of landing_files. Starts no run itself: "
            "loop_driver does."
        ),
    )
    def landing(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        look = Look.now(project)
        waiting = look.unstable(context.cursor)
        context.update_cursor(look.cursor)
        return dg.SkipReason(notice(project, context.instance, waiting))

    @dg.sensor(
        name="loop_driver",
        minimum_interval_seconds=INTERVAL,
        default_status=status,
        jobs=list(jobs.values()),
        description=(
            "Runs the lowest iteration that is out of date, one at a time, and opens the next one after a passed "
            "gate, until loop.max_iterations on the same data, no bad cases, or no gain. A skipped tick says why."
        ),
    )
    def loop_driver(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        look = Look.now(project)
        waiting = look.unstable(context.cursor)
        answer = drive(project, context.instance, waiting)
        if isinstance(answer, dg.RunRequest):
            return dg.SensorResult(run_requests=[answer], cursor=look.cursor)
        return dg.SensorResult(skip_reason=answer, cursor=look.cursor)

    @dg.sensor(
        name="lost_runs",
        minimum_interval_seconds=DEAD_AFTER,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Marks a run as failed whose process is gone: it would keep all others waiting.",
    )
    def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        lost = fail_lost_runs(project, context.instance)
        return dg.SkipReason(f"lost: {', '.join(lost)}" if lost else "no run is lost")

    return [landing, loop_driver, lost_runs]


def notice(project: Project, instance: dg.DagsterInstance, waiting: list[str]) -> str:
    """What the landing sensor does at one look; `waiting` are the files still being written."""
    if changed := project.changed_since_start():
        return f"{changed} changed since this code location was loaded: reload it"
    if waiting:
        return f"waiting until {', '.join(waiting)} is complete"
    opened = project.store.iterations(project.experiment.name)
    Ledger(project, instance).observe_landing(opened)
    new = unused(project, opened)
    if not new:
        return f"nothing new among {len(project.landed())} landed files"
    last = opened[-1] if opened else None
    if last is not None and not project.store.started(project.experiment.name, last):
        # Nothing was computed of it yet: it takes the new files too, in place of one iteration per file.
        key = last
    else:
        key = key_of(number_of(last) + 1) if last else key_of(1)
    project.open_iteration(key, anew=True)
    # Only this: what is reused of it is drive's to report, which looks first whether a run is going on.
    with project.store.locks.take(locks.DAGSTER):
        instance.add_dynamic_partitions("iteration", [key])
        Ledger(project, instance).observe_landing([key])
    return f"opened iteration {key} with {', '.join(new)}"


def drive(project: Project, instance: dg.DagsterInstance, waiting: list[str]) -> dg.RunRequest | str:
    """What the loop driver does at one look: a run to start, or why there is none."""
    if changed := project.changed_since_start():
        return f"{changed} changed since this code location was loaded: reload it"
    if active := live_run(project, instance):
        return f"run {active} is going on"
    if waiting:
        return f"waiting until {', '.join(waiting)} is complete"
    step = next_run(project, project.planner())
    while isinstance(step, Run) and step.opens:
        project.open_iteration(step.key)
        # Another experiment may have filled the store with all of it: then there is nothing to run.
        step = next_run(project, project.planner())
    opened = project.store.iterations(project.experiment.name)
    settle(project, instance, opened)
    if isinstance(step, End):
        with Alerts(project, dg.get_dagster_logger().warning) as alerts:
            alerts.ended(step)
        return f"the loop is at its end: {step.reason}"
    return request(project, instance, step)


def request(project: Project, instance: dg.DagsterInstance, step: Run) -> dg.RunRequest | str:
    """A run request for `step`, unless the same work was canceled, failed, or was lost again and again:
    that needs someone to look."""
    first = next((plan for plan in step.stages if plan.fingerprint), step.stages[0])
    start = f"{first.stage}:{(first.fingerprint or '')[:16]}"
    work = work_of(project, instance, step.key)
    tried = [record.dagster_run for record in instance.get_run_records(dg.RunsFilter(tags={WORK_TAG: work}))]
    last = tried[0] if tried else None
    by_hand = f"materialise {step.key} by hand to go on"
    if last and last.status == DagsterRunStatus.CANCELED:
        return f"run {last.run_id[:8]} of this was canceled; {by_hand}"
    # Another stage than the one that failed: it was found damaged, and has to be computed again first.
    if last and last.status == DagsterRunStatus.FAILURE and first.stage in failed_steps(instance, last.run_id):
        return f"run {last.run_id[:8]} of this failed in {first.stage}; change what is wrong, or {by_hand}"
    lost = [run for run in tried if run.status == DagsterRunStatus.FAILURE and run.tags.get(START_TAG) == start]
    if len(lost) > MOST_RESTARTS:
        return f"runs of this were lost {len(lost)} times; {by_hand}"
    partition = None if step.key == BASE else step.key
    return dg.RunRequest(
        # With the last try in it, work that comes back, as after A -> B -> A, is a new run and not a repetition.
        run_key=f"{work}:{last.run_id if last else 'first'}",
        job_name="iterate" if partition else "score_base",
        partition_key=partition,
        tags={WORK_TAG: work, START_TAG: start, "apt/why": step.reason[:200]},
    )


def work_of(project: Project, instance: dg.DagsterInstance, key: str) -> str:
    """A name for bringing `key` up to date from what is now outside of it: settings, code, data, adapter.

    It stays the same however far a run gets, so a run that failed or was canceled half-way is known again.
    """
    planner, ledger = project.planner(), Ledger(project, instance)
    facts: dict[str, Any] = {name: planner.declared(STAGES[name]) for name in stages_of(key)}
    for name in FOR_EVERY_ITERATION if key != BASE else ("landing_folder",):
        facts[name] = ledger.source_version(name, key)
    return f"{project.experiment.name}:{key}:{digest_json(facts)[:16]}"


def live_run(project: Project, instance: dg.DagsterInstance) -> str | None:
    """The id of a run that is queued or going on; those that `fail_lost_runs` marks are not."""
    fail_lost_runs(project, instance, unlocked=True)
    running = instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS), limit=1)
    return running[0].run_id[:8] if running else None


def failed_steps(instance: dg.DagsterInstance, run_id: str) -> set[str | None]:
    """The steps of the run that failed by themselves; none if its process vanished or was interrupted."""
    found = instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE).records
    events = [record.event_log_entry.get_dagster_event() for record in found]
    errors = {event.step_key: event.step_failure_data.error for event in events}
    return {step for step, error in errors.items() if error is None or error.cls_name != INTERRUPTED}
