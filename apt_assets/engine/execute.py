"""Doing one stage: reuse the verified artifact of its fingerprint, or compute and commit it."""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from apt_assets.engine.plan import ENGINE_VERSION, StagePlan
from apt_assets.engine.progress import Show
from apt_assets.engine.scope import UndeclaredRead
from apt_assets.engine.stage import STAGES, not_repeatable
from apt_assets.engine.step import Log, StageBlocked, Step
from apt_assets.engine.view import identities_of
from resources import cluster, workers
from resources.assessors import endpoint
from resources.store.manifest import CorruptArtifact, Manifest, now

if TYPE_CHECKING:
    from apt_assets.engine.plan import Planner
    from apt_assets.engine.world import World


class NothingToDo(StageBlocked):
    """The iteration ends before this stage: what came before it left nothing to do."""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: its artifact, and whether it was reused or computed (in `seconds`)."""

    status: Literal["hit", "computed"]
    manifest: Manifest
    seconds: float


def run_stage(
    project: "World",
    iteration: str,
    name: str,
    *,
    run_id: str,
    log: Log = lambda line: None,
    show: Show = lambda at: None,
) -> Outcome:
    """Bring one stage of one iteration up to date. `log` gets lines, `show` how far its parts are.

    Raises StageBlocked if an input is not up to date, the gate refuses, or something the stage reads
    changed while it ran, UsageError if it cannot be computed here; whatever the stage's own function raises passes
    through. Nothing is committed then.
    """
    store = project.store
    where = {"experiment": project.experiment.name, "iteration": iteration, "stage": name, "run_id": run_id}
    with store.locks.take(f"{project.experiment.name}-{iteration}-{name}"):
        planner = project.planner()
        plan = planner.stage(iteration, name)
        if plan.fingerprint is None:
            raise NothingToDo(plan.note) if planner.nothing_to_do(iteration) else blocked(plan)
        if plan.status != "fresh":
            project.check()
        if found := project.find_out(identities_of(STAGES[name])):
            for line in found:
                log(line)
            planner = project.planner()
            plan = planner.stage(iteration, name)
            if plan.fingerprint is None:
                raise blocked(plan)
        if plan.status == "fresh" and plan.manifest is not None:
            started = time.monotonic()
            if reusable(project, plan.manifest):
                record_hit(project, plan, run_id)
                log(f"{name} of {iteration}: reused")
                return Outcome("hit", plan.manifest, time.monotonic() - started)
            planner = project.planner()
            plan = planner.stage(iteration, name)
        project.check()
        if restored := restore_inputs(project, plan, planner, run_id, log, show):
            planner = project.planner()
            plan = planner.stage(iteration, name)
            log(f"{name} of {iteration}: had to compute {', '.join(restored)} again, which gc had removed")
            if plan.fingerprint is None:
                raise blocked(plan)
        store.journal("miss", **where, fingerprint=plan.fingerprint, reason=plan.causes)
        log(f"{name} of {iteration}: computing ({'; '.join(plan.causes[:6]) or 'artifact was damaged'})")
        try:
            manifest, seconds = compute(project, planner, plan, run_id, log, show)
        except CorruptArtifact as error:
            log(f"{name} of {iteration}: {error}; computing that again first")
            restore_inputs(project, plan, planner, run_id, log, show, damaged=True)
            planner = project.planner()
            plan = planner.stage(iteration, name)
            if plan.fingerprint is None:
                raise blocked(plan) from None
            manifest, seconds = compute(project, planner, plan, run_id, log, show)
        planner.forced.discard((iteration, name))
        store.point(project.experiment.name, iteration, manifest)
        store.journal(
            "computed", **where, fingerprint=plan.fingerprint, data_version=manifest.data_version,
            seconds=round(seconds, 3), tokens=manifest.tokens, work=manifest.work,
        )  # fmt: skip
        log(f"{name} of {iteration}: done in {seconds:.1f} s{describe(manifest.work)}")
        return Outcome("computed", manifest, seconds)


def blocked(plan: StagePlan) -> StageBlocked:
    """Why a stage without a fingerprint cannot run."""
    where = f"{plan.stage} of {plan.iteration}"
    return StageBlocked(f"{where} is {plan.status}: {plan.note} (`apt-assets plan` shows what has to run first)")


def compute(
    project: "World", planner: "Planner", plan: StagePlan, run_id: str, log: Log, show: Show
) -> tuple[Manifest, float]:
    """Run the stage's function and commit what it wrote: (manifest, seconds). The journal is told what was spent on
    one that fails."""
    started, used, tokens = time.monotonic(), cpu_seconds(), endpoint.USED.total
    anew = (plan.iteration, plan.stage) in planner.forced
    with project.store.workspace() as folder:
        step = Step(project, plan, planner, out=folder, log=log, show=show, anew=anew)
        step.check()
        stage = STAGES[plan.stage]
        try:
            stage.compute(step)
            if undeclared := sorted(path.name for path in folder.iterdir() if path.name not in stage.outputs):
                raise UndeclaredRead(f"{stage.name} writes {', '.join(undeclared)}, which it does not declare")
            seconds, cpu = time.monotonic() - started, cpu_seconds() - used
            step.check()
            return commit(step, seconds, cpu, endpoint.USED.total - tokens, run_id), seconds
        except BaseException as error:
            with suppress(Exception):  # what went wrong is what is to be told
                project.store.journal(
                    "failed", experiment=project.experiment.name, iteration=plan.iteration, stage=plan.stage,
                    run_id=run_id, reason=[type(error).__name__], seconds=round(time.monotonic() - started, 3),
                    tokens=endpoint.USED.total - tokens,
                )  # fmt: skip
            raise


def cpu_seconds() -> float:
    """Processor time so far, of this process and its workers."""
    return time.process_time() + workers.cpu_seconds() + cluster.cpu_seconds()


def restore_inputs(
    project: "World", plan: StagePlan, planner: "Planner", run_id: str, log: Log, show: Show, *, damaged: bool = False
) -> list[str]:
    """Compute again the inputs whose files `gc` removed, or those that turned out to be damaged when they
    were read; returns their names, "stage of iteration"."""
    made_by = (planner.producer(plan.iteration, given) for given in STAGES[plan.stage].producers())
    keys = [where for where in made_by if where is not None]
    if not damaged and not any(m.collected for where in keys if (m := planner.stage(*where).manifest)):
        return []
    restored = []
    for key, name in keys:
        # A plan of now: computing one input again may have brought back another one.
        present = project.planner().stage(key, name)
        manifest = present.manifest
        collected = manifest is not None and manifest.collected and not project.store.complete(manifest)
        if collected or (damaged and present.status != "fresh"):
            if collected and manifest is not None:
                project.store.forget(manifest)
            run_stage(project, key, name, run_id=run_id, log=log, show=show)
            restored.append(f"{name} of {key}")
    return restored


def record_hit(project: "World", plan: StagePlan, run_id: str) -> None:
    """Point at the artifact that is reused, and note it in the journal."""
    assert plan.manifest is not None
    if project.store.pointed(project.experiment.name, plan.iteration, plan.stage) != plan.manifest:
        project.store.point(project.experiment.name, plan.iteration, plan.manifest)
    project.store.journal(
        "hit", experiment=project.experiment.name, iteration=plan.iteration, stage=plan.stage, run_id=run_id,
        fingerprint=plan.fingerprint, reason=[f"computed by run {plan.manifest.run_id} for {plan.manifest.iteration}"],
    )  # fmt: skip


def reusable(project: "World", manifest: Manifest) -> bool:
    """Verify an artifact before its reuse; a damaged one is quarantined and False returned."""
    if manifest.collected:
        return True
    verify = STAGES[manifest.stage].verify
    try:
        project.store.verify(manifest)
        if verify is not None:
            verify(project, manifest)
    except CorruptArtifact as error:
        project.store.quarantine(manifest, str(error))
        return False
    return True


def commit(step: Step, seconds: float, cpu_seconds: float, tokens: int, run_id: str) -> Manifest:
    """Make what the step wrote the artifact of the fingerprint that was planned."""
    plan = step.plan
    assert plan.fingerprint is not None
    assert plan.facts is not None
    return step.project.store.commit(
        step.out,
        stage=plan.stage,
        fingerprint=plan.fingerprint,
        **plan.facts,
        facts=step.facts,
        work=step.work,
        row_tables=sorted(step.row_tables),
        iteration=plan.iteration,
        seconds=round(seconds, 3),
        cpu_seconds=round(cpu_seconds, 3),
        row_seconds={kind: round(spent, 3) for kind, spent in step.row_seconds.items()},
        tokens=tokens,
        run_id=run_id,
        created=now(),
        not_repeatable=not_repeatable(plan.facts["settings"]),
        engine=ENGINE_VERSION,
    )


def describe(work: dict[str, Any]) -> str:
    """(answers: 12 computed, 40 reused; steps: 9), or nothing for no work."""
    parts = [
        f"{kind}: {n}" if isinstance(n, int) else f"{kind}: {n['computed']} computed, {n['reused']} reused"
        for kind, n in sorted(work.items(), key=lambda item: isinstance(item[1], int))
        if n
    ]
    return f" ({'; '.join(parts).replace('_', ' ')})" if parts else ""
