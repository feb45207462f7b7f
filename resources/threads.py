"""How many threads torch computes with on a CPU. torch reads their number from the environment when it is loaded, once.

torch counts the cores of the host. In a container that has fewer by a quota, so many threads are halted together for
most of each tenth of a second; here the quota counts.

The load of the machine decides no result: a training with another number of threads has other low bits. Rows that have
the same bits with any number get no more threads than there are free cores, since two threads that wait for each other
take several times as long where another program wants one of the cores (`python -m benchmarks.busy`). How they wait is
left to GNU's OpenMP: on no machine that we had was spinning for less long a gain (docs/lab-log.md, 2026-11-29).
"""

import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NUMBERS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")  # in the order in which torch asks
ROOT = Path("/")
LOOKS, APART = 5, 0.01  # at what else runs, and the seconds between two


def set_threads(wanted: int | None) -> None:
    """Let torch have `threads(wanted)` threads, in this process and those it starts."""
    number = threads(wanted)
    os.environ.pop("MKL_NUM_THREADS", None)  # torch would ask it first
    os.environ["OMP_NUM_THREADS"] = str(number)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(number)


def threads(wanted: int | None, processes: int = 1) -> int:
    """How many each of so many processes gets: `wanted`, else what the environment says, else its share of the cores.

    wanted: as the experiment says, `policy.threads`. torch with MKL takes no more than there are physical cores.
    """
    said = next((number for name in NUMBERS if (number := in_environment(name))), None)
    return wanted or said or max(1, cores() // processes)


def in_environment(name: str) -> int | None:
    """The number of threads that a variable asks for (of nested regions: the outermost); None if it names none."""
    first = os.environ.get(name, "").partition(",")[0].strip()
    return int(first) or None if first.isdecimal() else None


def cores(root: Path = ROOT) -> int:
    """The cores that this process may keep busy: those it is bound to, two hyperthreads of one counting as one, or
    fewer if it is in a container with a quota, which is rounded up. root: of the files that Linux tells it in."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    own = os.sched_getaffinity(0)
    physical = {text_of(root / f"sys/devices/system/cpu/cpu{one}/topology/thread_siblings_list") or one for one in own}
    return max(1, min([len(physical), *(math.ceil(quota) for quota in quotas(root))]))


def free_cores(root: Path = ROOT) -> int:
    """The cores on which nothing runs at the moment but this, which looks; 1 at least. Where this process has a part of
    the machine only, by what it is bound to or by a quota, others may have theirs: all of that part are free then."""
    there = os.cpu_count() or 1
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    if bound < there or any(quota < there for quota in quotas(root)):
        return cores(root)
    running = []
    for _ in range(LOOKS):
        load = text_of(root / "proc/loadavg").split()  # 0.50 0.40 0.30 2/123 4567: two of 123 threads run
        running.append(int(load[3].partition("/")[0]) if len(load) > 3 else 1)
        time.sleep(APART)
    others = max(int(statistics.median(running)) - 1, 0)
    return max(there - others, 1)


@contextmanager
def at_most(number: int) -> Iterator[None]:
    """torch computes with no more threads meanwhile."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(min(before, number))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def quotas(root: Path) -> Iterator[float]:
    """The processor seconds a second that each control group around this process allows, of those that limit it."""
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):  # of version 2; of version 1
            mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            inside = mount / group.lstrip("/")
            # In a container the group may be named as the host sees it, while its files lie at the mount itself.
            for folder in [inside, *inside.parents]:
                if folder.is_relative_to(mount) and (quota := quota_of(folder)):
                    yield quota


def quota_of(folder: Path) -> float | None:
    """Of one control group, by the files of version 2 or of version 1; None if it sets none."""
    both = text_of(folder / "cpu.max").split()
    quota, period = both if len(both) == 2 else (text_of(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    # No quota is "max" in version 2 and -1 in version 1.
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None


def text_of(path: Path) -> str:
    """ "" if there is no such file, or none that may be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
