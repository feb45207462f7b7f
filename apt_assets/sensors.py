"""The two sensors: one notices landed data, the other runs what is out of date.

Only the driver starts runs, so nothing is ever started twice. What decides is the store and the run
history, never a sensor's cursor: a cursor holds the file sizes of the last look, and a deleted one
costs one look. Both are off until someone turns them on (`apt-assets ui --watch` does).
"""

import json
import os
import time
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus

from apt_assets.dagster_ledger import Ledger
from apt_assets.driver import End, Run, next_run, unused
from apt_assets.partitions import key_of, number_of
from apt_assets.project import Project

JOBS = ("score_base", "iterate")
WORK_TAG = "apt/work"
IN_PROGRESS = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.MANAGED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
MOST_RESTARTS = 3  # of a run whose process vanished
DEAD_AFTER = 60  # seconds in which a started run must have taken its lock
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
    """`landing` and `loop_driver` of one project."""
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

    return [landing, loop_driver]


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
    if isinstance(step, Run) and step.opens:
        project.open_iteration(step.key)
    opened = project.store.iterations(project.experiment.name)
    instance.add_dynamic_partitions("iteration", opened)
    Ledger(project, instance).settle(opened)
    if isinstance(step, End):
        return f"the loop is at its end: {step.reason}"
    if step.opens:
        again = next_run(project, project.planner())
        step = again if isinstance(again, Run) else step
    return request(project, instance, step)


def request(project: Project, instance: dg.DagsterInstance, step: Run) -> dg.RunRequest | str:
    """A run request for `step`, unless the same work was tried and failed: that needs someone to look."""
    first = next((plan for plan in step.stages if plan.fingerprint), None)
    fingerprint = (first.fingerprint or "") if first else ""
    work = f"{project.experiment.name}:{step.key}:{first.stage if first else ''}:{fingerprint[:16]}"
    tried = instance.get_run_records(dg.RunsFilter(tags={WORK_TAG: work}))
    if tried:
        last = tried[0].dagster_run
        if last.status == DagsterRunStatus.CANCELED:
            return f"run {last.run_id[:8]} of this was canceled; materialise iteration {step.key} by hand to go on"
        if last.status == DagsterRunStatus.FAILURE and failed_step(instance, last.run_id):
            return f"run {last.run_id[:8]} of this failed; change what is wrong, or materialise {step.key} by hand"
        lost = [one for one in tried if one.dagster_run.status == DagsterRunStatus.FAILURE]
        if len(lost) > MOST_RESTARTS:
            return f"runs of this were lost {len(lost)} times; materialise iteration {step.key} by hand to go on"
    partition = None if step.key == "base" else step.key
    return dg.RunRequest(
        # The number of tries makes work that comes back, as after A -> B -> A, a new run and not a repetition.
        run_key=f"{work}:{len(tried)}",
        job_name="iterate" if partition else "score_base",
        partition_key=partition,
        tags={WORK_TAG: work, "apt/why": step.reason[:200]},
    )


def live_run(project: Project, instance: dg.DagsterInstance) -> str | None:
    """The id of a run that is queued or going on. A run whose process is gone is marked as failed."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS)):
        run = record.dagster_run
        started = record.start_time
        dead = (
            started is not None and time.time() - started > DEAD_AFTER and not project.store.held(f"run-{run.run_id}")
        )
        if run.status == DagsterRunStatus.STARTED and dead:
            instance.report_run_failed(run, "its process is gone (machine or daemon restarted)")
            continue
        return run.run_id[:8]
    return None


def failed_step(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a step of the run failed, as against a run whose process vanished."""
    return bool(instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE, limit=1).records)
