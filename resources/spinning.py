"""How threads of torch wait for each other on a CPU: spinning on quiet cores, asleep where another program wants one.

torch's wheels compute with GNU's OpenMP, whose threads spin for a millisecond before they sleep. On quiet cores small
products are twice as fast by that. Where another program wants a core, a thread that spins keeps others from it, and a
training step takes three times as long (`python -m benchmarks.busy`). OpenMP spins for next to nothing while it has
more threads than there are cores (libgomp's manual, GOMP_SPINCOUNT), and it counts those that have nothing to do. So
while our threads have to wait for cores, some that do nothing are kept. No result depends on it: which thread computes
what stays as it is.

How long threads waited is told by Linux (the kernel's Documentation/scheduler/sched-stats), also in a container.
"""

import ctypes
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

PROC = Path("/proc/self")
LOOK_SECONDS = 1.0
# Waits for a core, of all threads together, in seconds a second: from here on threads sleep; below it they spin again.
BUSY, QUIET = 0.2, 0.05


@cache
def watch() -> None:
    """Look every LOOK_SECONDS, as long as this process lives, at how its threads should wait."""
    threading.Thread(target=look_on, name="spinning", daemon=True).start()


def look_on() -> None:
    before, at, idle = waited(), time.monotonic(), None
    while True:
        time.sleep(LOOK_SECONDS)
        now, then = waited(), at
        at = time.monotonic()
        share = sum(seconds - before.get(thread, 0.0) for thread, seconds in now.items()) / (at - then)
        before = now
        if idle is None and share > BUSY:
            idle = Idle.begin()
        elif idle is not None and share < QUIET:
            idle.end()
            idle = None


def waited(proc: Path = PROC) -> dict[str, float]:
    """The seconds that each thread of this process was ready to run and had no core, by its id; {} where it is not
    told."""
    found = {}
    for folder in proc.glob("task/*"):
        try:
            found[folder.name] = int((folder / "schedstat").read_text().split()[1]) / 1e9  # ran, waited, times: in ns
        except (OSError, IndexError, ValueError):  # it has ended; a kernel that does not count
            continue
    return found


class Idle:
    """More threads of OpenMP than there are cores, asleep."""

    @classmethod
    def begin(cls) -> "Idle | None":
        """None where torch does not compute with GNU's OpenMP."""
        library = gomp()
        return None if library is None else cls(library)

    def __init__(self, library: Any) -> None:
        self._over = threading.Event()
        # OpenMP keeps the threads of a region for the thread that began it, as long as that lives.
        threading.Thread(target=self._keep, args=[library], name="idle", daemon=True).start()

    def _keep(self, library: Any) -> None:
        nothing = ctypes.cast(library.omp_get_num_procs, ctypes.c_void_p)
        library.GOMP_parallel(nothing, None, ctypes.c_uint(library.omp_get_num_procs() + 1), ctypes.c_uint(0))
        self._over.wait()

    def end(self) -> None:
        self._over.set()


def gomp() -> Any:
    """The functions of GNU's OpenMP with which torch computes here, of which another library may have brought a second
    copy; None where torch is not loaded, or computes with something else."""
    torch = sys.modules.get("torch")
    try:
        # A name is looked for in what the library is linked to as well.
        library = ctypes.CDLL(str(Path(str(torch.__file__)).parent / "lib" / "libtorch_cpu.so")) if torch else None
        return library if hasattr(library, "GOMP_parallel") else None
    except OSError:
        return None
