"""What a measurement was made on."""

import os
import platform
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """{cores, cpu, python}: whoever reads a number must know it."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = names[0].split(":")[1].strip() if names else platform.processor()
    return {"cores": os.cpu_count(), "cpu": cpu, "python": platform.python_version()}
