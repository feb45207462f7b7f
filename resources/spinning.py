"""How threads of torch wait for each other on a CPU: spinning on quiet cores, asleep where another program wants one.

torch's wheels compute with GNU's OpenMP, whose threads spin for 300,000 turns before they sleep. On quiet cores small
products are twice as fast by that. Where another program wants a core, a thread that spins keeps others from it, and a
training step takes three times as long (docs/lab-log.md, 2026-11-30). OpenMP spins for 100 turns only while it has more
threads than there are cores (libgomp's manual, GOMP_SPINCOUNT), and it counts those that have nothing to do. So while
our threads have to wait for cores, some that do nothing are kept. No result depends on it: which thread computes what
stays as it is.

How long threads ran and waited is told by Linux (the kernel's Documentation/scheduler/sched-stats), in a container too.
"""

import ctypes
import sys
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PROC = Path("/proc/self")
LOOK_SECONDS = 0.25
# What threads that want a core wait for one, as a share of that time: from here on they sleep, below it they may spin.
BUSY, QUIET = 0.1, 0.03
QUIET_LOOKS = 8  # in a row until they spin again
LEAST = 0.05  # seconds, of all threads, that tell anything

Times = dict[str, tuple[float, float]]  # of each thread: how long it ran, and how long it waited for a core, in seconds


@cache
def watch() -> None:
    """Look every LOOK_SECONDS, as long as this process lives, at how its threads should wait."""
    threading.Thread(target=look_on, name="spinning", daemon=True).start()


def look_on() -> None:
    pace, over, before = Pace(), None, times()
    while True:
        time.sleep(LOOK_SECONDS)
        now = times()
        pace.look(before, now)
        before = now
        if pace.busy and over is None and (library := gomp()):
            over = keep_idle(library)
            if over is None:
                return
        elif over is not None and not pace.busy:
            over.set()
            over = None


@dataclass
class Pace:
    """Whether others want the cores, by one look after another."""

    busy: bool = False
    quiet_looks: int = 0

    def look(self, before: Times, now: Times) -> None:
        ran, waited = (
            sum(seconds[kind] - before.get(thread, (0.0, 0.0))[kind] for thread, seconds in now.items())
            for kind in (0, 1)
        )
        if ran + waited < LEAST:
            return  # nothing is computed
        share = waited / (ran + waited)
        self.quiet_looks = self.quiet_looks + 1 if share < QUIET else 0
        self.busy = share > BUSY or (self.busy and self.quiet_looks < QUIET_LOOKS)


def times(proc: Path = PROC) -> Times:
    """Of this process's threads, by their ids; {} where it is not told."""
    found = {}
    try:
        for folder in (proc / "task").iterdir():
            try:
                ran, waited, _ = (folder / "schedstat").read_text().split()  # in ns, and how often
                found[folder.name] = (int(ran) / 1e9, int(waited) / 1e9)
            except (OSError, ValueError):  # it has ended; a kernel that does not count
                continue
    except OSError:
        pass
    return found


def keep_idle(library: Any) -> threading.Event | None:
    """Keep more threads of OpenMP than there are cores, asleep, until what is returned is set; None if this process may
    not begin so many."""
    over, number = threading.Event(), library.omp_get_num_procs() + 1
    nothing = ctypes.cast(library.omp_get_num_procs, ctypes.c_void_p)

    def keep() -> None:
        # OpenMP keeps the threads of a region for the thread that began it, as long as that lives.
        library.GOMP_parallel(nothing, None, ctypes.c_uint(number), ctypes.c_uint(0))
        over.wait()

    if not may_begin(number):
        return None
    threading.Thread(target=keep, name="idle", daemon=True).start()
    return over


def may_begin(number: int) -> bool:
    """Whether so many threads can be begun. Where one cannot, Python says so, and OpenMP ends the process."""
    over, begun = threading.Event(), []
    try:
        for _ in range(number):
            begun.append(threading.Thread(target=over.wait, daemon=True))
            begun[-1].start()
    except RuntimeError:
        begun.pop()
        return False
    finally:
        over.set()
        for thread in begun:
            thread.join()
    return True


def gomp() -> Any:
    """The functions of GNU's OpenMP with which torch computes here, of which another library may have brought a second
    copy; None where torch is not loaded, or has no such functions."""
    torch = sys.modules.get("torch")
    try:
        # A name is looked for in what the library is linked to as well.
        library = ctypes.CDLL(str(Path(str(torch.__file__)).parent / "lib" / "libtorch_cpu.so")) if torch else None
        return library if hasattr(library, "GOMP_parallel") else None
    except OSError:
        return None
