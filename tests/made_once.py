"""What takes long to make is made once, by whichever process of the tests asks first."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOM = 4 * 2**30  # bytes: several times what all tests leave


def in_memory() -> str | None:
    """A folder in memory with room for what the tests write, if there is one: a loop of the tiny models spends a
    third of its time on waiting for a disk, of which no test wants to know."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > ROOM else None


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name`, which `make` filled once for all processes of xdist: to be read, not changed. Where `make`
    fails, the next one tries anew."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / f"once-{name}", base / f"once-{name}.done"
    with (base / f"once-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
