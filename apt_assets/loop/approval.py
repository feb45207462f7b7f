"""What a person decides on an adapter that passed its gate (`gate.approval: required`).

A decision stands in the journal, with who made it and why, and is of the exact verdict and adapter: a gate that decides
anew and comes to another result waits anew, one that comes to the same does not. Of several the last one counts.
"""

from typing import Any

from apt_assets.landing.chunks import SURROGATE
from apt_assets.project import Project
from apt_assets.promotion import APPROVED, DISAPPROVED, decisions
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import ADAPTER_PARTS, BASE


def decide(project: Project, iteration: str, by: str, reason: str, *, approves: bool, of: str | None = None) -> str:
    """Keep that `by` approves of the adapter of an iteration, or does not; returns what follows, for people. of: what
    they saw (LoopPlanner.to_approve); None: what there is.

    Raises UsageError if nothing there is to be decided, if it is not `of` any more, or if nobody or no reason is named,
    or in what is no text.
    """
    if iteration == BASE:
        raise UsageError("iteration: base has no gate; give a number such as 1")
    by, reason = by.strip(), reason.strip()
    if not by or not reason:
        raise UsageError(f"{'--reason' if by else '--by'}: is empty; whoever reads the journal later needs it")
    require_text("--by", by)
    require_text("--reason", reason)
    if project.experiment.gate.approval == "none":
        raise UsageError(
            f"{project.experiment.name} asks for no approval: set `gate: {{approval: required}}` in its experiment file"
        )
    planner = project.planner()
    require_passed(iteration, planner.verdict(iteration))
    to_approve = planner.to_approve(iteration)
    if of not in (None, to_approve):
        raise UsageError("the verdict or its adapter was computed anew since it was shown: look at it again")
    weights = planner.fresh(iteration, "adapter_checkpoint").files[ADAPTER_PARTS[1]]
    experiment = project.experiment.name
    with project.store.locks.take("approve"):
        number = 1 + max((event.get("number", 0) for event in decisions(project.store, experiment)), default=0)
        project.store.journal(
            APPROVED if approves else DISAPPROVED, experiment=experiment, iteration=iteration,
            stage="gate", of=to_approve, adapter=weights, by=by, reason=reason, number=number,
        )  # fmt: skip
    if approves:
        return f"iteration {iteration} is approved: `apt-assets run` promotes it"
    return f"iteration {iteration} is not promoted: what was promoted before stays in use"


def require_text(option: str, given: str) -> None:
    """Raise UsageError for what a terminal of another encoding sent: no file that it stands in could be written."""
    if SURROGATE.search(given):
        raise UsageError(f"{option}: is not UTF-8; have your terminal send that")


def require_passed(iteration: str, verdict: dict[str, Any] | None) -> None:
    """Raise UsageError unless the iteration passed its gate, whatever a person said of it."""
    if verdict is None:
        raise UsageError(f"iteration {iteration} has no verdict that is up to date: `apt-assets run` first")
    if "approval" not in verdict:
        raise UsageError(f"iteration {iteration} did not pass, so there is nothing to approve: {verdict['reason']}")
