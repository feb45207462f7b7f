"""`apt-assets doctor`: machine, servers, model, data and settings, before a run finds out."""

from collections.abc import Callable, Iterator, Sequence

from apt_assets.project import Project
from apt_assets.report.ending import of_the_machine
from apt_assets.report.terminal import escaped
from apt_assets.settings.experiment import UsageError
from apt_assets.start.checks import CHECKS, Finding, Found
from resources.model.lm_eval_tasks import TaskError
from resources.store.manifest import CorruptArtifact
from resources.store.store import StoreError


def examine(project: Project) -> Iterator[Finding]:
    """What each check finds. One that raises what a run would end with has found something bad; the others go on."""
    said = set()
    for area, check in CHECKS.items():
        for one in findings(area, check, project):
            if one.said not in said:  # what is wrong with a model ends the checks that need it too
                said.add(one.said)
                yield one


def findings(area: str, check: Callable[[Project], Found], project: Project) -> Iterator[Finding]:
    try:
        yield from (Finding(area, state, said) for state, said in check(project))
    except (UsageError, TaskError, StoreError, CorruptArtifact) as error:
        yield Finding(area, "bad", str(error))
    except OSError as error:
        yield Finding(area, "bad", of_the_machine(error) or str(error))


def print_finding(one: Finding) -> None:
    print(escaped(f"{one.state:<5} {one.area:<9} {one.said}"), flush=True)


def summary(found: Sequence[Finding]) -> str:
    bad, warned = (sum(one.state == state for one in found) for state in ("bad", "warn"))
    if bad:
        return f"{bad} to mend before a run{f', {warned} to know of' if warned else ''}"
    return f"a run can start{f'; {warned} to know of' if warned else ''}"
