"""What a plan needs of the device's memory: stage by stage, and what will not fit."""

from collections.abc import Sequence

from apt_assets.engine.plan import StagePlan
from apt_assets.engine.stage import STAGES
from apt_assets.project import Project
from apt_assets.rows.memory import Needs


class Outlook:
    """peaks: bytes that each plan's stage needs, in order; None: it is not to be computed, needs nothing of note, or it
    is not known."""

    def __init__(self, project: Project, plans: Sequence[StagePlan]):
        self._needs = Needs(project.experiment, project.models, project.landing_folder)
        to_compute = [plan.status in ("stale", "missing", "waiting") for plan in plans]
        stages = dict.fromkeys(plan.stage for plan, computed in zip(plans, to_compute, strict=True) if computed)
        self._stages = {stage: self._needs.of(STAGES[stage].memory) for stage in stages}
        self.peaks = [
            max(map(self._needs.in_all, self._stages[plan.stage]), default=None) if computed else None
            for plan, computed in zip(plans, to_compute, strict=True)
        ]

    def warnings(self) -> list[str]:
        """A line for each stage that there is not enough memory for."""
        found = []
        for stage, needs in self._stages.items():
            # First what cannot be made small enough.
            by_least = sorted(needs, key=lambda need: need.least, reverse=True)
            said = (need.warning(self._needs.free, self._needs.held.device) for need in by_least)
            if line := next(filter(None, said), None):
                found.append(f"{stage} {line}")
        return found
