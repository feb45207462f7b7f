"""Locks between processes, by name. The kernel lets go of a lock when its holder dies."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

DAGSTER = "dagster-instance"  # held while Dagster's event log is brought in line with the store
GC = "gc"
RUN = "run-"  # and its id: held by the process of a run
KEPT: dict[Path, IO[str]] = {}  # what this process holds until it ends


class Locks:
    """The locks of one store, each a file of its folder."""

    def __init__(self, folder: Path):
        self._folder = folder

    @contextmanager
    def take(self, name: str) -> Iterator[None]:
        """One holder at a time; others wait."""
        with self._open(name) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def keep(self, name: str) -> None:
        """Hold a lock until this process ends; does nothing if it already does."""
        path = self._folder / name
        if path not in KEPT:
            KEPT[path] = self._open(name)
            fcntl.flock(KEPT[path], fcntl.LOCK_EX)

    def taken(self, name: str) -> bool:
        """Whether some process holds the lock."""
        if not (self._folder / name).exists():
            return False
        with self._open(name) as file:
            return not is_free(file)

    @contextmanager
    def all_idle(self) -> Iterator[None]:
        """Hold every lock but GC and DAGSTER. Raises RuntimeError if one is held: a run is going on.

        The files of runs' locks, of which there is one for each run, are removed.
        """
        with ExitStack() as held:
            for path in sorted(self._folder.glob("*")):
                if path.name in (GC, DAGSTER):
                    continue
                if not is_free(held.enter_context(path.open("w"))):
                    raise RuntimeError(
                        f"a run is going on ({path.name} is being computed): try again when it has ended"
                    )
                if path.name.startswith(RUN):
                    path.unlink()
            yield

    def _open(self, name: str) -> IO[str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        return (self._folder / name).open("w")


def is_free(file: IO[str]) -> bool:
    """Take a lock if nobody holds it; False if someone does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
