"""Doing one stage: reuse the verified artifact of its fingerprint, or compute and commit it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from apt_assets.engine.plan import Planner, StagePlan
from apt_assets.engine.stages import BASE, STAGES
from resources.artifact_store import CorruptArtifact, Manifest, now
from resources.digest import digest_json

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.experiment import Experiment
    from apt_assets.project import Project

Log = Callable[[str], None]


class StageBlocked(Exception):
    """The stage cannot run now: an earlier iteration is not up to date, or its gate refused."""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: its artifact, and whether it was reused or computed (in `seconds`)."""

    status: Literal["hit", "computed"]
    manifest: Manifest
    seconds: float


@dataclass
class Step:
    """What a stage's function works with: verified inputs, settings, and a folder to write into."""

    project: "Project"
    iteration: str
    plan: StagePlan
    planner: Planner
    out: Path
    log: Log
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def experiment(self) -> "Experiment":
        return self.project.experiment

    def manifest(self, stage: str, iteration: str | None = None) -> Manifest:
        """The present manifest of a fresh stage, of this iteration or of the one given."""
        key = iteration or (self.iteration if STAGES[stage].partitioned else BASE)
        manifest = self.planner.stage(key, stage).manifest
        assert manifest is not None, f"{stage} of {key} was fresh when the step began"
        return manifest

    def artifact(self, stage: str, iteration: str | None = None) -> Path:
        """Folder of a fresh stage's artifact, verified. A damaged one is quarantined: CorruptArtifact."""
        manifest = self.manifest(stage, iteration)
        try:
            return self.project.store.verify(manifest)
        except CorruptArtifact as error:
            self.project.store.quarantine(manifest, str(error))
            raise

    def previous_adapter(self) -> Path | None:
        """Folder of the adapter this iteration starts from; None: the base model itself."""
        earlier = self.planner.promoted_before(self.iteration)
        return None if earlier is None else self.artifact("adapter_checkpoint", earlier)

    def read(self, stage: str, file: str | None = None, iteration: str | None = None) -> "pl.DataFrame":
        """A table of a fresh stage, checked against its schema; default file: the stage's name."""
        from schemas import read_table

        return read_table(self.artifact(stage, iteration) / f"{file or stage}.parquet")

    def write(self, table: "pl.DataFrame", file: str | None = None) -> None:
        """Write a table of this stage after checking it against its schema."""
        from schemas import write_table

        write_table(table, self.out / f"{file or self.plan.stage}.parquet")

    def progress(self, what: str, total: int, unit: str = "rows") -> Callable[..., None]:
        """A callback (done, of=total): logs the number done, rate and time left, at most every 5 s."""
        started = reported = time.monotonic()

        def report(done: int, of: int = total) -> None:
            nonlocal reported
            moment = time.monotonic()
            if done < of and moment - reported < 5:
                return
            reported = moment
            rate = done / max(moment - started, 1e-9)
            left = f"{(of - done) / rate:.0f} s left" if rate else "time left unknown"
            self.log(f"{what}: {done}/{of} {unit}, {rate:.1f} {unit}/s, {left}")

        return report


def run_stage(project: "Project", iteration: str, name: str, *, run_id: str, log: Log) -> Outcome:
    """Bring one stage of one iteration up to date.

    Raises StageBlocked if an input is not up to date, the gate refuses, or something the stage reads
    changed while it ran; whatever the stage's own function raises passes through. Nothing is committed
    then.
    """
    store = project.store
    where = {"iteration": iteration, "stage": name, "run_id": run_id}
    with store.lock(f"{project.experiment.name}-{iteration}-{name}"):
        planner = project.planner()
        plan = planner.stage(iteration, name)
        if plan.fingerprint is None:
            raise StageBlocked(f"{name} of {iteration} is {plan.status}: {'; '.join(plan.causes)}")
        if plan.status == "fresh" and plan.manifest is not None:
            started = time.monotonic()
            if reusable(project, plan.manifest):
                store.point(project.experiment.name, iteration, plan.manifest)
                seconds = time.monotonic() - started
                store.journal("hit", **where, fingerprint=plan.fingerprint)
                log(f"{name} of {iteration}: reused")
                return Outcome("hit", plan.manifest, seconds)
            planner = project.planner()
            plan = planner.stage(iteration, name)
        store.journal("miss", **where, fingerprint=plan.fingerprint, reason=list(plan.causes))
        log(f"{name} of {iteration}: computing ({'; '.join(plan.causes) or 'artifact was damaged'})")
        started = time.monotonic()
        with store.workspace() as folder:
            step = Step(project, iteration, plan, planner, folder, log)
            STAGES[name].compute(step)
            seconds = time.monotonic() - started
            if not unchanged(project, iteration, plan):
                raise StageBlocked(f"{name} of {iteration}: something it reads changed while it ran; run it again")
            manifest = commit(step, seconds, run_id)
        store.point(project.experiment.name, iteration, manifest)
        store.journal("computed", **where, fingerprint=plan.fingerprint, seconds=round(seconds, 3))
        log(f"{name} of {iteration}: done in {seconds:.1f} s")
        return Outcome("computed", manifest, seconds)


def unchanged(project: "Project", iteration: str, plan: StagePlan) -> bool:
    """Whether what the stage reads from outside the store is still what was planned.

    Artifacts in the store cannot change under a step: they are content-addressed and verified.
    """
    assert plan.facts is not None
    inputs = plan.facts["inputs"]
    landed = {"landing_files": iteration, "landed_now": BASE}
    return all(project.identity(name) == digest for name, digest in plan.facts["identities"].items()) and all(
        digest_json(project.landing_files(key)) == inputs[name] for name, key in landed.items() if name in inputs
    )


def reusable(project: "Project", manifest: Manifest) -> bool:
    """Verify an artifact before its reuse; a damaged one is quarantined and False returned."""
    try:
        folder = project.store.verify(manifest)
        if manifest.stage == "retrieval_index":
            from resources.retriever import verify_index

            verify_index(project.lancedb, folder, manifest.facts)
    except CorruptArtifact as error:
        if project.store.folder(manifest).exists():
            project.store.quarantine(manifest, str(error))
        return False
    return True


def commit(step: Step, seconds: float, run_id: str) -> Manifest:
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
        seconds=round(seconds, 3),
        run_id=run_id,
        created=now(),
    )
