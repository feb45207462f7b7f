"""The loop's runs in turn: what is damaged is found first, then the lowest iteration that is out of date runs."""

from collections.abc import Callable, Iterator

from apt_assets.engine.execute import reusable
from apt_assets.engine.plan import StagePlan, stages_of
from apt_assets.loop.next_run import End, Run, next_run
from apt_assets.project import Project
from apt_assets.settings.iterations import BASE
from apt_assets.world.execution import MODEL
from apt_assets.world.server import obstacles


def in_turn(project: Project, iterations: int | None, tell: Callable[[str], None]) -> Iterator[Run | End]:
    """The next run, each time the one before it was done, and at last the end: of the loop, or because a run
    left everything as it was. `tell` gets lines on how the models run, and what a server lacks, if anything is to be
    computed. Raises UsageError if what is to be computed cannot be."""
    verified: set[str] = set()
    quarantine_damaged(project, verified)
    before: Run | None = None
    tried = False
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
            project.check()
            if not tried:
                tried, found = True, project.executions.find_out(MODEL)
                for line in [*(found or project.executions.remarks()), *obstacles(project.experiment, project.models)]:
                    tell(line)
                if found:
                    continue  # how the models run decides what is stale
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
