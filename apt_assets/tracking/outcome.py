"""What an iteration came to, by content: what decides whether a tracker has it already."""

from dataclasses import dataclass

from apt_assets.engine.plan import stages_of
from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.settings.iterations import BASE
from resources.store.digest import digest_json


@dataclass(frozen=True)
class Outcome:
    """An iteration whose gate has decided, and whose promotion is settled.

    artifacts: stage -> data version, of base and of the iteration. digest: of these, the experiment's name and the
    key, so that an iteration that is reused, or computed again to the same bits, is the same outcome.
    """

    iteration: str
    promoted: bool
    artifacts: dict[str, str]
    digest: str


def outcomes(project: Project, planner: LoopPlanner) -> list[Outcome]:
    """The outcomes of now, in order. An iteration that trained nothing has none."""
    found = (outcome(project, planner, key) for key in project.store.iterations(project.experiment.name))
    return [one for one in found if one is not None]


def outcome(project: Project, planner: LoopPlanner, key: str) -> Outcome | None:
    verdict = planner.verdict(key)
    if verdict is None or verdict.get("no_bad_cases"):
        return None
    promotion = planner.stage(key, "promoted_adapter").status
    if promotion not in ("fresh", "refused"):
        return None  # it is yet to be promoted
    plans = [planner.stage(at, stage) for at in (BASE, key) for stage in stages_of(at)]
    artifacts = {plan.stage: plan.manifest.data_version for plan in plans if plan.status == "fresh" and plan.manifest}
    digest = digest_json([project.experiment.name, key, artifacts])
    return Outcome(key, promotion == "fresh", artifacts, digest)


def served(found: list[Outcome]) -> Outcome | None:
    """The outcome whose adapter people serve: the last promoted one."""
    return next((one for one in reversed(found) if one.promoted), None)
