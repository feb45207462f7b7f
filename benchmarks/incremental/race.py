"""Race apt-assets, a plain script and DVC through the scenarios, and print what each did.

    python -m benchmarks.incremental.race [--tools ours,plain,dvc] [--scenarios S0,S1] [--out FILE]

Definitions, the same for the three:

unnecessary   units of work whose key this tool had logged before, in this run or an earlier one: the
              same inputs computed again (`work.py` says what a key holds)
wrong         (iteration, output) pairs that differ from what the same tool makes of the same inputs
              in an empty folder: graded predictions, preference pairs, adapter weights, score items.
              For DVC the plain script makes them, of the same steps; that DVC's own come out the same
              from nothing is what its S0 shows

State goes on from scenario to scenario. A tool that is found wrong goes on from the empty-folder
run, as a user who noticed would, so that each scenario counts its own errors only; the work of that
run counts as done before. Runs of unchanged inputs in an empty folder are made once. Scenario S0
must be among those run: it is what the others change.

Results of the tools that ran replace theirs in FILE (default: benchmarks/results/incremental.json);
those of other tools stay. Seconds are wall clock, of the run alone, with one thread per process;
landing and set-up are not in it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from apt_assets.study.measured_on import machine
from benchmarks.incremental.report import report
from benchmarks.incremental.scenarios import SCENARIOS, Scenario
from benchmarks.incremental.tools import DVC, TOOLS, Run, Tool
from benchmarks.incremental.world import SETTINGS, make_template

RESULTS = Path(__file__).parents[1] / "results" / "incremental.json"
KINDS = ("generate", "grade", "embed", "train", "score")
LIBRARIES = ("torch", "transformers", "trl", "peft", "lm-eval", "sentence-transformers", "polars")
STARTED = time.monotonic()


class Track:
    """One tool on its way through the scenarios."""

    def __init__(self, name: str, template: Path, folder: Path):
        self._other, self._folder = template / "other", folder
        self.tool: Tool = TOOLS[name](folder / "tool", SETTINGS, [])
        shutil.copytree(template / "source", self.tool.source)
        self._seen: set[str] = set()
        self._cold_outputs: dict[str, dict[str, str | None]] = {}
        self._cold_runs = 0

    def play(self, scenario: Scenario) -> dict[str, Any]:
        """Edit, run, compare; returns the scenario's entry in the results."""
        say(f"{self.tool.name} {scenario.name} ({scenario.title})")
        if scenario.before:
            scenario.before(self.tool, self._other)
            self.count(self.tool.run(f"{scenario.name}-before"))
        scenario.edit(self.tool, self._other)
        run = self.tool.run(scenario.name, scenario.at_once)
        if failed := [code for code in run.exits if code not in self.tool.accepted]:
            say(f"{self.tool.name} {scenario.name}: exit codes {failed}; last line: {last_line(run)}")
        work = self.count(run)
        outputs = self.tool.outputs()
        twin, expected = self.cold()
        wrong = [key for key, digest in expected.items() if outputs[key] != digest]
        say(f"{self.tool.name} {scenario.name}: {run.seconds:.1f} s, {len(wrong)} of {len(outputs)} wrong")
        if wrong:
            self.start_over(twin)
        return {
            "title": scenario.title,
            "seconds": round(run.seconds, 2),
            "exits": run.exits,
            "work": work,
            "wrong": wrong,
            "compared": len(outputs),
        }

    def count(self, *runs: Run) -> dict[str, dict[str, int]]:
        """kind -> units, amount and unnecessary of the runs' logs, which become history."""
        work = {kind: {"units": 0, "amount": 0, "unnecessary": 0} for kind in KINDS}
        for log in (log for run in runs for log in run.logs):
            for line in log.read_text().splitlines():
                unit = json.loads(line)
                entry, key = work[unit["kind"]], f"{unit['kind']} {unit['key']}"
                # A training is as much work as it has steps; everything else is counted by rows.
                units = unit["amount"] if unit["kind"] == "train" else 1
                entry["units"] += units
                entry["amount"] += unit["amount"]
                entry["unnecessary"] += units if key in self._seen else 0
                self._seen.add(key)
        return work

    def cold(self) -> tuple[Tool | None, dict[str, str | None]]:
        """Outputs from an empty folder, and the tool that made them; None: made for an earlier scenario,
        or by another kind of tool."""
        inputs = self.tool.inputs()
        if inputs in self._cold_outputs:
            return None, self._cold_outputs[inputs]
        twin = self.from_nothing(self.tool.reference)
        self._cold_outputs[inputs] = twin.outputs()
        return twin if isinstance(twin, type(self.tool)) else None, self._cold_outputs[inputs]

    def from_nothing(self, kind: type[Tool] | None = None) -> Tool:
        self._cold_runs += 1
        twin = self.tool.twin(self._folder / f"cold-{self._cold_runs}", kind)
        for run in twin.cold("cold"):
            if any(code not in twin.accepted for code in run.exits):
                sys.exit(f"{twin.name} from an empty folder: exit codes {run.exits}; last line: {last_line(run)}")
        return twin

    def start_over(self, twin: Tool | None) -> None:
        twin = twin or self.from_nothing()
        logs = sorted(twin.logs.glob("*.jsonl"))
        self.count(Run(0.0, [], logs))
        self.tool.folder.rename(self._folder / f"wrong-{self._cold_runs}")
        twin.folder.rename(self.tool.folder)


def last_line(run: Run) -> str:
    lines = [line for log in run.logs for line in log.with_suffix(".txt").read_text().splitlines() if line.strip()]
    return lines[-1] if lines else "nothing printed"


def say(line: str) -> None:
    print(f"[{time.monotonic() - STARTED:6.0f} s] {line}", file=sys.stderr, flush=True)


def versions(tool: str) -> dict[str, str]:
    found = {name: metadata.version(name) for name in LIBRARIES}
    if tool == "dvc":
        found["dvc"] = subprocess.run([DVC, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return found


def race(tools: list[str], scenarios: list[Scenario], folder: Path, out: Path) -> dict[str, Any]:
    """Results by tool: date, machine, libraries, and an entry per scenario; `out` is written after each
    scenario, since a whole race takes an hour and more. What it holds of other tools stays."""
    say("making the tiny models")
    template = make_template(folder / "template")
    results = json.loads(out.read_text()) if out.exists() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    for name in tools:
        track = Track(name, template, folder / name)
        about = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "libraries": versions(name)}
        results[name] = {**about, "scenarios": {}}
        for scenario in scenarios:
            results[name]["scenarios"][scenario.name] = track.play(scenario)
            out.write_text(json.dumps(results, indent=1) + "\n")
    return {name: results[name] for name in TOOLS if name in results}


def chosen(text: str, known: list[str], what: str) -> list[str]:
    """The comma-separated names of `text`, in the order of `known`. Exits if one is unknown."""
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"unknown {what} {', '.join(unknown)}; there are: {', '.join(known)}")
    return [name for name in known if name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", default=",".join(TOOLS), help="comma-separated: ours, plain, dvc")
    parser.add_argument("--scenarios", default=",".join(s.name for s in SCENARIOS), help="comma-separated: S0 ... S13")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    parser.add_argument("--keep", type=Path, help="new folder for everything made; default: temporary, removed")
    arguments = parser.parse_args()
    tools = chosen(arguments.tools, list(TOOLS), "tool")
    names = chosen(arguments.scenarios, [s.name for s in SCENARIOS], "scenario")
    if names[0] != "S0":
        sys.exit("S0 must be among the scenarios: it is what the others change")
    # One thread: tiny matrices gain nothing from more, and other work on the machine then costs less.
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", OMP_NUM_THREADS="1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        chosen_scenarios = [scenario for scenario in SCENARIOS if scenario.name in names]
        results = race(tools, chosen_scenarios, folder.resolve(), arguments.out)
    print(report(results))


if __name__ == "__main__":
    main()
