"""`apt-assets ui`: Dagster's own web server and daemon over the project."""

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from apt_assets.engine.display import Display
from apt_assets.loop.next_run import following
from apt_assets.orchestration.instance import Dagster
from apt_assets.project import Project
from apt_assets.report import terminal
from apt_assets.settings.experiment import REPOSITORY, UsageError

HOST = "127.0.0.1"
ENDING = threading.Event()
# `dg dev`, which Dagster names in place of `dagster dev`, calls the same function of dagster's: the command is in
# dagster-dg-cli, which brings seventeen packages more, of Dagster's cloud among others. So nobody is told.
SUPERSEDED = "ignore:Function `dev_command` is superseded"
PR_SET_PDEATHSIG = 1  # of Linux: the signal that a process gets when the one that started it ends
# Of a look that is made each minute and found nothing.
QUIET = (b"new runs for sensor: lost_runs", b"no run is lost")
PATIENCE = 10.0  # seconds that Dagster has to end its services


def serve(project: Project, port: int, display: Display, *, watch: bool) -> int:
    """Run `dagster dev` on HOST:port until Ctrl-C, SIGTERM or its own end, whose exit code is returned. Raises
    UsageError if nothing can listen there: Dagster would go on without its web server."""
    require_free(port)
    Dagster(project, display).settle(following(project, project.planner()))
    require_free(port)  # by now it may not be
    os.environ["APT_EXPERIMENT"] = str(project.experiment_file)
    os.environ["APT_WATCH"] = "1" if watch else "0"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), SUPERSEDED]))
    # Each of Dagster's many threads that settles otherwise keeps memory of its own: 5 MB a thread, until all have.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    display.line(f"Dagster at http://{HOST}:{port} (Ctrl-C ends it); asset graph: http://{HOST}:{port}/asset-groups")
    program = str(Path(sys.executable).parent / "dagster")
    options = ["--host", HOST, "--port", str(port), "--workspace", str(REPOSITORY / "workspace.yaml")]
    return passed_on([program, "dev", *options])


def passed_on(command: list[str]) -> int:
    """Run `command` and pass on what it says, but nothing of how it and its own processes end on Ctrl-C; none of them
    is left running."""
    signal.set_wakeup_fd(-1)  # nothing computes in this process, so that Ctrl-C cannot get lost
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    libc = ctypes.CDLL(None)
    # A group of its own: a terminal sends Ctrl-C to all processes of one, and each of these would tell of it at length.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
        # It ends when this process is killed, too: its sensors would go on training.
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
    ) as process:
        threading.Thread(target=relay, args=(process.stdout,), daemon=True).start()
        try:
            while process.poll() is None:
                time.sleep(0.2)  # and no wait without end: whichever thread gets a signal, it is seen to here
            return process.returncode
        finally:
            ENDING.set()
            try:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
            finally:  # a second Ctrl-C is in a hurry
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def relay(lines: IO[bytes]) -> None:
    """Print what another process says, until this one is interrupted."""
    for line in lines:
        if not ENDING.is_set() and not any(quiet in line for quiet in QUIET):
            terminal.say(line.decode(errors="replace").rstrip("\n"))


def require_free(port: int) -> None:
    """Raise UsageError if this process cannot listen on the port."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the web server does: not used a minute ago
        try:
            one.bind((HOST, port))
            one.listen()
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise UsageError(f"port {port} {reason}: name another with --port") from None
