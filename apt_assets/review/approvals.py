"""What waits for a person's approval, as one person sees it at the page and decides on it (`gate.approval`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apt_assets.loop.approval import decide
from apt_assets.project import Project
from apt_assets.settings.experiment import UsageError

APPROVE, REFUSE = "approve", "refuse"  # decisions, as a form says them


@dataclass(frozen=True)
class Passed:
    """An iteration that its gate passed. of: digest of verdict and adapter, what is decided on. decided: the last
    decision {event, by, reason, time}; None: nobody has decided."""

    iteration: str
    of: str
    checks: list[dict[str, Any]]
    scale: float
    decided: Mapping[str, Any] | None


class Approvals:
    """What `by` may decide in a project. The store is read at each look: the loop goes on beside the page."""

    def __init__(self, project: Project, by: str):
        self._project, self._by = project, by

    @property
    def required(self) -> bool:
        return self._project.experiment.gate.approval == "required"

    def last(self) -> Passed | None:
        """The last iteration that passed its gate, whether or not somebody has decided; None: there is none."""
        planner = self._project.planner()
        for key in reversed(self._project.store.iterations(self._project.experiment.name)):
            verdict = planner.verdict(key)
            if verdict is not None and "approval" in verdict:
                of = planner.to_approve(key)
                return Passed(key, of, verdict["checks"], verdict.get("scale", 1.0), verdict["approval"])
        return None

    def decide(self, form: Mapping[str, str]) -> str:
        """Do what a form says: {of, decision: APPROVE or REFUSE, reason}; returns what follows. Raises UsageError if
        what the person saw is not there any more, or for what `loop.approval.decide` does."""
        if (last := self.last()) is None:
            raise UsageError("the verdict or its adapter was computed anew since it was shown: look at it again")
        approves, reason = form["decision"] == APPROVE, form.get("reason", "")
        return decide(self._project, last.iteration, self._by, reason, approves=approves, of=form.get("of", ""))
