"""What `plan` tells: each stage with what computing it costs and needs, and what runs next. Computes nothing."""

from dataclasses import dataclass

from apt_assets.engine.plan import StagePlan
from apt_assets.loop.memory import Outlook
from apt_assets.loop.money import Quote, quote_of
from apt_assets.loop.next_run import End, Run, next_run
from apt_assets.loop.work import Work, work_of
from apt_assets.project import Project


@dataclass(frozen=True)
class Planned:
    """plans, works: of each stage, in the order in which they would run. memory: of the same; see Outlook.
    quote: what they cost in money; None: there are no prices."""

    plans: list[StagePlan]
    works: list[Work]
    memory: Outlook
    quote: Quote | None
    next: Run | End

    @property
    def next_in_words(self) -> str:
        step = self.next
        return f"the loop is at its end: {step.reason}" if isinstance(step, End) else f"next: {step.key}, {step.reason}"


def planned(project: Project, iterations: int | None) -> Planned:
    """iterations: how many to look at; None: those that are opened, or as many as the loop may have. Raises UsageError
    if the files of a model that would be used are not whole."""
    opened = len(project.store.iterations(project.experiment.name))
    planner = project.planner()
    plans = planner.plan(iterations or max(opened, project.experiment.loop.max_iterations))
    if any(one.status != "fresh" for one in plans) and not project.models.to_download():
        project.model_checks.files()
    works = [work_of(project, planner, one) for one in plans]
    quote = quote_of(project, planner, plans, works)
    return Planned(plans, works, Outlook(project, plans), quote, next_run(project, planner, iterations))
