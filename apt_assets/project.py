"""One project: an experiment, its folders, its store, and the world outside the store by content.

Everything a run writes lies below $APT_HOME (default: the repository): `.apt/` holds downloads and
the store, `landing/` the landed files, `dagster_home/` Dagster's own records.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from apt_assets.engine.plan import Planner
from apt_assets.engine.stages import BASE
from apt_assets.experiment import REPOSITORY, Experiment, UsageError, find_experiment, load_experiment
from resources.artifact_store import ArtifactStore
from resources.digest import FileDigests, digest_json

LANDING_FORMATS = (".jsonl", ".csv", ".parquet")


@dataclass
class Project:
    experiment: Experiment
    home: Path
    experiment_file: Path | None = None

    @classmethod
    def open(cls, experiment: Path | None = None) -> "Project":
        """The project of this process; see `find_experiment`. Raises UsageError."""
        path = find_experiment(experiment)
        home = Path(os.environ.get("APT_HOME") or REPOSITORY).resolve()
        return cls(load_experiment(path), home, path)

    # -- folders ---------------------------------------------------------------------------------

    @property
    def cache(self) -> Path:
        return self.home / ".apt" / "cache"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster_home"

    @property
    def landing(self) -> Path:
        return self.home / (self.experiment.data.landing or "landing")

    @property
    def lancedb(self) -> Path:
        return self.store.root / "lancedb"

    @cached_property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.home / ".apt" / "store")

    @cached_property
    def _digests(self) -> FileDigests:
        return FileDigests(self.home / ".apt" / "digests.json")

    # -- models and tasks --------------------------------------------------------------------------

    @cached_property
    def model(self) -> Path:
        """Folder of the base model. Raises UsageError if it is not on this machine."""
        return self._model_folder(self.experiment.policy.model, "policy")

    @cached_property
    def encoder(self) -> Path:
        """Folder of the sentence encoder. Raises UsageError if it is not on this machine."""
        return self._model_folder(self.experiment.retrieval.encoder, "encoder")

    @property
    def tasks(self) -> Path:
        """Folder of the lm-eval tasks, relative to the repository. Raises UsageError if missing."""
        folder = REPOSITORY / self.experiment.benchmarks.folder
        if not folder.is_dir():
            raise UsageError(f"benchmarks.folder: no such folder: {folder}")
        return folder

    @property
    def task_data(self) -> Path:
        return self.cache / "general"

    def _model_folder(self, named: str, embedded: str) -> Path:
        if named == "embedded":
            folder = self.cache / embedded
            if not folder.is_dir():
                from resources.embedded import prepare

                prepare(self.cache)
            return folder
        folder = Path(named).expanduser()
        if not folder.is_absolute():
            folder = self.home / folder
        if folder.is_dir():
            return folder
        from huggingface_hub import snapshot_download

        try:
            kept = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
            return Path(snapshot_download(named, allow_patterns=kept))
        except Exception as error:
            raise UsageError(f"{named!r} is neither a folder ({folder}) nor a model of the hub: {error}") from None

    # -- the world, by content (engine.plan.World) -------------------------------------------------

    def identity(self, name: str) -> str:
        """Digest of what stages read from outside the store; asks the files anew at every call."""
        match name:
            case "model":
                folders = [self.model]
            case "encoder":
                folders = [self.encoder]
            case _:
                folders = [self.tasks, *([self.task_data] if self.task_data.is_dir() else [])]
        return digest_json([self._digests.folder(folder) for folder in folders])

    def landed(self) -> list[str]:
        """Names of the files now in the landing folder, sorted."""
        if not self.landing.is_dir():
            return []
        files = sorted(path for path in self.landing.iterdir() if path.is_file())
        return [p.name for p in files if p.suffix in LANDING_FORMATS and not p.name.startswith(".")]

    def landing_files(self, iteration: str) -> dict[str, str]:
        """File name -> digest for the iteration's snapshot; all present files if it has none yet.

        A withdrawn file keeps its name with the digest "withdrawn".
        """
        names = None if iteration == BASE else self.store.snapshot(self.experiment.name, iteration)
        digests = {}
        for name in self.landed() if names is None else names:
            path = self.landing / name
            digests[name] = self._digests.file(path) if path.is_file() else "withdrawn"
        return digests

    # -- plans -------------------------------------------------------------------------------------

    def planner(self) -> Planner:
        """A planner over the state of now; take a new one after anything has changed."""
        return Planner(self.experiment, self.store, self)

    def open_iteration(self, iteration: str) -> None:
        """Fix which landed files an iteration uses, if that is not fixed yet."""
        if self.store.snapshot(self.experiment.name, iteration) is None:
            self.store.take_snapshot(self.experiment.name, iteration, self.landed())
