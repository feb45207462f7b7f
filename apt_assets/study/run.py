"""Running a study: the cells that are wanted, some processes at a time, until none is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apt_assets.engine.display import Display
from apt_assets.engine.progress import Progress
from apt_assets.project import Project
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import BASE
from apt_assets.study.file import Cell, Run, Study
from apt_assets.study.measure import is_complete, measure, measure_scores
from apt_assets.study.wanted import Known, all_runs, wanted
from resources import yaml_file
from resources.store.digest import write_atomically
from resources.threads import threads


@dataclass
class Runner:
    """One study in one project's store. `out` is the folder of its results: a run's experiment file and log lie
    in out/runs. `found` is called with what is known after every run."""

    study: Study
    home: Path
    out: Path
    jobs: int
    display: Display
    found: Callable[[Known], Any]
    known: Known = field(default_factory=Known)
    threads: int = field(init=False)  # of each process, if its experiment says nothing else
    _running: dict[Run, subprocess.Popen] = field(default_factory=dict)
    _unfinished: set[Run] = field(default_factory=set)
    _started: float = field(default_factory=time.monotonic)
    _ran: int = 0

    def __post_init__(self) -> None:
        self.threads = threads(None, self.jobs)

    def run(self) -> Known:
        """Do what is not done yet, but for the arms that `refuse` noted. Runs that were finished before are only
        read. On Ctrl-C its processes are stopped: what they finished is kept."""
        try:
            while True:
                self.start()
                if not self._running:
                    return self.known
                self.wait()
        finally:
            for process in self._running.values():
                process.terminate()
            for process in self._running.values():
                process.wait()

    def refuse(self) -> None:
        """Note the arms that this machine cannot run. Raises UsageError if the control is one of them."""
        for domain in self.study.domains:
            for name, arm in self.study.file.arms.items():
                try:
                    self.project(Cell(domain, name, 0, self.study.file.seeds[0])).model_checks.all()
                except UsageError as error:
                    self.known.refused[domain, name] = str(error)
                if (domain, arm.starts_from) in self.known.refused:
                    self.known.refused[domain, name] = f"it starts from {arm.starts_from}, which does not run here"
        for (domain, name), reason in self.known.refused.items():
            self.display.line(f"{name} on {domain} does not run: {reason}")
            if name == self.study.file.control:
                raise UsageError(f"{self.study.path}: the control, {name}, does not run here on {domain}: {reason}")

    def read(self) -> list[Run]:
        """Note the outcome of every run that was finished before; returns those that could begin. A run is looked
        at once: nobody else finishes it."""
        while True:
            waiting = [run for run in wanted(self.study, self.known) if run not in self._running]
            new = next((run for run in waiting if run not in self._unfinished), None)
            if new is None:
                return waiting
            project = self.project(new)
            if not self.read_outcome(new, project):
                self._unfinished.add(new)

    def start(self) -> None:
        """Start runs while there are processes left."""
        for run in self.read()[: self.jobs - len(self._running)]:
            self.check_data(run, self.project(run))
            self.display.line(f"{run.label}: begins")
            self._running[run] = self.launch(run)

    def check_data(self, run: Run, project: Project) -> None:
        """Raise UsageError if what has landed is not what the study began with."""
        if landed_rows(project) != self.study.landed[run.domain]:
            raise UsageError(f"{run.domain}: the landed data changed since the study began: call it again")

    def launch(self, run: Run) -> subprocess.Popen:
        environment = {**os.environ, "APT_HOME": str(self.home), "OMP_NUM_THREADS": str(self.threads)}
        command = [sys.executable, "-m", "apt_assets.study.cell", str(self.file(run)), str(self.study.iterations(run))]
        with self.file(run).with_suffix(".log").open("w") as log:
            return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until one of the processes ends."""
        while not (ended := [run for run, process in self._running.items() if process.poll() is not None]):
            time.sleep(0.2)
        for run in ended:
            status = self._running.pop(run).returncode
            self._ran += 1
            project, log = self.project(run), self.file(run).with_suffix(".log")
            if status:
                self.fail(run, f"{why_ended(status, log)} ({log})")
            else:
                self.check_data(run, project)
                if not self.read_outcome(run, project):
                    self.fail(run, f"something that it reads changed while it ran: call the study again ({log})")
            self.found(self.known)

    def fail(self, run: Run, reason: str) -> None:
        self.known.failed[run] = reason
        self.display.line(f"{run.label}: failed: {reason}")

    def read_outcome(self, run: Run, project: Project) -> bool:
        """Note the outcome of a run; False if there is none: it is not up to date."""
        complete = is_complete(project, self.study.iterations(run))
        if complete:
            self.finish(run, project)
        return complete

    def finish(self, run: Run, project: Project) -> None:
        if isinstance(run, Cell):
            outcome = measure(project, run.adapter, self.study.iterations(run))
            says = f"validation {outcome['validation']:.1%}"
        else:
            outcome = measure_scores(project)
            says = f"test {outcome['test']:.1%}, general {outcome['general']:.1%}"
        self.known.outcomes[run] = outcome
        done, total = len(self.known.outcomes), all_runs(self.study, self.known)
        self.display.line(f"{run.label}: {says} ({done} of {total} runs{self.left(total - done)})")
        seconds = time.monotonic() - self._started
        self.display.progress(Progress("study", self.study.file.name, "runs", "runs", done, total, seconds))

    def left(self, runs: int) -> str:
        """How long the rest may take, by the runs of this process."""
        if not self._ran or not runs:
            return ""
        minutes = (time.monotonic() - self._started) / self._ran * runs / 60
        return f", about {minutes:.0f} min left"

    def project(self, run: Run) -> Project:
        """The run's project; its experiment file is written if it is not there as it should be."""
        path, content = self.file(run), self.study.content(run)
        text = f"# Written by apt-assets study, {self.study.path.name}: {run.label}\n"
        text += yaml_file.dump(content)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
        return Project(self.study.experiment(run), self.home, path)

    def file(self, run: Run) -> Path:
        return self.out / "runs" / f"{run.label}.yaml"


def why_ended(status: int, log: Path) -> str:
    """Why a process did not end well, by its exit status and the last line of what it said."""
    if status < 0:  # it was killed, and what it said last is no reason
        return f"killed by {signal.Signals(-status).name}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {status}"


def landed_rows(project: Project) -> dict[str, str]:
    """Landed file -> digest of its rows, of the files with usable rows."""
    return {name: digest for name, digest in project.landing_files(BASE).items() if project.usable_rows(name)}
