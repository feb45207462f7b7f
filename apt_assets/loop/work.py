"""What a plan would cost: rows to answer, grade, embed and score, likelihoods of golds, anchor texts, reference
log-probabilities, steps.

Exact where a stage's inputs are up to date: the rows it needs against those that are already there.
A stage that waits for another one is estimated by what it took the last time, all rows counted.
"""

from dataclasses import dataclass

from apt_assets.engine.plan import Planner, StagePlan
from apt_assets.engine.stage import STAGES
from apt_assets.engine.view import View
from apt_assets.project import Project
from resources.store.manifest import CorruptArtifact

KINDS = ("answers", "grades", "embeddings", "likelihoods", "anchors", "references", "steps", "scores")


@dataclass(frozen=True)
class Work:
    """Rows or steps by kind; `exact`, or an estimate. None of them known: an empty estimate."""

    amounts: dict[str, int]
    exact: bool

    def __str__(self) -> str:
        mark = "" if self.exact else "about "
        parts = [f"{mark}{self.amounts[kind]} {kind}" for kind in KINDS if self.amounts.get(kind)]
        return ", ".join(parts) or ("-" if self.exact else "not known yet")


def work_of(project: Project, planner: Planner, plan: StagePlan) -> Work:
    """What computing the stage would cost; nothing for one that is fresh, refused or stopped."""
    stage = STAGES[plan.stage]
    if stage.work is None or plan.status not in ("stale", "missing", "waiting"):
        return Work({}, exact=True)
    if plan.fingerprint is not None:
        try:
            return Work(stage.work(View(project, plan, planner)), exact=True)
        except Exception as error:
            # An input that gc removed, or that is damaged, is computed again first.
            if not isinstance(error, FileNotFoundError) and inputs_are_whole(project, planner, plan):
                raise
    last = plan.manifest.work if plan.manifest else {}
    amounts = {k: n if isinstance(n, int) else n["reused"] + n["computed"] for k, n in last.items()}
    return Work(amounts, exact=False)


def inputs_are_whole(project: Project, planner: Planner, plan: StagePlan) -> bool:
    """Whether the files of a stage's inputs are as they were written."""
    for name in STAGES[plan.stage].producers():
        manifest = planner.produced(plan.iteration, name)
        try:
            if manifest is not None:
                project.store.verify(manifest)
        except (CorruptArtifact, OSError):
            return False
    return True


def total(works: list[Work]) -> Work:
    """The sum; exact only if all are."""
    amounts = {kind: sum(work.amounts.get(kind, 0) for work in works) for kind in KINDS}
    return Work({kind: n for kind, n in amounts.items() if n}, all(work.exact for work in works))
