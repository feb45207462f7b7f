"""How many threads torch computes with on a CPU. torch reads their number from the environment when it is loaded, once.

torch counts the cores of the host. In a container that has fewer by a quota, so many threads are halted together for
most of each tenth of a second; here the quota counts.

The load of the machine decides no result, so it does not decide their number either, by which a training has other low
bits: it decides how they wait for each other (resources/spinning.py).
"""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from resources import spinning

NUMBERS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")  # in the order in which torch asks
ROOT = Path("/")


def set_threads(wanted: int | None) -> None:
    """Let torch have `threads(wanted)` threads, in this process and those it starts; they wait as the load asks."""
    number = threads(wanted)
    os.environ.pop("MKL_NUM_THREADS", None)  # torch would ask it first
    os.environ["OMP_NUM_THREADS"] = str(number)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(number)
    if number > 1:
        spinning.watch()


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
