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
from functools import cache
from pathlib import Path
from typing import Any

PROC = Path("/proc/self")
LOOK_SECONDS = 0.25
BUSY = 0.2  # of the time in which a thread wants a core, it waits for one: then others want them too
LEAST = 0.05  # seconds of that in a look, that tell anything
ASLEEP_SECONDS = 10.0  # until they spin again, for a look: asleep, threads wait for quiet cores too

Times = dict[str, tuple[float, float]]  # of each thread: how long it ran, and how long it waited for a core, in seconds


@cache
def watch() -> None:
    """Look every LOOK_SECONDS, as long as this process lives, at how its threads should wait."""
    threading.Thread(target=look_on, name="spinning", daemon=True).start()


def look_on() -> None:
    while True:
        before = times()
        time.sleep(LOOK_SECONDS)
        if others_want_cores(before, times()) and (library := gomp()):
            if (over := keep_idle(library)) is None:
                return
            time.sleep(ASLEEP_SECONDS)
            over.set()


def others_want_cores(before: Times, now: Times) -> bool:
    """Whether a thread waited for much of the time between two looks."""
    for thread, (ran, waited) in now.items():
        ran_before, waited_before = before.get(thread, (0.0, 0.0))
        wanted = ran - ran_before + waited - waited_before
        if wanted >= LEAST and waited - waited_before > BUSY * wanted:
            return True
    return False


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
