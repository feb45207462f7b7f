"""What a stage's function works with while it computes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.engine.plan import Planner, StagePlan
from apt_assets.engine.progress import Progress, Show, throttled
from apt_assets.engine.stage import STAGES
from apt_assets.engine.view import View
from apt_assets.settings.iterations import BASE
from resources.store.digest import digest_json
from resources.store.manifest import CorruptArtifact, Manifest
from resources.store.rows import Compute, Filled, RowTable

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.project import Project

Log = Callable[[str], None]


class StageBlocked(Exception):
    """The stage cannot run now: an earlier iteration is not up to date, its gate refused, or
    something that the stage reads changed while it ran."""


@dataclass
class Step(View):
    """A view for the stage's function: inputs are verified, and it has a folder to write into.

    Nothing is kept, neither an artifact nor a row, once what the plan found outside the store has changed.

    facts: counts and scores for people. work: what was done (see Manifest). loaded: models that
    several parts of a stage use.
    """

    out: Path = field(kw_only=True)
    log: Log = field(kw_only=True)
    show: Show = field(kw_only=True)
    facts: dict[str, Any] = field(default_factory=dict)
    work: dict[str, Any] = field(default_factory=dict)
    loaded: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise StageBlocked if what the stage reads from outside the store is not what was planned.

        Artifacts in the store cannot change under a step: they are content-addressed and verified.
        """
        assert self.plan.facts is not None
        if changed := changed_outside(self.project, self.plan, self.planner):
            where = {"iteration": self.plan.iteration, "stage": self.plan.stage}
            self.project.store.journal("abandoned", **where, reason=[f"{changed} changed while it ran"])
            raise StageBlocked(
                f"{self.plan.stage} of {self.plan.iteration}: {changed} changed while it ran; run it again"
            )

    def fill(
        self, table: RowTable, keys: Sequence[str], compute: Compute, shown: tuple[str, str] | None = None
    ) -> Filled:
        """The rows of `keys`, from the table or computed; each batch is kept at once.

        shown: (what, unit) to show how many are kept; None for a `compute` that shows more itself.
        """

        def guarded(missing: list[int], commit: Any) -> None:
            progress = self.progress(shown[0], len(missing), shown[1]) if shown else lambda done: None
            kept = 0

            def commit_if_unchanged(positions: Sequence[int], values: Sequence[Any]) -> None:
                nonlocal kept
                self.check()
                commit(positions, values)
                kept += len(positions)
                progress(kept)

            compute(missing, commit_if_unchanged)

        filled = table.fill(keys, guarded)
        if filled.damaged:
            where = {"iteration": self.plan.iteration, "stage": self.plan.stage}
            reason = [f"{filled.damaged} damaged lines of {table.kind}/{table.digest[:8]}.jsonl were computed again"]
            self.project.store.journal("quarantined", **where, reason=reason)
        self.count(table.kind, reused=filled.reused, computed=filled.computed)
        return filled

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
        when the artifact is committed, and by gc."""
        assert self.plan.fingerprint is not None
        return self.project.store.unfinished(self.plan.fingerprint)

    def progress(self, what: str, total: int, unit: str = "rows") -> Callable[..., None]:
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


def changed_outside(project: "Project", plan: StagePlan, planner: Planner) -> str | None:
    """What of the planned facts from outside the store is not so any more; None if all is."""
    assert plan.facts is not None
    for name, digest in plan.facts["identities"].items():
        if project.identity(name) != digest:
            return name
    for name, key in {"landing_files": plan.iteration, "landing_folder": BASE}.items():
        if name in plan.inputs and digest_json(project.landing_files(key)) != plan.inputs[name]:
            return name
    if "policy" in STAGES[plan.stage].inputs:
        policy = planner.stage(plan.iteration, "policy").manifest
        if policy is not None and policy.identities["base_model"] != project.identity("base_model"):
            return "base_model"
    if {"policy", "previous_adapter"} & set(STAGES[plan.stage].inputs) and (
        planner.promoted_before(plan.iteration) is None
        and planner.initial_adapter != project.identity("initial_adapter")
    ):
        return "initial_adapter"
    return project.code_changed(STAGES[plan.stage].code, plan.facts["code"])
