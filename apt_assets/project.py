"""One project: an experiment, its folders, its store, and the world outside the store by content.

Everything a run writes lies below $APT_HOME (default: the repository): `.apt/` holds downloads and
the store, `landing/` the landed files, `dagster_home/` Dagster's own records. Only the store may lie elsewhere, where
$APT_STORE says.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import apt_assets.assets.order  # noqa: F401 - declares the stages
from apt_assets.landing.folder import LandingFolder
from apt_assets.landing.names import is_corrections
from apt_assets.promotion import LoopPlanner
from apt_assets.settings.experiment import REPOSITORY, Experiment, UsageError
from apt_assets.settings.iterations import BASE
from apt_assets.settings.reader import expanded, find_experiment, find_home, find_store, load_experiment
from apt_assets.world.code import CodeDigests, source_digests
from apt_assets.world.execution import MODEL, Executions
from apt_assets.world.model_checks import ModelChecks
from apt_assets.world.models import Models
from apt_assets.world.tasks import Tasks
from resources.retrieval.vector_folder import VectorFolder
from resources.store.digest import digest_file, digest_json
from resources.store.file_digests import FileDigests
from resources.store.kinds import RowKind
from resources.store.local import LocalStore
from resources.store.manifest import Manifest
from resources.store.store import Store

# The code this process runs: a file edited later is not what it has imported.
SOURCES_AT_START = source_digests(REPOSITORY)


@dataclass
class Project:
    experiment: Experiment
    home: Path
    experiment_file: Path | None = None
    experiment_digest: str | None = None
    forced: set[tuple[str, str]] = field(default_factory=set)  # (iteration, stage) to compute although it may be fresh
    fetch: bool = True  # whether a model that is not on this machine may be downloaded

    @classmethod
    def open(cls, experiment: Path | None = None, *, home: Path | None = None, fetch: bool = True) -> "Project":
        """The project of this process; see `find_experiment` and `find_home`. Raises UsageError."""
        path = find_experiment(experiment)
        return cls(load_experiment(path), find_home(home), path, digest_of(path), fetch=fetch)

    # -- folders ---------------------------------------------------------------------------------

    @property
    def cache(self) -> Path:
        return self.home / ".apt" / "cache"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster_home"

    @property
    def landing(self) -> Path:
        return self.home / expanded(self.experiment.data.landing or "landing", "data.landing")

    @cached_property
    def store(self) -> Store:
        if (shared := find_store()) is not None:
            from resources.retrieval.shared_vectors import open_store  # here: it loads obstore

            return open_store(*shared, self.home / ".apt" / "shared")
        return LocalStore(self.home / ".apt" / "store", partial(VectorFolder, digests=self._digests.files))

    @cached_property
    def _digests(self) -> FileDigests:
        return FileDigests(self.home / ".apt" / "digests.json")

    def artifact(self, manifest: Manifest) -> Path:
        """Folder of an artifact for someone to look at, verified. Raises UsageError if gc removed its
        files, CorruptArtifact if they are damaged."""
        if manifest.collected and not self.store.complete(manifest):
            raise UsageError(
                f"gc removed the files of {manifest.stage} of iteration {manifest.iteration} "
                "(its scores and verdict are kept; `apt-assets gc --keep N` keeps all of the last N iterations)"
            )
        return self.store.verify(manifest)

    # -- what lies outside the store, by content (engine.world.World) ------------------------------

    @cached_property
    def models(self) -> Models:
        return Models(self.experiment, self.home, self.cache, self._digests, self.fetch)

    @cached_property
    def model_checks(self) -> ModelChecks:
        return ModelChecks(self.experiment, self.models)

    @cached_property
    def executions(self) -> Executions:
        return Executions(self.experiment, self.models, self.home / ".apt" / "executions.json", self.code)

    @cached_property
    def tasks(self) -> Tasks:
        return Tasks(self.experiment, self.cache / "general", self._digests)

    @cached_property
    def landing_folder(self) -> LandingFolder:
        return LandingFolder(self.landing, self._digests, self._reader)

    def identity(self, name: str) -> str:
        """Digest of what stages read from outside the store; asks the files anew at every call."""
        if name in MODEL:
            return self.executions.identity(name)
        return self.tasks.identity() if name == "benchmark_tasks" else self.models.identity(name)

    def find_out(self, names: Iterable[str]) -> list[str]:
        """Find out those of these identities that take a trial; a line for each, for people. Raises UsageError."""
        return self.executions.find_out(names)

    def outside(self, name: str) -> Any:
        """What an identity stands for: the folder of a model, or None; of initial_adapter with the digests of its
        files; of benchmark_tasks the Tasks; of execution how the base model is run. Raises UsageError if it is not on
        this machine, or cannot be run here."""
        if name in MODEL:
            return self.executions.outside(name)
        if name == "initial_adapter":
            folder = self.models.initial_adapter
            return None if folder is None else (folder, self.models.adapter_digests(folder))
        return self.tasks if name == "benchmark_tasks" else getattr(self.models, name)

    def memory_of(self, kind: RowKind) -> int | None:
        """Bytes that a process needs which computes rows of this kind, its libraries included; None: not known."""
        from apt_assets.rows.memory import LIBRARIES, Needs

        needs = Needs(self.experiment, self.models, self.landing_folder)
        found = needs.of([kind.memory] if kind.memory else [])
        return max((need.peak + LIBRARIES[needs.held.device] for need in found), default=None)

    def check(self) -> None:
        """Raise UsageError if what computes cannot be used as the experiment says: a model, this machine, or rows that
        are longer than a model reads. What was looked at once is not looked at again until it changes."""
        self.model_checks.all()
        from apt_assets.rows.room import check_lengths  # here: it loads polars

        check_lengths(self.experiment, self.models, self.landing_folder)

    def code(self, start: str) -> dict[str, str]:
        """Module -> digest of the code of the module `start` and what it imports, as the files are now."""
        return self._code.closure(start)

    def code_changed(self, start: str, planned: dict[str, str]) -> str | None:
        """The module that is not what this process runs, or not what was planned; None if all is as it was."""
        self._code.refresh()
        now = self._code.closure(start)
        for file in self._code.files(start):
            if self._code.sources[file] != SOURCES_AT_START.get(file):
                return f"{file} (start this process anew)"
        return next((n for n in sorted(now.keys() | planned.keys()) if now.get(n) != planned.get(n)), None)

    @cached_property
    def _code(self) -> CodeDigests:
        return CodeDigests(REPOSITORY, self.home / ".apt" / "code.json")

    def _reader(self) -> str:
        return digest_json(self.code("apt_assets.landing.records"))

    # -- what has landed ---------------------------------------------------------------------------

    def landed(self) -> list[str]:
        """Names of the files now in the landing folder that count, sorted."""
        return self.landing_folder.names()

    def usable_rows(self, name: str) -> int:
        """How many rows of a landed file can be used; 0: it gives an iteration nothing new."""
        return self.landing_folder.usable_rows(name)

    def landing_files(self, iteration: str, known: dict[str, str] | None = None) -> dict[str, str]:
        """File name -> digest of its rows for the iteration's snapshot; all present files if it has none yet.

        known: digests of files that were looked up at this moment already, as a planner does for many
        iterations; it is added to.
        """
        known = {} if known is None else known
        names = None if iteration == BASE else self.store.snapshot(self.experiment.name, iteration)
        names = self.landed() if names is None else names
        if new := [name for name in names if name not in known]:
            known |= self.landing_folder.versions(new)
        return {name: known[name] for name in names}

    def without_files(self) -> dict[str, list[str]]:
        """Opened iteration -> the files that it uses, of which none has stayed, where others are there."""
        landed = {name for name in self.landed() if not is_corrections(name)}
        found = {}
        for key in self.store.iterations(self.experiment.name) if landed else ():
            names = self.store.snapshot(self.experiment.name, key) or []
            rows = [name for name in names if not is_corrections(name)]
            if rows and landed.isdisjoint(rows):
                found[key] = rows
        return found

    # -- plans -------------------------------------------------------------------------------------

    def planner(self) -> LoopPlanner:
        """A planner over the state of now; take a new one after anything has changed."""
        self._code.refresh()
        return LoopPlanner(self.experiment, self.store, self, self.forced)

    def open_iteration(self, iteration: str, *, anew: bool = False) -> None:
        """Fix which landed files an iteration uses, if that is not fixed yet or is to be fixed anew."""
        name = self.experiment.name
        with self.store.locks.take(f"open-{name}"):
            self.store.restore_snapshots(name)
            if anew or self.store.snapshot(name, iteration) is None:
                self.store.take_snapshot(name, iteration, [file for file in self.landed() if self.usable_rows(file)])

    def changed_since_start(self) -> str | None:
        """The source or experiment file that is not what this process loaded; None if all are."""
        if self.experiment_file is not None and digest_of(self.experiment_file) != self.experiment_digest:
            return self.experiment_file.name
        self._code.refresh()
        return next((f for f, d in self._code.sources.items() if d != SOURCES_AT_START.get(f)), None)


def digest_of(path: Path) -> str | None:
    return digest_file(path) if path.is_file() else None
