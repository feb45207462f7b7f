"""The mode of MKL in this process, by itself."""

import ctypes
import os
from pathlib import Path

from resources.processor import MODE

# MKL's own names of its modes, mkl_types.h.
BRANCHES = {0: "default", 1: "default", 2: "AUTO", 3: "COMPATIBLE", 9: "AVX", 10: "AVX2", 12: "AVX512", 14: "AVX512_E1"}
STRICT = 0x10000


def mkl_mode() -> str:
    """As MKL_CBWR would name it, or "default", or "no MKL" where torch was built without.

    It is not always what MKL_CBWR asks for: that is read once, at the first product, and Intel's branches are for
    Intel's processors; on others AUTO takes their place.
    """
    import torch

    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # Exported by torch's wheels for Linux; the public mkl_cbwr_get is not.
        setting = ctypes.CDLL(str(library)).mkl_serv_cbwr_get(-1)
    except (OSError, AttributeError):
        return os.environ.get(MODE, "default") if torch.backends.mkl.is_available() else "no MKL"
    branch = setting & ~STRICT
    return BRANCHES.get(branch, f"branch {branch}") + (",STRICT" if setting & STRICT else "")


def in_words(mode: str) -> str:
    """The mode for people, with a word if it is not what was asked for because it was asked too late."""
    asked = os.environ.get(MODE, "")
    if mode == "default" and asked:
        return f"MKL as it is by default ({MODE}={asked} was set after its first product)"
    return mode if mode == "no MKL" else f"MKL {mode}"
