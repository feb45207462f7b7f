"""The three tools behind one interface: lay out, run, read what came out, start over elsewhere.

A tool owns a folder:

    source/   its copy of the source tree, with world/ (models, tasks, data) in it; edits go here
    home/     what apt-assets writes ($APT_HOME); the rivals write source/out and source/.dvc
    logs/     work counted and text printed, per run
"""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.incremental.pipeline import pipeline
from benchmarks.incremental.world import REPOSITORY

DVC = REPOSITORY / ".venv-dvc" / "bin" / "dvc"
STATE = ("out", ".dvc", ".dvcignore", "dvc.yaml", "dvc.lock", "__pycache__")
OUTPUTS = ("eval_predictions", "preference_pairs", "adapter", "scores")


@dataclass(frozen=True)
class Run:
    """One run of a tool, or several at once: seconds by the clock and of the processor, exit codes, and work logs."""

    seconds: float
    processor: float
    exits: list[int]
    logs: list[Path]


class Tool:
    """settings: sections of an experiment. files: per iteration, names of the data files it uses."""

    name = ""
    accepted = (0,)

    def __init__(self, folder: Path, settings: dict[str, Any], files: list[list[str]]):
        self.folder = folder
        self.source, self.logs = folder / "source", folder / "logs"
        self.world = self.source / "world"
        self.settings, self.files = copy.deepcopy(settings), copy.deepcopy(files)

    def command(self) -> list[str]:
        """Write the configuration and return what a user would type."""
        raise NotImplementedError

    def read(self, iteration: str, output: str) -> str | None:
        """Digest of one output of `base`, `1`, `2`, ...; None if it is not there."""
        raise NotImplementedError

    def land(self, path: Path) -> str:
        """Put a data file where the tool reads it; returns its name there."""
        shutil.copyfile(path, self.world / "data" / path.name)
        return path.name

    def run(self, label: str, at_once: int = 1) -> Run:
        """Run the tool as it is now, `at_once` times at the same time, and wait for all."""
        self.logs.mkdir(parents=True, exist_ok=True)
        command = self.command()
        started, before = time.monotonic(), os.times()
        runs = [self.start(command, f"{label}-{number}") for number in range(1, at_once + 1)]
        exits = [process.wait() for process, _ in runs]
        seconds, after = time.monotonic() - started, os.times()
        processor = after.children_user - before.children_user + after.children_system - before.children_system
        return Run(seconds, processor, exits, [log for _, log in runs])

    def start(self, command: list[str], label: str) -> tuple[subprocess.Popen, Path]:
        log = self.logs / f"{label}.jsonl"
        log.write_text("")
        with (self.logs / f"{label}.txt").open("w") as text:
            environment = {**self.environment(), "APT_WORK_LOG": str(log)}
            process = subprocess.Popen(command, cwd=self.source, env=environment, stdout=text, stderr=text)
        return process, log

    def cold(self, label: str) -> list[Run]:
        """Run from nothing until every iteration is there."""
        return [self.run(label)]

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("APT_", "DVC_", "DAGSTER_"))}
        return {**kept, "PYTHONPATH": str(self.source), "HF_HUB_OFFLINE": "1"}

    def outputs(self) -> dict[str, str | None]:
        """`iteration/output` -> digest, of everything the comparison looks at."""
        keys = [("base", "scores"), *((str(n), o) for n in range(1, len(self.files) + 1) for o in OUTPUTS)]
        return {f"{iteration}/{output}": self.read(iteration, output) for iteration, output in keys}

    def twin(self, folder: Path, kind: "type[Tool] | None" = None) -> "Tool":
        """The same inputs and nothing computed, in a new folder; as another tool if `kind` says so."""
        shutil.copytree(self.source, folder / "source", ignore=shutil.ignore_patterns(*STATE))
        return (kind or type(self))(folder, self.settings, self.files)

    @property
    def reference(self) -> "type[Tool]":
        """The tool whose run in an empty folder says what is right."""
        return type(self)

    def inputs(self) -> str:
        """Digest of all that a run reads: source tree, world, settings, files per iteration."""
        total = hashlib.sha256(json.dumps([self.settings, self.files], sort_keys=True).encode())
        for path in sorted(self.source.rglob("*")):
            relative = path.relative_to(self.source)
            if path.is_file() and not set(relative.parts) & set(STATE):
                total.update(f"{relative}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        return total.hexdigest()


class Ours(Tool):
    """apt-assets, by its command line. Exit code 1 is a refused gate."""

    name = "ours"
    accepted = (0, 1)

    def command(self) -> list[str]:
        self._write_experiment()
        module = [sys.executable, "-m", "benchmarks.incremental.counted", "apt_assets.cli"]
        iterations = str(len(self.files))
        return [*module, "run", "--iterations", iterations, "--json", "-e", str(self._experiment)]

    def land(self, path: Path) -> str:
        self._write_experiment()
        return json.loads(self._cli("land", str(path), "--json"))[0]["landed"]

    def cold(self, label: str) -> list[Run]:
        # An iteration uses what has landed when it is opened: land in the order the user did.
        data, aside = self.world / "data", self.folder / "aside"
        aside.mkdir()
        for name in {name for names in self.files for name in names}:
            (data / name).replace(aside / name)
        runs, every = [], self.files
        for number, names in enumerate(every, start=1):
            for name in names:
                if (aside / name).exists():
                    (aside / name).replace(data / name)
            if number == len(every) or every[number] != names:
                self.files = every[:number]
                runs.append(self.run(f"{label}-to-{number}"))
        self.files = every
        return runs

    def read(self, iteration: str, output: str) -> str | None:
        """From the store, as `apt-assets show` and `export` read it, without a process for each table."""
        from apt_assets.project import Project
        from apt_assets.settings.experiment import Experiment
        from apt_assets.settings.iterations import key_of
        from resources.store.tables import read_table

        store = Project(Experiment(name="race"), self.folder / "home").store
        key = iteration if iteration == "base" else key_of(int(iteration))
        stage = {"adapter": "adapter_checkpoint", "scores": "base_scores" if key == "base" else "benchmark_scores"}
        manifest = store.pointed("race", key, stage.get(output, output))
        if manifest is None:
            return None
        folder = store.verify(manifest)
        if output == "adapter":
            return digest_file(folder / "adapter_model.safetensors")
        tables = ("domain_items", "general_items") if output == "scores" else (output,)
        return digest_rows([read_table(folder / f"{table}.parquet").to_dicts() for table in tables])

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "APT_HOME": str(self.folder / "home")}

    @property
    def _experiment(self) -> Path:
        return self.folder / "experiment.yaml"

    def _write_experiment(self) -> None:
        content = copy.deepcopy(self.settings) | {"name": "race", "mining": {"questions": None}}
        content["data"]["landing"] = str(self.world / "data")
        content["policy"]["model"] = str(self.world / "policy")
        content["retrieval"]["encoder"] = str(self.world / "encoder")
        content["benchmarks"]["folder"] = str(self.world / "tasks")
        self._experiment.write_text(yaml.safe_dump(content))

    def _cli(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "apt_assets.cli", *arguments, "-e", str(self._experiment)]
        result = subprocess.run(
            command, cwd=self.source, env=self.environment(), capture_output=True, text=True, check=True
        )
        return result.stdout


class Rival(Tool):
    """What the plain script and DVC share: the configuration, and Parquet files below source/out."""

    def config(self) -> dict[str, Any]:
        files = [[f"world/data/{name}" for name in names] for names in self.files]
        places = {"model": "world/policy", "encoder": "world/encoder", "tasks": "world/tasks"}
        return {**self.settings, **places, "files": files}

    def read(self, iteration: str, output: str) -> str | None:
        import polars as pl

        folder = self.source / "out" / (iteration if iteration == "base" else f"{int(iteration):04d}")
        try:
            if output == "adapter":
                return digest_file(folder / "adapter" / "adapter_model.safetensors")
            tables = ("domain_items", "general_items") if output == "scores" else (output,)
            return digest_rows([pl.read_parquet(folder / f"{table}.parquet").to_dicts() for table in tables])
        except FileNotFoundError:
            return None


class Plain(Rival):
    name = "plain"

    def command(self) -> list[str]:
        (self.source / "config.yaml").write_text(yaml.safe_dump(self.config()))
        module = [sys.executable, "-m", "benchmarks.incremental.counted", "benchmarks.incremental.plain"]
        return [*module, "config.yaml"]


class Dvc(Rival):
    name = "dvc"

    @property
    def reference(self) -> type[Tool]:
        # The same steps in one process: a quarter of the time of a process per stage.
        return Plain

    def command(self) -> list[str]:
        config = self.config()
        (self.source / "params.yaml").write_text(yaml.safe_dump(config))
        (self.source / "dvc.yaml").write_text(yaml.safe_dump(pipeline(config), sort_keys=False))
        if not (self.source / ".dvc").is_dir():
            for setup in (["init", "--no-scm"], ["config", "core.analytics", "false"]):
                subprocess.run([DVC, *setup], cwd=self.source, env=self.environment(), check=True, capture_output=True)
        return [str(DVC), "repro"]

    def environment(self) -> dict[str, str]:
        # Its state and settings outside a project would otherwise be shared with the user's.
        places = {f"DVC_{kind}_DIR": str(self.folder / "dvc") for kind in ("SITE_CACHE", "GLOBAL_CONFIG")}
        return {**super().environment(), **places, "DVC_NO_ANALYTICS": "1", "APT_PYTHON": sys.executable}


TOOLS: dict[str, Callable[..., Tool]] = {tool.name: tool for tool in (Ours, Plain, Dvc)}


def digest_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest_rows(tables: list[list[dict[str, Any]]]) -> str:
    """sha256 of tables as sets of rows; numbers rounded to 4 decimals."""
    lines = [sorted(json.dumps(rounded(row), sort_keys=True) for row in table) for table in tables]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    # + 0.0 makes -0.0 the same as 0.0.
    return {key: round(value, 4) + 0.0 if isinstance(value, float) else value for key, value in row.items()}
