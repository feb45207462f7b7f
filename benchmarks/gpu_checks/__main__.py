"""One check, `python -m benchmarks.gpu_checks CHECK SETUP`: what it found is the last line of stdout."""

import json
import sys

from benchmarks.gpu_checks import alone, contests
from benchmarks.gpu_checks.setup import Missing, Setup
from resources.model.capabilities import show_one_gpu

CHECKS = {
    check.__name__: check
    for check in (
        *(alone.device, alone.parity, alone.loop, alone.weights, alone.memory, alone.execution),
        *(contests.training, contests.nf4, contests.scores, contests.answers),
    )
}


if __name__ == "__main__":
    show_one_gpu()  # TRL's own trainer would take them all
    try:
        found = CHECKS[sys.argv[1]](Setup(**json.loads(sys.argv[2])))
    except Missing as missing:
        found = {"outcome": "skipped", "reason": str(missing)}
    print("\n" + json.dumps(found))
