"""The loop as the command line drives it: one iteration at a time, in order, through Dagster."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apt_assets.engine.display import Display
from apt_assets.loop.next_run import End
from apt_assets.loop.turns import in_turn, plans_of_opened, point_at_fresh
from apt_assets.orchestration.alerts import Alerts
from apt_assets.orchestration.event_log import event_log
from apt_assets.orchestration.instance import Dagster
from apt_assets.project import Project
from apt_assets.report.show import stage_at
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import BASE, number_of
from apt_assets.tracking.beside import send_beside
from resources.store.digest import digest_json
from resources.store.sealed import Damaged, read_sealed, write_sealed
from resources.threads import set_threads


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


def run_project(project: Project, iterations: int | None, force: Iterable[str], display: Display) -> LoopResult:
    """`run_loop` of a project that may be new. force: stages to compute although they are fresh, as STAGE or
    STAGE@ITERATION. Raises UsageError if nothing has landed, or there is no such stage."""
    set_threads(project.experiment.policy.threads)
    display.line(f"experiment {project.experiment.name} ({project.experiment_file or 'given by a program'})")
    if not project.landed():
        where = f" --experiment {project.experiment_file}" if project.experiment_file else ""
        raise UsageError(f"no data in {project.landing}: land some with `apt-assets land FILE{where}`")
    project.forced |= {stage_at(project, named) for named in force}
    try:
        return run_loop(project, iterations, display)
    finally:
        project.forced.clear()  # what was not reached was asked for of this run alone


def run_loop(project: Project, iterations: int | None, display: Display) -> LoopResult:
    """Bring base and iterations 1..n up to date, in order; None: run until the loop ends by itself.

    Stops at the first failure, and where `loop.next_run` says that the loop ends.
    """
    with Alerts(project, display.line) as alerts:
        for line in alerts.lacking:
            display.line(line)
        return bring_up_to_date(project, iterations, display, alerts)


def bring_up_to_date(project: Project, iterations: int | None, display: Display, alerts: Alerts) -> LoopResult:
    """The same, while somebody is told of it."""
    result = LoopResult()
    runs: set[str] = set()
    dagster: Dagster | None = None
    for step in in_turn(project, iterations, display.line):
        if isinstance(step, End):
            result.passed, result.reason = step.passed, step.reason
            alerts.ended(step)
            send_beside(project, display.line)  # what is reused, and what no tracker could be told of before
            break
        dagster = dagster or Dagster(project, display)
        if step.opens:
            project.open_iteration(step.key)
        dagster.settle()
        run_id, failure = dagster.materialize(step.key, [plan.stage for plan in step.stages])
        runs.add(run_id)
        alerts.of_run(step.key, run_id, failure)
        verdict = None if step.key == BASE else project.planner().verdict(step.key)
        if failure and (verdict is None or verdict["passed"]):
            result.passed, result.reason = False, f"iteration {step.key}: {failure}"
            break
    if result.passed and project.forced:
        left = ", ".join(f"{name} of {key}" for key, name in sorted(project.forced))
        result.passed, result.reason = False, f"{left} was asked for and did not run: {result.reason}"
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
    log: what `event_log` tells.
    """
    plans = plans_of_opened(project)
    log = event_log(project)
    if log is None or any(plan.status != "fresh" or plan.manifest is None for plan in plans):
        return None
    known = [[p.iteration, p.stage, p.fingerprint, p.manifest.data_version] for p in plans if p.manifest]
    return {"plan": digest_json(known), "log": log}
