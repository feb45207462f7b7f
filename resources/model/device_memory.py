"""How much memory a device has left, asked without torch, so that a plan can tell what will not fit."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# (limit, usage, what of it is cached files that are given up when asked for) of cgroups v2 and v1.
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
SECONDS = 10


def free_memory(device: str) -> int | None:
    """Bytes that a process may still take: on a CPU of the machine and of the control groups that it is in, whichever
    has least; on a GPU of the one that is visible. None: it cannot be told."""
    return free_on_gpu() if device != "cpu" else min(free_on_cpu(), default=None)


def free_on_cpu() -> Iterator[int]:
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
        groups = OWN_CGROUP.read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from left_in(CGROUPS, path, V2)
        elif "memory" in controllers.split(","):
            yield from left_in(CGROUPS / "memory", path, V1)


def left_in(mounted: Path, path: str, names: tuple[str, str, str]) -> Iterator[int]:
    """What a control group, and those that it is in, leave."""
    limit_file, used_file, given_up = names
    folder = mounted / path.strip("/")
    # In a container a path may be the host's, of which only the innermost folder is there: as the root.
    for group in [folder, *folder.parents][: len(Path(path).parts)] if folder.is_dir() else [mounted]:
        try:
            limit, used = (group / limit_file).read_text().strip(), int((group / used_file).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if limit != "max":
            yield max(int(limit) - used + int(stat.get(given_up, 0)), 0)


def free_on_gpu() -> int | None:
    """As nvidia-smi has it: of the first of the GPUs that CUDA_VISIBLE_DEVICES names, or of the first of all."""
    if shutil.which("nvidia-smi") is None:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    asked = ["nvidia-smi", f"--id={visible}", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS, check=True)
        return int(found.stdout.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
