"""One run of a study, in a process of its own:  python -m apt_assets.study.cell EXPERIMENT ITERATIONS

Brings the experiment's iterations up to date without Dagster. A run is looked at later like any other:
`apt-assets report -e EXPERIMENT`.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from apt_assets.engine.display import Lines
from apt_assets.engine.execute import NothingToDo, run_stage
from apt_assets.engine.plan import stages_of
from apt_assets.engine.step import StageBlocked
from apt_assets.loop.next_run import End
from apt_assets.loop.turns import Stuck, in_turn
from apt_assets.project import Project
from apt_assets.report.ending import run_program
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import BASE
from resources.threads import set_threads


def bring_up_to_date(project: Project, iterations: int, log: Callable[[str], None]) -> None:
    """Run base and iterations 1..n in order, in this process; 0: only base.

    Raises StageBlocked if an iteration does not come up to date, and whatever a stage raises.
    """
    if iterations == 0:
        for name in stages_of(BASE):
            run_stage(project, BASE, name, run_id="study", log=log)
        return
    for step in in_turn(project, iterations, log):
        if isinstance(step, Stuck):
            raise StageBlocked(step.reason)
        if isinstance(step, End):
            log(f"ended: {step.reason}")
            return
        if step.opens:
            project.open_iteration(step.key)
        for name in stages_of(step.key):
            try:
                run_stage(project, step.key, name, run_id="study", log=log)
            except NothingToDo as error:
                log(str(error))
                break


def main() -> None:
    project = Project.open(Path(sys.argv[1]))
    set_threads(project.experiment.policy.threads)
    try:
        bring_up_to_date(project, int(sys.argv[2]), Lines().line)
    except StageBlocked as error:
        raise UsageError(str(error)) from None


if __name__ == "__main__":
    sys.exit(run_program(main))
