"""Run the torture parts, print their figures, and write docs/reliability.md and its JSON.

    python -m tests.torture [--short] [--corpus FOLDER] [PART ...]

--short does a sample of each part, as CI does, and writes nothing. --corpus adds the files of a folder to those
that are landed. Without a PART all are run; a part's module has `run(short, ...) -> Part`.
"""

import argparse
import importlib
import inspect
import json
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from apt_assets.study.measured_on import machine
from tests.torture.part import Part

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = ("faults", "corruption", "kills", "writers", "nodes", "shared", "hostile", "leaks", "long_life")
RESULTS = REPOSITORY / "benchmarks" / "results" / "reliability.json"
PAGE = REPOSITORY / "docs" / "reliability.md"
REAL_INPUTS = Path(__file__).with_name("real_inputs.md")  # written by hand: what was tried, and is not counted


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help=f"default: all of {', '.join(PARTS)}")
    parser.add_argument("--short", action="store_true", help="a sample of each; nothing is written")
    parser.add_argument("--corpus", type=Path, help="a folder of files to land as well")
    asked = parser.parse_args()
    if asked.corpus is not None and not asked.corpus.is_dir():
        parser.error(f"--corpus: no such folder: {asked.corpus}")
    parts = asked.part or PARTS
    if len(parts) > 1:
        # Each in a process of its own: some fork, which only a process that has run nothing may.
        options = [*(["--short"] if asked.short else []), *(["--corpus", asked.corpus] if asked.corpus else [])]
        return max(subprocess.run([sys.executable, "-m", "tests.torture", *options, one]).returncode for one in parts)
    found = run_part(parts[0], short=asked.short, corpus=asked.corpus)
    print_part(parts[0], found)
    if not asked.short:
        record(parts[0], found)
    return 1 if found.failures else 0


def run_part(name: str, *, short: bool, corpus: Path | None) -> Part:
    run = importlib.import_module(f"tests.torture.{name}").run
    given = {"short": short, "corpus": corpus}
    started = time.monotonic()
    found = run(**{key: value for key, value in given.items() if key in inspect.signature(run).parameters})
    found.seconds = round(time.monotonic() - started, 1)
    return found


def print_part(name: str, part: Part) -> None:
    print(f"{name}: {part.title} ({part.seconds:.0f} s)")
    for what, count in part.figures.items():
        print(f"  {what}: {count}")
    for line in part.failures:
        print(f"  FAILED {line}")
    sys.stdout.flush()


def record(name: str, part: Part) -> None:
    """Add a part to the results, and write the page of all that are known."""
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    known[name] = {**asdict(part), "date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit.stdout.strip()}
    known["machine"] = machine()
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    PAGE.write_text(page(known))


def page(known: dict) -> str:
    on = known["machine"]
    lines = [
        "# Reliability",
        "",
        "What was done to apt-assets on purpose, how often, and what came of it. `make torture` does all of it again",
        "and writes this page; a short form runs with the tests. Raw numbers: `benchmarks/results/reliability.json`.",
        "",
        f"Machine: {on['cores']} cores of an {on['cpu']}, Python {on['python']}.",
    ]
    for name in (name for name in PARTS if name in known):
        part = known[name]
        lines += ["", f"## {part['title']}", "", part["text"], "", "| what | count |", "|---|---|"]
        lines += [f"| {what} | {count} |" for what, count in part["figures"].items()]
        lines += [f"| **failures** | **{len(part['failures'])}** |"]
        lines += [
            "",
            f"`python -m tests.torture {name}`, {part['date']}, at {part['commit']}, {part['seconds']:.0f} s.",
        ]
        lines += [f"- failed: {line}" for line in part["failures"]]
    return "\n".join(lines) + "\n" + REAL_INPUTS.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
