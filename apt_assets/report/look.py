"""The tables of a project as they were last computed, for people: what the report and Dagster's pages look at.

A stage that is stale or was never computed shows as such, and a table that cannot be read leaves a
note: neither stops the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from apt_assets.drawing.svg import SERIES
from apt_assets.engine.stage import STAGES
from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.settings.experiment import Experiment, UsageError
from apt_assets.settings.iterations import BASE
from resources.store.manifest import CorruptArtifact, Manifest

if TYPE_CHECKING:
    import polars as pl


@dataclass
class ProjectLook:
    """A look at one project (engine.stage.Look).

    keys: the iterations whose tables are looked at. shown: the one of them, or BASE, that stands for the present.
    history: the iterations whose scores are told.
    notes: what could not be read, and why. removed: (iteration, stage) of what gc removed, which is no fault.
    """

    project: Project
    planner: LoopPlanner
    keys: Sequence[str]
    shown: str
    history: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)
    removed: set[tuple[str, str]] = field(default_factory=set)

    @property
    def experiment(self) -> Experiment:
        return self.project.experiment

    def manifest(self, key: str, stage: str) -> Manifest | None:
        """None also where an old artifact is there but what the gate or the loop decided shut it out."""
        plan = self.planner.stage(key, stage)
        return None if plan.status in ("refused", "held", "stopped") else plan.manifest

    def table(self, key: str, stage: str, file: str | None = None) -> "pl.DataFrame | None":
        from resources.store.tables import TableError, read_table

        if (manifest := self.manifest(key, stage)) is None:
            return None
        if manifest.collected and not self.project.store.complete(manifest):
            self.removed.add((key, stage))
            return None
        try:
            return read_table(self.project.artifact(manifest) / f"{file or stage}.parquet")
        except (UsageError, CorruptArtifact, TableError, OSError) as error:
            self.note(f"{stage} of {key}: {error}")
            return None

    def all_tables(self, stage: str, file: str | None = None) -> "dict[str, pl.DataFrame]":
        """By iteration; those that are not there are left out."""
        found = {key: self.table(key, stage, file) for key in self.keys}
        return {key: table for key, table in found.items() if table is not None}

    def tables(self, stage: str, file: str | None = None) -> "dict[str, pl.DataFrame]":
        """By iteration; of more than a plot holds the first and the last ones."""
        tables = self.all_tables(stage, file)
        names = list(tables)
        return {name: tables[name] for name in (names if len(names) <= SERIES else [names[0], *names[1 - SERIES :]])}

    def scored(self, key: str, file: str) -> "pl.DataFrame | None":
        return self.table(key, self.planner.scored_by(key), file)

    def scores(self) -> list[dict[str, Any]]:
        manifests = {key: self.manifest(key, self.planner.scored_by(key)) for key in [BASE, *self.history]}
        return [{"iteration": key, "scores": m.facts} for key, m in manifests.items() if m is not None]

    def verdicts(self) -> dict[str, dict[str, Any]]:
        found = {key: self.planner.verdict(key) for key in self.keys[-SERIES:]}
        return {key: verdict for key, verdict in found.items() if verdict is not None}

    def labels(self) -> list[str]:
        """The normalised labels if the task is closed, else none: as the assessor has it, unless most
        questions have a label of their own."""
        return self._labels

    @cached_property
    def _labels(self) -> list[str]:
        from resources.assessors.labels import labels_of, normalise_answer

        declared = self.experiment.assessor.labels
        if declared != "auto":
            return [normalise_answer(label) for label in declared]
        last = [key for key in self.keys if self.manifest(key, "domain_dataset")][-1:]
        train = self.table(last[0], "domain_dataset", "train") if last else None
        if train is None:
            return []
        labels = labels_of(train["answer"])
        return labels if 2 * len(labels) <= train.height else []

    def plots(self) -> dict[str, Any]:
        """The data of every plot that a stage declares, by its name; those with nothing to draw are left out."""
        declared = {plot.name: plot for stage in STAGES.values() for plot in stage.plots}
        found = {name: plot.data(self) for name, plot in declared.items()}
        return {name: data for name, data in found.items() if data}

    def all_notes(self) -> list[str]:
        """The notes, and one on all that gc removed."""
        keys = sorted({key for key, _ in self.removed})
        stages = ", ".join(sorted({stage for _, stage in self.removed}))
        span = f"{len(keys)} iterations, {keys[0]} to {keys[-1]}" if len(keys) > 1 else "".join(keys)
        gone = f"gc removed rows of {span}: {stages}; scores and verdicts are kept"
        return [*self.notes, *([gone] if keys else [])]

    def note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
