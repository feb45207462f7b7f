"""Sending while a run goes on: in a process of its own, so that no tracker can change a result, end a run or keep it
waiting for long.

The process is `apt-assets track`, and reads the store as that does. What it could not send, whoever calls that later
sends.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from apt_assets.project import Project
from apt_assets.tracking.outcome import outcomes
from apt_assets.tracking.sent import Sent
from apt_assets.tracking.trackers import TRACKERS

PATIENCE = 300.0  # seconds
DOWN: set[tuple[Path, str]] = set()  # (home, experiment) whose trackers failed in this process: it is told once


def send_beside(project: Project, tell: Callable[[str], None]) -> None:
    """Send what the experiment's trackers lack, if anything; `tell` gets a line for each run, and one on what failed,
    after which this process does not try again. Raises nothing that a tracker is the reason of."""
    where = (project.home, project.experiment.name)
    if not project.experiment.tracking or where in DOWN or is_up_to_date(project):
        return
    if project.experiment_file is None:  # the process that sends opens it anew
        DOWN.add(where)
        tell("not tracked, and the run goes on: an experiment that a program gives has no file for `apt-assets track`")
        return
    try:
        found = json.loads(answer_of(project))
        lines = [f"{name}: iteration {key}, {run}" for name, runs in found["sent"].items() for key, run in runs.items()]
        failed = [f"{name}: {reason}" for name, reason in found["failed"].items()]
    except (OSError, ValueError, TypeError, KeyError, subprocess.TimeoutExpired) as error:
        lines, failed = [], [str(error)]
    for line in lines:
        tell(line)
    if failed:
        DOWN.add(where)
        tell(f"not tracked, and the run goes on: {'; '.join(failed)} (`apt-assets track` sends what is missing)")


def is_up_to_date(project: Project) -> bool:
    found = outcomes(project, project.planner())
    return all(Sent.read(project, TRACKERS[name]).is_up_to_date(found) for name in project.experiment.tracking)


def answer_of(project: Project) -> str:
    """What `apt-assets track --json` prints. Raises ChildProcessError with its last words if it prints nothing, and
    TimeoutExpired after PATIENCE; none of its processes is left then."""
    command = [sys.executable, "-m", "apt_assets.cli", "track", "--json", "--experiment", str(project.experiment_file)]
    environment = {**os.environ, "APT_HOME": str(project.home)}
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,  # nobody is asked for a password
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
    ) as process:
        try:
            printed, said = process.communicate(timeout=PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if not printed.strip():
        raise ChildProcessError((said.strip().splitlines() or [f"exit code {process.returncode}"])[-1])
    return printed
