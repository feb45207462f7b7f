"""`apt-assets ui`: Dagster's own web server and daemon over the project."""

import errno
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from apt_assets.engine.display import Display
from apt_assets.loop.next_run import following
from apt_assets.orchestration.instance import Dagster
from apt_assets.project import Project
from apt_assets.settings.experiment import REPOSITORY, UsageError

HOST = "127.0.0.1"


def serve(project: Project, port: int, display: Display, *, watch: bool) -> NoReturn:
    """Become `dagster dev` on HOST:port. Raises UsageError if nothing can listen there: Dagster would go on without
    its web server."""
    require_free(port)
    Dagster(project, display).settle(following(project, project.planner()))
    require_free(port)  # by now it may not be
    os.environ["APT_EXPERIMENT"] = str(project.experiment_file)
    os.environ["APT_WATCH"] = "1" if watch else "0"
    # Each of Dagster's many threads that settles otherwise keeps memory of its own: 5 MB a thread, until all have.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    display.line(f"Dagster at http://{HOST}:{port} (Ctrl-C ends it); asset graph: http://{HOST}:{port}/asset-groups")
    program = str(Path(sys.executable).parent / "dagster")
    options = ["--host", HOST, "--port", str(port), "--workspace", str(REPOSITORY / "workspace.yaml")]
    os.execv(program, [program, "dev", *options])


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
