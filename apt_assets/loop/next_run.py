"""What the loop does next: the one decision that the command line and the sensor share.

The lowest iteration that is out of date runs, one at a time. When all are up to date, the following
one is opened, unless the loop is at its end:

- the gate refused the last one, or it found no bad case (and does not train on every row), and no new data has landed;
- the last one gained nothing on the validation split;
- `loop.max_iterations` have used the same landed files;
- a person has to approve what the gate passed (`gate.approval`), and has not decided yet;
- with the next one more than `loop.budget` would be spent (also where one that is opened is out of date, by more than a
  decision or a promotion).

New data always opens a new iteration, which goes on from the last promoted adapter.
"""

from dataclasses import dataclass, replace

from apt_assets.engine.plan import StagePlan
from apt_assets.engine.stage import STAGES
from apt_assets.loop.money import Money
from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.settings.iterations import BASE, key_of, number_of


@dataclass(frozen=True)
class Run:
    """Iteration `key` (or BASE) has to run: its stages that are out of date; `opens` it if it is new."""

    key: str
    stages: tuple[StagePlan, ...]
    opens: bool = False

    @property
    def works(self) -> bool:
        """Whether it computes more than what follows from rows that are there, as a promotion does."""
        return self.opens or any(STAGES[plan.stage].work is not None for plan in self.stages)

    @property
    def reason(self) -> str:
        """The first stage that will run, and why."""
        if not self.stages:
            return "opens it"
        first = next((plan for plan in self.stages if plan.fingerprint), self.stages[0])
        return f"{first.stage} is {first.status}: {'; '.join(first.causes[:3])}"


@dataclass(frozen=True)
class End:
    """Nothing runs. passed: whether what was asked for is up to date and promoted."""

    reason: str
    passed: bool


def next_run(project: Project, planner: LoopPlanner, iterations: int | None = None) -> Run | End:
    """The next run, or why there is none; `iterations`: only bring 1..n up to date."""
    step = wanted(project, planner, iterations)
    if isinstance(step, Run) and step.works and (spent := Money(project, planner).overspends(step.key)):
        # What would be opened only because the loop goes on was not asked for.
        return End(f"loop.budget: {spent}", passed=step.opens and iterations is None)
    return step


def wanted(project: Project, planner: LoopPlanner, iterations: int | None) -> Run | End:
    """The same, whatever it costs."""
    landed = project.landed()
    if not any(project.usable_rows(name) for name in landed):
        what = "no usable row is in the files" if landed else "no data has landed"
        return End(f"{what} in {project.landing}", passed=False)
    if stale := planner.out_of_date(BASE):
        return Run(BASE, tuple(stale))
    opened = project.store.iterations(project.experiment.name)
    last = number_of(opened[-1]) if opened else 0
    for key in map(key_of, range(1, last + 1)):
        if iterations is not None and number_of(key) > iterations:
            break
        if stopped := planner.stopped(key):
            return End(f"iteration {key} does not run: {stopped}", passed=False)
        if key not in opened:
            return Run(key, (), opens=True)  # left out by a run that was launched by hand
        if stale := planner.out_of_date(key):
            gone = project.without_files().get(key)
            return taken_away(project, key, gone) if gone else Run(key, tuple(stale))
        if planner.verdict(key) is None:
            # All is fresh, but the verdict cannot be read: the run notices the damage and decides again.
            return Run(key, (replace(planner.stage(key, "gate"), status="stale", note="its verdict is damaged"),))
        if waits := planner.waits(key):
            return End(waits, passed=False)
    if iterations is not None and len(opened) >= iterations:
        return asked_for(planner, key_of(iterations))
    if opened and iterations is None and (end := ended(project, planner, opened)):
        return end
    new = following(project, planner)
    return asked_for(planner, opened[-1]) if new is None else Run(new, (), opens=True)


def taken_away(project: Project, key: str, names: list[str]) -> End:
    """What is said of an iteration of `Project.without_files`."""
    return End(
        f"iteration {key} used {', '.join(names)}, and none of that is in {project.landing} any more: put it back, or "
        "`apt-assets run --reopen` has it use what there is",
        passed=False,
    )


def asked_for(planner: LoopPlanner, last: str) -> End:
    verdict = planner.verdict(last)
    if verdict is None or verdict["passed"]:
        return End(f"all of the iterations up to {last} are up to date", passed=True)
    if verdict.get("no_bad_cases"):
        return End(verdict["reason"], passed=True)
    return End(f"iteration {last} is not promoted: {verdict['reason']}", passed=False)


def ended(project: Project, planner: LoopPlanner, opened: list[str]) -> End | None:
    """Why the loop is at its end after the last of these iterations, all up to date; None: it is not."""
    last = opened[-1]
    if unused(project, opened):
        return None
    verdict = planner.verdict(last)
    if verdict is None:
        return None
    if not verdict["passed"]:
        return asked_for(planner, last)
    domain = next(check for check in verdict["checks"] if check["name"] == "domain")
    if domain["difference"] <= 0:
        return End(
            f"iteration {last} gained nothing: validation {domain['candidate']:.1%} "
            f"against {domain['reference']:.1%} of {domain['against']}",
            passed=True,
        )
    same = [key for key in opened if planner.landed(key) == planner.landed(last)]
    most = project.experiment.loop.max_iterations
    if len(same) >= most:
        return End(f"loop.max_iterations: {len(same)} iterations have used the same landed files", passed=True)
    return None


def following(project: Project, planner: LoopPlanner) -> str | None:
    """The iteration after the last opened one, if someone may run it: all before it are up to date and
    nothing stops it. The loop itself may be at its end all the same."""
    opened = project.store.iterations(project.experiment.name)
    if any(planner.verdict(key) is None or planner.waits(key) for key in opened):
        return None
    key = key_of(number_of(opened[-1]) + 1 if opened else 1)
    return None if planner.stopped(key) else key


def unused(project: Project, opened: list[str]) -> list[str]:
    """Landed files with usable rows that no iteration uses yet."""
    used = {name for key in opened for name in project.store.snapshot(project.experiment.name, key) or []}
    return [name for name in project.landed() if name not in used and project.usable_rows(name)]
