"""What a stage may see: the inputs and settings it declared, and nothing else.

A stage that reads what it does not declare would be reused after that changed, so such a read is an
error, raised the first time the stage runs.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.engine.stage import STAGES, Stage
from apt_assets.settings.experiment import Section
from apt_assets.settings.iterations import ADAPTER_PARTS, BASE
from resources.store.manifest import Manifest
from resources.store.rows import RowTable

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.plan import Planner, StagePlan
    from apt_assets.project import Project


class UndeclaredRead(Exception):
    """A stage reads an input or setting that its declaration leaves out; the message names both."""


class Settings:
    """The declared part of an experiment: `settings.policy.dtype` as in the experiment itself."""

    def __init__(self, stage: Stage, value: Any, path: str = ""):
        self._stage, self._value, self._path = stage, value, path

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}" if self._path else name
        value = getattr(self._value, name)
        if path in self._stage.settings:
            return value
        if isinstance(value, Section) and any(s.startswith(f"{path}.") for s in self._stage.settings):
            return Settings(self._stage, value, path)
        raise UndeclaredRead(f"{self._stage.name} reads the setting {path}, which it does not declare")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: its folder, and its identity, which is the content of its two files."""

    folder: Path
    digest: dict[str, str]


@dataclass
class View:
    """The declared inputs of one stage of one iteration, as the plan found them."""

    project: "Project"
    plan: "StagePlan"
    planner: "Planner"
    row_tables: list[str] = field(default_factory=list)

    @property
    def stage(self) -> Stage:
        return STAGES[self.plan.stage]

    @cached_property
    def settings(self) -> Any:
        return Settings(self.stage, self.project.experiment)

    @property
    def iteration(self) -> str:
        self._declared("iteration")
        return self.plan.iteration

    def identity(self, name: str) -> str:
        """Digest of what lies outside the store; the base model's also through `policy`."""
        if not (name == "base_model" and "policy" in self.stage.inputs) and name not in self.stage.identities:
            raise UndeclaredRead(f"{self.stage.name} uses {name}, which it does not declare")
        return self.project.identity(name)

    def outside(self, name: str) -> Any:
        """What an identity stands for: the folder of a model, or None; of benchmark_tasks the Tasks."""
        self.identity(name)
        return self.project.outside(name)

    def library_versions(self, *names: str) -> dict[str, str]:
        """Versions of these libraries, and of the optional ones that the settings choose."""
        return {**self.stage.library_versions(names), **self.stage.chosen_versions(self.project.experiment)}

    def base_model(self) -> Path:
        """Folder of the base model. Raises UsageError if it cannot be used as set on this machine."""
        return self.outside("base_model")

    def landed(self) -> list[Path]:
        """The landed files of the iteration's snapshot, or of now for what is not partitioned."""
        self._declared("landing_files" if self.stage.partitioned else "landing_folder")
        files = self.project.landing_files(self.plan.iteration)
        return [self.project.landing / name for name, digest in files.items() if digest != "withdrawn"]

    def manifest(self, stage: str, iteration: str | None = None) -> Manifest:
        """The present manifest of a fresh stage, of this iteration or of the one given."""
        key = iteration or (self.plan.iteration if STAGES[stage].partitioned else BASE)
        manifest = self.planner.stage(key, stage).manifest
        assert manifest is not None, f"{stage} of {key} was fresh when the step began"
        return manifest

    def artifact(self, stage: str, file: str | None = None) -> Path:
        """Folder of an input's artifact, or one file of it. Raises CorruptArtifact."""
        self._declared(stage, *([f"{stage}/{file}"] if file else []))
        folder = self._open(self.manifest(stage))
        return folder / file if file else folder

    def read(self, stage: str, file: str | None = None) -> "pl.DataFrame":
        """A table of an input, checked against its schema; default file: the stage's name."""
        from resources.store.tables import read_table

        return read_table(self.artifact(stage, f"{file or stage}.parquet"))

    def reference_items(self) -> tuple["pl.DataFrame", str]:
        """(domain items of what the gate compares with, its iteration): the promoted adapter's or base's."""
        from resources.store.tables import read_table

        self._declared("reference_scores")
        stage, iteration = self.planner.reference(self.plan.iteration)
        return read_table(self._open(self.manifest(stage, iteration)) / "domain_items.parquet"), iteration

    def previous_adapter(self) -> Adapter | None:
        """The adapter this iteration starts from; None: the base model itself."""
        self._declared("previous_adapter", "policy")
        earlier = self.planner.promoted_before(self.plan.iteration)
        return self._initial_adapter() if earlier is None else self._adapter(earlier)

    def initial_adapter(self) -> Adapter | None:
        """The adapter the loop starts from; None: the base model itself."""
        self.identity("initial_adapter")
        return self._initial_adapter()

    def new_adapter(self) -> Adapter:
        """The adapter this iteration trained."""
        for file in ADAPTER_PARTS:
            self._declared("adapter_checkpoint", f"adapter_checkpoint/{file}")
        return self._adapter(self.plan.iteration)

    def code(self, *starts: str) -> dict[str, str]:
        """Digests of the code of these modules, and of what they import."""
        return {name: digest for start in starts for name, digest in self.project.code(start).items()}

    def row_table(self, kind: str, context: dict[str, Any]) -> RowTable:
        """The rows of `kind` that were computed under `context`."""
        table = self.project.store.rows(kind, context)
        name = f"{kind}/{table.digest}"
        if name not in self.row_tables:
            self.row_tables.append(name)
        return table

    def _initial_adapter(self) -> Adapter | None:
        folder = self.project.models.initial_adapter
        return None if folder is None else Adapter(folder, self.project.models.adapter_digests(folder))

    def _adapter(self, iteration: str) -> Adapter:
        manifest = self.manifest("adapter_checkpoint", iteration)
        return Adapter(self._open(manifest), {name: manifest.files[name] for name in ADAPTER_PARTS})

    def _open(self, manifest: Manifest) -> Path:
        return self.project.store.open(manifest)

    def _declared(self, *names: str) -> None:
        if not any(name in self.stage.inputs for name in names):
            raise UndeclaredRead(f"{self.stage.name} reads {' or '.join(names)}, which it does not declare")
