"""What a measurement was made on."""

import os
import platform
from typing import Any

from resources.processor import AVX2, AVX512, read_cpuinfo


def machine() -> dict[str, Any]:
    """{cores, cpu, python}: whoever reads a number must know it."""
    found = read_cpuinfo()
    cpu, flags = found.get("model name") or platform.processor(), set(found.get("flags", "").split())
    # Two processors of one name may differ by half in what they multiply.
    width = next((f" ({name})" for name, needs in (("AVX-512", AVX512), ("AVX2", AVX2)) if flags >= needs), "")
    return {"cores": os.cpu_count(), "cpu": f"{cpu}{width}", "python": platform.python_version()}
