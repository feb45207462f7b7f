"""All that is to be checked on a machine with a GPU, by one command, in eight minutes at most.

    python -m benchmarks.gpu [--out FILE] [--only CHECK ...] [--seconds 480]
    python -m benchmarks.gpu --device cpu --tiny          the same on tiny models, on any machine

Nothing is downloaded: Llama-2-7B and Mistral-7B-v0.3 get random weights in their full shape, made on the device and
saved as such models come, in several files (30 GB below $TMPDIR). Each check (benchmarks/gpu_checks/) is a process
of its own with a time limit of its own, and ends as one line of JSON: `ok` with what was measured, `failed` with the
bound that did not hold, `error`, `skipped` for a package that is not installed, or `no time left`. Whatever becomes of
one, the others run. The file holds all lines so far, by default benchmarks/results/gpu.json; a tiny run keeps none
unless --out names it. Exits with 1 if a check failed or broke off.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apt_assets.study.measured_on import machine
from benchmarks.gpu_checks.setup import Setup
from benchmarks.speed.contest import RESULTS

MODELS = ("llama-2-7b", "mistral-7b-v0.3")
SECONDS = 480.0
# Seconds at most, of SECONDS; what matters most comes first. With None a check makes tiny models of its own.
PLAN: tuple[tuple[str, tuple[str | None, ...], int], ...] = (
    ("device", (None,), 60),
    ("parity", (None,), 60),
    ("loop", (None,), 120),
    ("weights", MODELS, 90),
    ("training", MODELS, 90),
    ("scores", MODELS, 60),
    ("answers", MODELS, 60),
    ("memory", MODELS, 60),
    ("execution", MODELS, 90),
    ("nf4", MODELS, 90),
)
FAILURES = ("failed", "error")
WORDS = 600  # characters of an error that are kept


def command(check: str, setup: Setup) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gpu_checks", check, json.dumps(asdict(setup))]


def run_check(check: str, setup: Setup, limit: float) -> dict[str, Any]:
    """A check in a process of its own, which ends with all that it started after `limit` seconds."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command(check, setup), stdout=said, stderr=errors, text=True, start_new_session=True)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        errors.seek(0)
        found = outcome(process.returncode, said.read(), errors.read(), limit)
    return {"check": check, "model": setup.model, "seconds": round(time.monotonic() - started, 1), **found}


def outcome(code: int, said: str, errors: str, limit: float) -> dict[str, Any]:
    if code == -signal.SIGKILL:
        return {"outcome": "error", "reason": f"not done within {limit:.0f} s, or killed; {errors[-WORDS:].strip()}"}
    if code:
        return {"outcome": "error", "reason": errors[-WORDS:].strip() or f"exit code {code}"}
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def run_all(device: str, tiny: bool, only: list[str], seconds: float, out: Path | None) -> list[dict[str, Any]]:
    """Every check of PLAN that is wanted, within `seconds`; each line as it comes."""
    end, lines = time.monotonic() + seconds, []
    wanted = {*only, "device", "weights"} if only else {check for check, _, _ in PLAN}
    with tempfile.TemporaryDirectory() as folder:
        for check, model, limit in [(check, model, limit) for check, models, limit in PLAN for model in models]:
            if check not in wanted:
                continue
            left = end - time.monotonic()
            if left > 1:
                line = run_check(check, Setup(device, tiny, folder, model), min(limit * seconds / SECONDS, left))
            else:
                line = {"check": check, "model": model, "outcome": "no time left"}
            lines.append(line)
            print(json.dumps(line), flush=True)
            if out is not None:
                write(out, tiny, lines)
            if check == "device" and line["outcome"] != "ok":
                break
    return lines


def write(out: Path, tiny: bool, lines: list[dict[str, Any]]) -> None:
    content = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "tiny": tiny, "checks": lines}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=1) + "\n")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the same architectures with tiny shapes")
    parser.add_argument("--only", nargs="+", choices=[check for check, _, _ in PLAN], default=[])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all; the limit of each grows with it")
    parser.add_argument("--out", type=Path, help="where the lines are kept")
    given = parser.parse_args(arguments)
    out = given.out or (None if given.tiny else RESULTS / "gpu.json")
    lines = run_all(given.device, given.tiny, given.only, given.seconds, out)
    return 1 if any(line["outcome"] in FAILURES for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
