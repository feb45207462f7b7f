"""Run a module as `python -m MODULE ARGS...` would, with its units of work counted.

APT_WORK_LOG=work.jsonl python -m benchmarks.incremental.counted MODULE ARGS...
"""

import os
import runpy
import sys
from pathlib import Path

from benchmarks.incremental.work import install

if __name__ == "__main__":
    install(Path(os.environ["APT_WORK_LOG"]))
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
