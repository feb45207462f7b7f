"""Locks between processes, by name; a lock is free again when its holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol

DAGSTER = "dagster-instance"  # held while Dagster's event log is brought in line with the store
GC = "gc"
RUN = "run-"  # and its id: held by the process of a run
IN_USE = "in-use"  # shared by whoever computes something; gc takes it for itself
KEPT: dict[Path, dict[str, IO[str]]] = {}  # folder -> what `keep` took in this process


class Locks(Protocol):
    """The locks of one store, between all the processes that use it."""

    def take(self, name: str) -> AbstractContextManager[None]:
        """One holder at a time; others wait. While GC takes all (`all_idle`), only GC and DAGSTER are given."""
        ...

    def keep(self, name: str) -> None:
        """Hold a lock until this process ends or keeps another one of the same store."""
        ...

    def taken(self, name: str) -> bool:
        """Whether some process holds the lock."""
        ...

    def let_go(self, name: str) -> bool:
        """Whether some process had the lock, as far as that is known, and none has it now."""
        ...

    def all_idle(self) -> AbstractContextManager[None]:
        """Keep others from taking any lock but GC and DAGSTER. Raises RuntimeError if one is held: a run is
        going on."""
        ...


class FileLocks:
    """Each lock a file of one folder; the kernel lets go of it when the holder dies."""

    def __init__(self, folder: Path):
        self._folder = folder

    @contextmanager
    def take(self, name: str) -> Iterator[None]:
        with ExitStack() as held:
            if name not in (GC, DAGSTER):
                held.enter_context(self._take(IN_USE, fcntl.LOCK_SH))
            held.enter_context(self._take(name, fcntl.LOCK_EX))
            yield

    def keep(self, name: str) -> None:
        kept = KEPT.get(self._folder, {})
        if name not in kept:
            taken = {name: self._take(name, fcntl.LOCK_EX)}
            taken[IN_USE] = kept.pop(IN_USE) if IN_USE in kept else self._take(IN_USE, fcntl.LOCK_SH)
            for file in kept.values():
                file.close()
            KEPT[self._folder] = taken

    def taken(self, name: str) -> bool:
        path = self._folder / name
        if not path.exists():
            return False
        with path.open("w") as file:
            return not is_free(file)

    def let_go(self, name: str) -> bool:
        return (self._folder / name).exists() and not self.taken(name)

    @contextmanager
    def all_idle(self) -> Iterator[None]:
        """One lock stands for all: there is one for each stage of each iteration, more than a process may
        open files. The files of locks are removed, as far as nobody waits for them."""
        try:
            idle = self._take(IN_USE, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy = next((path.name for path in self._files() if self.taken(path.name)), "a stage")
            raise RuntimeError(f"a run is going on ({busy} is being computed): try again when it has ended") from None
        with idle:
            for path in self._files():
                with path.open("w") as file:
                    if is_free(file):
                        path.unlink()
            yield

    def _files(self) -> list[Path]:
        """Of the locks that `all_idle` stands for."""
        return sorted(path for path in self._folder.glob("*") if path.name not in (GC, DAGSTER, IN_USE))

    def _take(self, name: str, how: int) -> IO[str]:
        """The open file of a lock that this process has now. Raises BlockingIOError with LOCK_NB in `how`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / name
        while True:
            file = path.open("w")
            try:
                fcntl.flock(file, how)
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()  # removed by gc while this process waited: the next to come would lock another file


def is_free(file: IO[str]) -> bool:
    """Take a lock if nobody holds it; False if someone does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
