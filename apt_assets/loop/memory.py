"""What a plan needs of the device's memory: stage by stage, and what will not fit."""

from collections.abc import Sequence

from apt_assets.engine.plan import StagePlan
from apt_assets.engine.stage import STAGES
from apt_assets.project import Project
from apt_assets.rows.memory import Need, Needs


class Outlook:
    """needs: of each plan, in order; None: it is not to be computed, needs nothing of note, or it is not known."""

    def __init__(self, project: Project, plans: Sequence[StagePlan]):
        self._needs = Needs(project.experiment, project.models, project.landing_folder)
        self._stages: dict[str, Need | None] = {}
        for plan in plans:
            if plan.status in ("stale", "missing", "waiting") and plan.stage not in self._stages:
                self._stages[plan.stage] = self._needs.largest(STAGES[plan.stage].memory)
        to_compute = {(plan.iteration, plan.stage) for plan in plans if plan.status in ("stale", "missing", "waiting")}
        self.needs = [
            self._stages[plan.stage] if (plan.iteration, plan.stage) in to_compute else None for plan in plans
        ]

    def warnings(self) -> list[str]:
        """A line for each stage that there is not enough memory for."""
        found = []
        for stage, need in self._stages.items():
            warning = need and need.warning(self._needs.free, self._needs.held.device)
            found += [f"{stage} {warning}"] if warning else []
        return found
