"""Locks between processes, by name. The kernel lets go of a lock when its holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

DAGSTER = "dagster-instance"  # held while Dagster's event log is brought in line with the store
GC = "gc"
IN_USE = "in-use"  # shared by whoever computes something; gc takes it for itself
RUN = "run-"  # and its id: held by the process of a run
KEPT: dict[Path, dict[str, IO[str]]] = {}  # folder -> what this process keeps of it


class Locks:
    """The locks of one store, each a file of its folder."""

    def __init__(self, folder: Path):
        self._folder = folder

    @contextmanager
    def take(self, name: str) -> Iterator[None]:
        """One holder at a time; others wait."""
        with ExitStack() as held:
            if name not in (GC, DAGSTER):
                held.enter_context(self._open(IN_USE, fcntl.LOCK_SH))
            held.enter_context(self._open(name, fcntl.LOCK_EX))
            yield

    def keep(self, name: str) -> None:
        """Hold a lock until this process ends or keeps another one."""
        kept = KEPT.setdefault(self._folder, {})
        if name not in kept:
            new = {name: self._open(name, fcntl.LOCK_EX)}
            new[IN_USE] = kept.pop(IN_USE) if IN_USE in kept else self._open(IN_USE, fcntl.LOCK_SH)
            for file in kept.values():
                file.close()
            KEPT[self._folder] = new

    def taken(self, name: str) -> bool:
        """Whether some process holds the lock."""
        path = self._folder / name
        if not path.exists():
            return False
        with path.open("w") as file:
            return not is_free(file)

    @contextmanager
    def all_idle(self) -> Iterator[None]:
        """Keep every stage from beginning. Raises RuntimeError if a run is going on.

        Files of locks that nobody holds are removed: there is one for each stage of each iteration.
        """
        ours = (GC, DAGSTER, IN_USE)
        try:
            idle = self._open(IN_USE, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            names = sorted(path.name for path in self._folder.glob("*") if path.name not in ours)
            busy = next((name for name in names if self.taken(name)), "a stage")
            raise RuntimeError(f"a run is going on ({busy} is being computed): try again when it has ended") from None
        with idle:
            for path in self._folder.glob("*"):
                if path.name not in ours:
                    with path.open("w") as file, suppress(FileNotFoundError):
                        if is_free(file):
                            path.unlink()
            yield

    def _open(self, name: str, how: int) -> IO[str]:
        """The open file of a lock that this process now has. Raises BlockingIOError with LOCK_NB in `how`."""
        path = self._folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            file = path.open("w")
            try:
                fcntl.flock(file, how)
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()  # gc removed it while we waited: whoever comes next would lock another file


def is_free(file: IO[str]) -> bool:
    """Take a lock if nobody holds it; False if someone does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
