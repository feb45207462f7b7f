"""Race apt-assets, a plain script and DVC through the scenarios, and print what each did.

    python -m benchmarks.incremental.race [--model tiny|embedded] [--tools ours,plain,dvc] [--scenarios S0,S1]

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

The tools take turns, scenario by scenario, each on the first core that this process may use. Results
of those that ran replace theirs in benchmarks/results/incremental_MODEL.json; those of other tools stay.
Seconds are of the run alone, by the clock and of the processor, with one thread per process; landing and
set-up are not in them.
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
from benchmarks.incremental.world import MODELS, make_template, settings_for

RESULTS = Path(__file__).parents[1] / "results"
KINDS = ("generate", "grade", "embed", "train", "score")
LIBRARIES = ("torch", "transformers", "trl", "peft", "lm-eval", "sentence-transformers", "polars")
RUN = {"embedded": ("S0", "S2", "S3", "S8")}
STARTED = time.monotonic()


class Track:
    """One tool on its way through the scenarios."""

    def __init__(self, name: str, template: Path, settings: dict[str, Any], folder: Path):
        self._other, self._folder = template / "other", folder
        self.tool: Tool = TOOLS[name](folder / "tool", settings, [])
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
            "processor": round(run.processor, 2),
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
        self.count(Run(0.0, 0.0, [], logs))
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


def race(model: str, tools: list[str], scenarios: list[Scenario], folder: Path) -> dict[str, Any]:
    """Results by tool: date, machine, libraries, and an entry per scenario; written after each, since a whole race
    takes an hour and more."""
    say("making the models")
    template = make_template(folder / "template", model)
    out = RESULTS / f"incremental_{model}.json"
    results = json.loads(out.read_text()) if out.exists() else {}
    tracks = {name: Track(name, template, settings_for(model), folder / name) for name in tools}
    for name in tools:
        about = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "libraries": versions(name)}
        results[name] = {**about, "scenarios": {}}
    for number, scenario in enumerate(scenarios):
        turn = number % len(tools)
        for name in [*tools[turn:], *tools[:turn]]:
            results[name]["scenarios"][scenario.name] = tracks[name].play(scenario)
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
    parser.add_argument("--model", choices=list(MODELS), default="tiny")
    parser.add_argument("--tools", default=",".join(TOOLS), help="comma-separated: ours, plain, dvc")
    parser.add_argument("--scenarios", help="comma-separated: S0 ... S13; default: all, of the embedded model four")
    parser.add_argument("--keep", type=Path, help="new folder for everything made; default: temporary, removed")
    arguments = parser.parse_args()
    tools = chosen(arguments.tools, list(TOOLS), "tool")
    known = [scenario.name for scenario in SCENARIOS]
    names = chosen(arguments.scenarios or ",".join(RUN.get(arguments.model, known)), known, "scenario")
    if names[0] != "S0":
        sys.exit("S0 must be among the scenarios: it is what the others change")
    # One thread: tiny matrices gain nothing from more, and other work on the machine then costs less.
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", OMP_NUM_THREADS="1")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        chosen_scenarios = [scenario for scenario in SCENARIOS if scenario.name in names]
        results = race(arguments.model, tools, chosen_scenarios, folder.resolve())
    print(report(results))


if __name__ == "__main__":
    main()
