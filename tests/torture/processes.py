"""Child processes that may be killed, forked from a parent that only imported.

A start of Python with torch and Dagster takes seconds; a fork takes none. That is safe as long as the
parent has run nothing: polars, torch and LanceDB start threads, which a fork leaves behind with their locks.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.waiting import within


def import_all() -> None:
    """Import what the loop needs, without starting a thread. LanceDB starts one on import: children import it."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import dagster  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import sentence_transformers  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
    import trl  # noqa: F401

    import apt_assets.definitions
    import apt_assets.orchestration.run
    import apt_assets.orchestration.sensors  # noqa: F401
    import resources.training.trainer  # noqa: F401


def child(work: Callable[[], None], log: Path) -> int:
    """Fork a process that does `work` with its output in `log`; returns its id. An error ends it with 1."""
    sys.stdout.flush()
    sys.stderr.flush()
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(number: int, seconds: float) -> int | None:
    """How a child ended: its exit code, or minus the signal; None: it hung for `seconds` and was killed."""

    def end() -> tuple[int, int] | None:
        found, status = os.waitpid(number, os.WNOHANG)
        return (found, status) if found else None

    if (how := within(seconds, end)) is not None:
        return os.waitstatus_to_exitcode(how[1])
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return None


def die() -> None:
    """End this process as the power cut does: no handler, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def last_lines(log: Path, count: int = 3) -> str:
    return " / ".join(log.read_text(errors="replace").strip().splitlines()[-count:])
