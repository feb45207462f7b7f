"""What a stage may see: the inputs and settings it declared, and nothing else (engine/scope.py)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.engine.scope import RowScope, Scope, UndeclaredRead
from apt_assets.engine.stage import SOURCES, STAGES, Stage
from resources.store.kinds import RowKind
from resources.store.manifest import Manifest
from resources.store.rows import RowTable

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.plan import Planner, StagePlan
    from apt_assets.engine.world import World


class View(Scope):
    """The declared inputs of one stage of one iteration, as the plan found them.

    row_tables: of the rows that it read or computed.
    """

    def __init__(self, project: "World", plan: "StagePlan", planner: "Planner"):
        self.project, self.plan, self.planner, self.stage = project, plan, planner, STAGES[plan.stage]
        super().__init__(project, self.stage, identities_of(self.stage))
        self.row_tables: list[str] = []

    @property
    def iteration(self) -> str:
        self.declared("iteration")
        return self.plan.iteration

    def landed(self) -> list[Path]:
        """The landed files of the iteration's snapshot, or of now for what is not partitioned."""
        self.declared("landing_files" if self.stage.partitioned else "landing_folder")
        files = self.project.landing_files(self.plan.iteration)
        return [self.project.landing / name for name, digest in files.items() if digest != "withdrawn"]

    def producer(self, given: str) -> tuple[str, str] | None:
        """(iteration, stage) that a source is a result of; None: it comes from outside the store."""
        self.declared(given)
        return self.planner.producer(self.plan.iteration, given)

    def manifest(self, given: str) -> Manifest:
        """The present manifest of an input that is declared as a whole."""
        self.declared(given)
        return self._manifest(given)

    def files(self, given: str) -> dict[str, str]:
        """File -> sha256 of an input, of those files that are declared."""
        found = self._manifest(given).files
        return {name: digest for name, digest in found.items() if {given, f"{given}/{name}"} & set(self.stage.inputs)}

    def artifact(self, given: str, file: str | None = None) -> Path:
        """Folder of an input's artifact, or one file of it. Raises CorruptArtifact."""
        self.declared(given, *([f"{given}/{file}"] if file else []))
        folder = self._open(self._manifest(given))
        return folder / file if file else folder

    def read(self, given: str, file: str | None = None) -> "pl.DataFrame":
        """A table of an input, checked against its schema; default file: the stage's name."""
        from resources.store.tables import read_table

        return read_table(self.artifact(given, f"{file or given}.parquet"))

    def rows(self, kind: RowKind, **given: Any) -> RowTable:
        """The rows of a kind as everything is now that decides them. Raises UndeclaredRead if the stage does not
        declare what the kind does."""
        self._declares(kind)
        table = self.project.store.rows(kind.table, self.scope(kind, **given).context())
        name = f"{kind.table}/{table.digest}"
        if name not in self.row_tables:
            self.row_tables.append(name)
        return table

    def scope(self, kind: RowKind, **given: Any) -> RowScope:
        """What computes rows of a kind may see."""
        return RowScope(self.project, kind, given, self.tell)

    def tell(self, line: str) -> None:
        """A line for people; who only looks has none."""

    def _declares(self, kind: RowKind) -> None:
        stage = self.stage
        lacking = [path for path in kind.settings if not any(covers(own, path) for own in stage.settings)]
        lacking += [name for name in kind.identities if name not in self._identities]
        lacking += [name for name in kind.libraries if name not in stage.libraries]
        if lacking:
            raise UndeclaredRead(f"{stage.name} uses {kind.name}, but does not declare {', '.join(lacking)}")

    def declared(self, *names: str) -> None:
        """Raise UndeclaredRead unless one of these is an input."""
        if not any(name in self.stage.inputs for name in names):
            raise UndeclaredRead(f"{self.stage.name} reads {' or '.join(names)}, which it does not declare")

    def _manifest(self, given: str) -> Manifest:
        manifest = self.planner.produced(self.plan.iteration, given)
        assert manifest is not None, f"{given} comes from the store, and was fresh when the step began"
        return manifest

    def _open(self, manifest: Manifest) -> Path:
        return self.project.store.open(manifest)


def identities_of(stage: Stage) -> tuple[str, ...]:
    """Its own, those that its inputs pass on, and those that its sources stand for."""
    found = list(stage.identities)
    for given in stage.producers():
        found += STAGES[given].passes_on if given in STAGES else SOURCES[given].stands_for
    return tuple(found)


def covers(declared: str, path: str) -> bool:
    """Whether a declared setting, or section, holds the setting at `path`."""
    return path == declared or path.startswith(f"{declared}.")
