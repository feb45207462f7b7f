"""Processes of one thread each beside this one, for work that falls into independent tasks.

They are started when parts first come, keep whatever was loaded for the next one, and end with this process, even
if it is killed: each waits for the end of a pipe that nobody writes to. Results come back as they are ready, to the one
process that keeps them. The pool itself is the standard library's. Ctrl-C does not reach the workers.
"""

import multiprocessing
import os
import pickle
import platform
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from resources.threads import set_threads

Job = Callable[[Any], Any]  # of a part of the work
Results = Generator[tuple[int, Any]]

UNDER_WAY = 2  # tasks that each worker has at a time: the next one is there when it ends one


class WorkerLost(RuntimeError):
    """A worker ended before its task did; the message says what may have ended it."""


class Workers:
    """So many processes. Not to be used any more after `stop`."""

    def __init__(self, number: int):
        # Not a fork: torch's threads do not live on in one.
        context = multiprocessing.get_context("spawn")
        self.number, self._spent = number, dict[str, float]()
        reading, self._held = context.Pipe(duplex=False)
        self._executor = ProcessPoolExecutor(number, context, initializer=begin, initargs=(reading,))

    @property
    def cpu_seconds(self) -> float:
        """Processor time that the tasks so far took, with what they loaded."""
        return sum(self._spent.values())

    def each(self, job: Job, parts: Sequence[Any]) -> Results:
        """(position, what `job` makes of it) of each part as it is ready. All of them can be sent. Raises what the
        first part that fails raises, and WorkerLost."""
        # As bytes: a worker that cannot read what it is sent would die of it, and this is read inside.
        sent_job, waiting, under_way = pickle.dumps(job), iter(enumerate(parts)), dict[Future[Any], int]()
        try:
            while True:
                while len(under_way) < UNDER_WAY * self.number and (part := next(waiting, None)):
                    with interrupts_kept_back():
                        under_way[self._executor.submit(timed, sent_job, pickle.dumps(part[1]))] = part[0]
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    position = under_way.pop(future)
                    result, process, self._spent[process] = future.result()
                    yield position, result
        except BrokenProcessPool:
            raise WorkerLost(
                f"one of {self.number} processes that compute rows was ended from outside, perhaps for want of memory: "
                "what was computed by then is kept, and the next run goes on from there; with policy.threads: 1 there "
                "is one process only"
            ) from None

    def stop(self) -> None:
        """End the workers, whatever they are doing."""
        self._held.close()
        self._executor.shutdown(cancel_futures=True)


_workers: Workers | None = None
_spent_before = 0.0  # by workers that have ended


def running() -> int:
    """How many workers there are."""
    return 0 if _workers is None else _workers.number


def each(number: int, job: Job, parts: Sequence[Any]) -> Results:
    """As `Workers.each`, by those that are running or else by so many new ones. They live on for what comes next, but
    not if this is not run to its end."""
    global _workers
    if _workers is None:
        _workers = Workers(number)
    done = False
    try:
        yield from _workers.each(job, parts)
        done = True
    finally:
        if not done:
            stop()


def stop() -> None:
    """End the workers, if there are any, and free what they hold."""
    global _workers, _spent_before
    if _workers is not None:
        _spent_before += _workers.cpu_seconds
        _workers.stop()
        _workers = None


def cpu_seconds() -> float:
    """Processor time of all workers of this process so far."""
    return _spent_before + (0.0 if _workers is None else _workers.cpu_seconds)


@contextmanager
def interrupts_kept_back() -> Iterator[None]:
    """A process that is started in here never gets Ctrl-C, which a terminal sends to all; this one gets it later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- in a worker ----------------------------------------------------------------------------------------------


def begin(parent: Connection) -> None:
    set_threads(1)  # before torch is loaded, which asks once
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def end_with(parent: Connection) -> None:
    """End this process once nobody holds the other end of the pipe."""
    with suppress(EOFError, OSError):
        parent.recv_bytes()
    os._exit(0)


def timed(job: bytes, part: bytes) -> tuple[Any, str, float]:
    """(result, a name of this process, processor seconds that it has taken by now)."""
    return pickle.loads(job)(pickle.loads(part)), *spent()


def spent() -> tuple[str, float]:
    """(a name of this process, processor seconds that it has taken by now)."""
    return f"{platform.node()} {os.getpid()}", time.process_time()
