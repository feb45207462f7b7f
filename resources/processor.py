"""The processor, and the mode in which MKL multiplies on it. Knows no torch: it is settled before MKL's first product.

In its default mode MKL chooses a kernel by the number of rows and of threads, and two kernels may round a row
differently. MKL_CBWR with STRICT asks for kernels that give a row the same bits whatever their number (Intel, oneMKL
Developer Guide, "Obtaining Numerically Reproducible Results"). MKL reads the variable at its first product, once.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

MODE = "MKL_CBWR"
CPUINFO = Path("/proc/cpuinfo")
AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl"}
AVX2 = {"avx2", "fma"}
# What else chooses kernels. The number of threads does too: resources/threads.py.
VARIABLES = (
    MODE, "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY",
    *(f"{by}_{what}" for by in ("ONEDNN", "DNNL") for what in ("MAX_CPU_ISA", "CPU_ISA_HINTS", "DEFAULT_FPMATH_MODE")),
)  # fmt: skip


def choose_mode(cpuinfo: Mapping[str, str]) -> str:
    """The value of MKL_CBWR under which rows were measured to be exact; "" for MKL's own choice.

    cpuinfo: of a processor, as Linux tells it. Other makers' than Intel's get no branch of their own from MKL, and
    were exact without (docs/adr/0004-rows-are-reused-exactly.md); ARM has no MKL.
    """
    flags = set(cpuinfo.get("flags", "").split())
    if cpuinfo.get("vendor_id") != "GenuineIntel":
        return ""
    if flags >= AVX512:
        return "AVX512,STRICT"
    return "AVX2,STRICT" if flags >= AVX2 else ""


def onednn_is_faster(cpuinfo: Mapping[str, str]) -> bool:
    """Whether oneDNN multiplies float32 in clearly less time than MKL: with AVX-512, on another maker's than Intel's.

    There it takes half the time; on Intel's kernels, and with AVX2 on AMD, they differ by a tenth (docs/lab-log.md).
    """
    flags = set(cpuinfo.get("flags", "").split())
    return flags >= AVX512 and cpuinfo.get("vendor_id") != "GenuineIntel"


def set_mode() -> None:
    """Ask MKL, in this process and those it starts, for the mode of this processor. The user's own value stands."""
    if MODE not in os.environ and (mode := choose_mode(read_cpuinfo())):
        os.environ[MODE] = mode


def read_cpuinfo(path: Path = CPUINFO) -> dict[str, str]:
    """What Linux tells of the first processor, by name; empty elsewhere."""
    found: dict[str, str] = {}
    try:
        # Line by line: the file has a block for each of perhaps hundreds of processors, made as it is read.
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, colon, value = line.partition(":")
                if not colon:
                    break
                found[name.strip()] = value.strip()
    except OSError:
        pass
    return found


def machine() -> dict[str, str]:
    """What may change the bits of a product on a CPU, beside the number of threads, as far as it is known before torch
    is loaded."""
    cpuinfo = read_cpuinfo()
    names = ("vendor_id", "cpu family", "model", "model name", "CPU implementer", "CPU part", "flags", "Features")
    return {
        "architecture": platform.machine(),
        **{name: cpuinfo[name] for name in names if name in cpuinfo},
        **{name: os.environ[name] for name in VARIABLES if name in os.environ},
    }
