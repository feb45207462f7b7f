"""What a stage's function works with while it computes."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.engine.plan import Planner, StagePlan
from apt_assets.engine.progress import Progress, Show, throttled
from apt_assets.engine.scope import RowScope
from apt_assets.engine.stage import SOURCES, STAGES
from apt_assets.engine.view import View
from resources.store.kinds import RowKind
from resources.store.manifest import CorruptArtifact, Manifest
from resources.store.rows import Batches, Filled, Value

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.world import World

Log = Callable[[str], None]
FILLING = "filling"  # an event: rows of a table are computed
RowCompute = Callable[[RowScope, list[int]], Batches[Any]]


class StageBlocked(Exception):
    """The stage cannot run now: an earlier iteration is not up to date, its gate refused, or
    something that the stage reads changed while it ran."""


class Step(View):
    """A view for the stage's function: inputs are verified, and it has a folder to write into.

    Nothing is kept, neither an artifact nor a row, once what the plan found outside the store has changed.

    out: the folder. log, show: for people. facts: counts and scores for people. work, row_seconds: what was done (see
    Manifest).
    anew: whether rows that are there are computed once more, too.
    """

    def __init__(
        self, project: "World", plan: StagePlan, planner: Planner, *, out: Path, log: Log, show: Show, anew: bool
    ):
        super().__init__(project, plan, planner)
        self.out, self.log, self.show, self.anew = out, log, show, anew
        self.facts: dict[str, Any] = {}
        self.work: dict[str, Any] = {}
        self.row_seconds: dict[str, float] = {}

    @property
    def where(self) -> dict[str, str]:
        """For the journal."""
        name = self.project.experiment.name
        return {"experiment": name, "iteration": self.plan.iteration, "stage": self.plan.stage}

    def check(self) -> None:
        """Raise StageBlocked if what the stage reads from outside the store is not what was planned.

        Artifacts in the store cannot change under a step: they are content-addressed and verified.
        """
        assert self.plan.facts is not None
        if changed := changed_outside(self.project, self.plan, self.planner):
            self.project.store.journal("abandoned", **self.where, reason=[f"{changed} changed while it ran"])
            raise StageBlocked(
                f"{self.plan.stage} of {self.plan.iteration}: {changed} changed while it ran; run it again"
            )

    def tell(self, line: str) -> None:
        """A line for people, under the stage's name."""
        self.log(f"{self.plan.stage} of {self.plan.iteration}: {line}")

    def fill(
        self, kind: RowKind, keys: Sequence[str], compute: RowCompute, what: str, unit: str, **given: Any
    ) -> Filled:
        """The rows of `keys`, kept or computed; each batch is kept at once. `compute` gets what the kind may see and
        the positions that are missing. given: see RowKind. what, unit: for people, who are shown how many are kept."""
        table, scope = self.rows(kind, **given), self.scope(kind, **given)

        def watched(missing: list[int]) -> Batches[Any]:
            # If the stage does not come to its end, gc knows what of it to leave.
            named = {"table": f"{table.kind}/{table.digest}", "fingerprint": self.plan.fingerprint}
            self.project.store.journal(FILLING, **self.where, **named)
            return self.shown(self.checked(compute(scope, missing)), len(missing), what, unit)

        started = time.monotonic()
        filled = table.fill(keys, watched, anew=self.anew)
        if filled.computed:
            spent = time.monotonic() - started
            self.row_seconds[table.kind] = self.row_seconds.get(table.kind, 0.0) + spent
        if filled.damaged:
            reason = [f"{filled.damaged} damaged lines of {table.kind}/{table.digest[:8]}.jsonl were computed again"]
            self.project.store.journal("quarantined", **self.where, reason=reason)
        self.count(table.kind, reused=filled.reused, computed=filled.computed)
        return filled

    def checked(self, batches: Batches[Value]) -> Batches[Value]:
        """The same batches, as long as nothing outside has changed. Raises StageBlocked."""
        with closing(batches):
            for batch in batches:
                self.check()
                yield batch

    def shown(self, batches: Batches[Value], total: int, what: str, unit: str) -> Batches[Value]:
        """The same batches, each counted for people when the next is asked for, so once it is kept."""
        progress, done = self.progress(what, total, unit), 0
        with closing(batches):
            for positions, values in batches:
                yield positions, values
                done += len(positions)
                progress(done)

    def count(self, kind: str, *, reused: int, computed: int) -> None:
        """Add rows to what this stage did."""
        done = self.work.setdefault(kind, {"reused": 0, "computed": 0})
        done["reused"] += reused
        done["computed"] += computed

    def write(self, table: "pl.DataFrame", file: str | None = None) -> None:
        """Write a table of this stage after checking it against its schema."""
        from resources.store.tables import write_table

        write_table(table, self.out / f"{file or self.plan.stage}.parquet")

    @property
    def unfinished(self) -> Path:
        """A folder for what a long computation keeps while it goes on, by what decides its result; it is removed
        when the artifact is committed, and by gc unless the stage has yet to come to its end."""
        assert self.plan.fingerprint is not None
        return self.project.store.unfinished(self.plan.fingerprint)

    def progress(self, what: str, total: int, unit: str) -> Callable[..., None]:
        """A callback (done, of=total) that shows how far a part of the stage is, ten times a second at most."""
        started, show = time.monotonic(), throttled(self.show, 0.1)

        def report(done: int, of: int = total) -> None:
            seconds = time.monotonic() - started
            show(Progress(self.plan.iteration, self.plan.stage, what, unit, done, of, seconds))

        return report

    def _open(self, manifest: Manifest) -> Path:
        """Folder of an artifact, verified. A damaged one is quarantined: CorruptArtifact."""
        try:
            return self.project.store.verify(manifest)
        except CorruptArtifact as error:
            self.project.store.quarantine(manifest, str(error))
            raise


def changed_outside(world: "World", plan: StagePlan, planner: Planner) -> str | None:
    """What of the planned facts from outside the store is not so any more; None if all is."""
    assert plan.facts is not None
    stage = STAGES[plan.stage]
    planned = dict(plan.facts["identities"])
    for given in stage.producers():
        if given in SOURCES:
            outside = SOURCES[given].outside
            if outside is not None and outside(world, planner, plan.iteration) != plan.inputs[given]:
                return given
        else:
            manifest = planner.produced(plan.iteration, given)
            planned |= {name: manifest.identities[name] for name in STAGES[given].passes_on if manifest is not None}
    changed = (name for name, digest in planned.items() if world.identity(name) != digest)
    return next(changed, None) or world.code_changed(stage.code, plan.facts["code"])
