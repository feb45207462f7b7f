"""A loop of 200 iterations under the real daemon: what grows, what is left, what fails.

    python -m tests.torture long_life

The tiny models of the tests, in runs of their own processes, as `apt-assets ui --watch` starts them. Every block
of ten iterations begins with a landed file, which the sensors notice and run; the other nine are a backfill, as
someone launches it in the UI, because a model this small soon gains nothing and the loop would end. At the end of
a block, with nothing going on, everything is measured; after every second one `apt-assets gc --keep 3` runs.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import yaml

import apt_assets.assets.order  # noqa: F401 - declares the stages
from apt_assets.engine.stage import STAGES
from apt_assets.project import Project
from apt_assets.settings.iterations import key_of
from tests import tiny
from tests.test_daemon import Ui
from tests.torture.part import Part

BLOCK = 10  # iterations between two looks; the first of them is run by the sensors
GC_EVERY = 2  # blocks
PROCESSES = {"daemon": "dagster._daemon", "webserver": "dagster_webserver", "code server": "grpc"}
SMALL = ("traces", "pointers", "snapshots", "journal.jsonl")  # what gc keeps of every iteration
LEFT_BEHIND = ("temporary", "quarantine")
GOING_ON = "[QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]"
TEXT = """The tiny loop goes on for 200 iterations under `dagster dev` with both sensors on, each run in a process of
its own. New data lands every ten iterations and is picked up by the sensors; the others are backfills. Every ten
iterations, with nothing going on, the daemon, the webserver and the code server are looked at, and the store;
`apt-assets gc --keep 3` runs every twenty. A failure is: a run that fails, a pool slot or a lock that is still held,
a file left in `temporary/` or `quarantine/`, memory of a process over 30 % above what it was at iteration 50, more
open files or threads than then, and a store that after gc grows by more than 4 kB an iteration beside its
manifests."""


def run(short: bool) -> Part:
    part = Part("A long life under the daemon", TEXT)
    with tempfile.TemporaryDirectory(prefix="long-life-") as folder:
        life = Life(Path(folder).resolve(), last=4 if short else 200, block=2 if short else BLOCK)
        try:
            life.live()
        except AssertionError as error:
            part.failures.append(f"iteration {life.iteration}: {str(error)[:2000]}")
        part.failures += life.failures()
        part.figures = life.figures()
    return part


class Life:
    """One home with a daemon over it; `samples` and `collected` are what was measured, oldest first."""

    def __init__(self, home: Path, last: int, block: int):
        self.home, self.last, self.block = home, last, block
        self.iteration = 0
        self.samples: list[dict[str, Any]] = []
        self.collected: list[dict[str, Any]] = []
        tiny.make_models(home)
        content = tiny.experiment(home) | {"mining": {"questions": 4}, "loop": {"max_iterations": 1}}
        self.experiment = home / "tiny.yaml"
        self.experiment.write_text(yaml.safe_dump(content))
        self.project = Project(Project.open(self.experiment).experiment, home, self.experiment)

    def live(self) -> None:
        with Ui(self.experiment, "--watch", home=self.home) as self.ui, self.opened() as self.instance:
            while self.iteration < self.last:
                begun = time.monotonic()
                self.go_on()
                self.samples.append(self.look((time.monotonic() - begun) / self.block))
                print(json.dumps(self.samples[-1]), flush=True)
                if self.iteration % (GC_EVERY * self.block) == 0:
                    self.collected.append(self.collect())
                    print(json.dumps(self.collected[-1]), flush=True)

    def opened(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.home / "dagster_home"))

    def go_on(self) -> None:
        """One block of iterations: new data, which opens the first of them, and the others by hand."""
        first, self.iteration = self.iteration + 1, self.iteration + self.block
        rows = tiny.domain_rows(40 + 4 * first)[-(40 if first == 1 else 4) :]
        tiny.write_jsonl(self.project.landing / f"{first:04d}.jsonl", rows)
        self.until_promoted(first)
        keys = [key_of(number) for number in range(first + 1, self.iteration + 1)]
        self.ui.backfill(*keys)
        self.until_promoted(self.iteration)

    def until_promoted(self, number: int) -> None:
        key, store = key_of(number), self.project.store

        def done() -> bool:
            assert not self.failed_runs(), f"failed runs: {self.failed_runs()}"
            return store.pointed("tiny", key, "promoted_adapter") is not None and not self.going_on()

        self.ui.until(done, 900)

    # -- what is measured ---------------------------------------------------------------------------

    def look(self, seconds: float) -> dict[str, Any]:
        """One sample. The daemon frees what a run held, and writes its ticks, a while after the run."""
        pool = self.instance.event_log_storage.get_concurrency_info("apt_loop")
        self.ui.until(self.idle, 120)
        return {
            "iteration": self.iteration,
            "seconds_an_iteration": round(seconds, 1),
            "runs": self.ui.ask("{runsOrError {... on Runs {count}}}")["runsOrError"]["count"],
            "failed": self.failed_runs(),
            "slots": pool.active_slot_count + pool.pending_step_count,
            "held": sorted(p.name for p in self.files("locks") if self.project.store.locks.taken(p.name)),
            "lock_files": len(self.files("locks")),
            "left": {name: len(self.files(name)) for name in LEFT_BEHIND},
            "processes": self.processes(),
            **self.sizes(),
            "plan_s": timed(self.plan),
            "tick_s": self.tick_seconds(),
            **{name: timed(question) for name, question in self.questions().items()},
        }

    def idle(self) -> bool:
        latest = (self.ui.said("loop_driver") or [""])[0]
        return latest.startswith("the loop is at its end") and not self.going_on()

    def going_on(self) -> int:
        found = self.ui.ask(f"{{runsOrError(filter: {{statuses: {GOING_ON}}}) {{... on Runs {{count}}}}}}")
        return found["runsOrError"]["count"]

    def failed_runs(self) -> list[str]:
        found = self.ui.ask(
            "{runsOrError(filter: {statuses: [FAILURE, CANCELED]}) {... on Runs {results {runId jobName}}}}"
        )
        return [f"{run['jobName']} {run['runId'][:8]}" for run in found["runsOrError"]["results"]]

    def processes(self) -> dict[str, dict[str, float]]:
        """Of each process that lives as long as the daemon: MB in memory, open files, threads."""
        found = {}
        for process in psutil.Process(self.ui.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                line = " ".join(process.cmdline())
                name = next((name for name, mark in PROCESSES.items() if mark in line), None)
                if name is None or process.num_threads() == 0:
                    continue
                measured = {
                    "mb": round(process.memory_info().rss / 1e6, 1),
                    "files": process.num_fds(),
                    "threads": process.num_threads(),
                }
                if name not in found or measured["mb"] > found[name]["mb"]:
                    found[name] = measured
        return found

    def files(self, name: str) -> list[Path]:
        root = self.project.store.root / name
        return [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]

    def sizes(self) -> dict[str, int]:
        """Bytes and files of the store: of what gc keeps of every iteration, and of the rest; of Dagster's records."""
        small = [path for name in SMALL for path in self.files(name)]
        rest = [path for path in self.files("") if path not in set(small)]
        records = [path for path in (self.home / "dagster_home").rglob("*") if path.is_file()]
        return {
            "small_bytes": size(small),
            "small_files": len(small),
            "rest_bytes": size(rest),
            "rest_files": len(rest),
            "dagster_bytes": size(records),
        }

    def plan(self) -> None:
        project = Project(self.project.experiment, self.home, self.experiment)
        assert all(plan.status == "fresh" for plan in project.planner().plan(self.iteration))

    def tick_seconds(self) -> float:
        """Of the last looks of the loop driver, the median."""
        found = self.ui.ask(
            "query($s: SensorSelector!) {sensorOrError(sensorSelector: $s) {... on Sensor"
            " {sensorState {ticks(limit: 3, statuses: [SKIPPED]) {timestamp endTimestamp}}}}}",
            s={**self.ui.repository, "sensorName": "loop_driver"},
        )
        ticks = found["sensorOrError"]["sensorState"]["ticks"]
        return round(statistics.median(t["endTimestamp"] - t["timestamp"] for t in ticks if t["endTimestamp"]), 3)

    def questions(self) -> dict[str, Callable[[], Any]]:
        """What the UI asks: the stale status of a partition of all assets, its materialisations, all partitions."""
        names = [{"path": [name]} for name, stage in STAGES.items() if stage.partitioned and name != "gate"]
        asked = "query($k: [AssetKeyInput!], $p: String) {assetNodes(assetKeys: $k) {%s}}"
        stale = asked % "staleStatus(partition: $p) staleCauses(partition: $p) {reason}"
        latest = asked.replace("$p: String", "$p: [String!]") % (
            "assetMaterializations(partitions: $p, limit: 1) {timestamp}"
        )
        partitions = "query($k: AssetKeyInput!) {assetNodeOrError(assetKey: $k) {... on AssetNode {partitionKeys}}}"
        key = key_of(self.iteration)
        return {
            "stale_status_s": lambda: self.ui.ask(stale, k=names, p=key),
            "materializations_s": lambda: self.ui.ask(latest, k=names, p=[key]),
            "partitions_s": lambda: self.ui.ask(partitions, k=names[0]),
        }

    def collect(self) -> dict[str, Any]:
        """gc by the command, which refuses while a run is going on: sizes before and after."""
        before, begun = self.sizes(), time.monotonic()
        command = [sys.executable, "-m", "apt_assets.cli", "gc", "--keep", "3", "--json", "-e", str(self.experiment)]

        def collected() -> bool:
            done = subprocess.run(command, capture_output=True, text=True, env=self.ui.environment)
            assert done.returncode == 0 or "a run is going on" in done.stderr, done.stderr
            return done.returncode == 0

        self.ui.until(collected, 300)
        after = self.sizes()
        return {"iteration": self.iteration, "gc_s": round(time.monotonic() - begun, 1), "before": before,
                "after": after, "lock_files": len(self.files("locks"))}  # fmt: skip

    # -- what came of it ----------------------------------------------------------------------------

    def failures(self) -> list[str]:
        lines = []
        for sample in self.samples:
            at = f"iteration {sample['iteration']}"
            lines += [f"{at}: run {run} did not succeed" for run in sample["failed"]]
            lines += [f"{at}: {sample['slots']} pool slots in use, with nothing going on"] * bool(sample["slots"])
            lines += [f"{at}: lock {name} is held" for name in sample["held"]]
            lines += [f"{at}: {n} files left in {name}/" for name, n in sample["left"].items() if n]
        if self.last < 100:
            return lines
        early = [sample for sample in self.samples if 50 <= sample["iteration"] <= 80]
        late = [sample for sample in self.samples if sample["iteration"] > self.last - 40]
        for name in PROCESSES:
            for what, allowed in (("mb", 1.3), ("files", 1.2), ("threads", 1.2)):
                was, now = (statistics.median(s["processes"][name][what] for s in part) for part in (early, late))
                if now > allowed * was:
                    lines.append(f"{name}: {what} {was} around iteration 60, {now} at the end")
        first, last = self.collected[0], self.collected[-1]
        grown = last["after"]["rest_bytes"] - first["after"]["rest_bytes"]
        each = grown / (last["iteration"] - first["iteration"])
        if each > 4096:
            lines.append(f"the store grows by {each:.0f} bytes an iteration beside its manifests, after gc")
        return lines

    def figures(self) -> dict[str, Any]:
        if not self.samples:
            return {}
        first, last = self.samples[min(1, len(self.samples) - 1)], self.samples[-1]
        found: dict[str, Any] = {
            "iterations": last["iteration"],
            "runs": last["runs"],
            "runs that failed": len(last["failed"]),
            "pool slots, locks and temporary files left": sum(
                s["slots"] + len(s["held"]) + sum(s["left"].values()) for s in self.samples
            ),
        }
        at = f"iteration {first['iteration']} / {last['iteration']}"
        for name in PROCESSES:
            for what, unit in (("mb", "MB in memory"), ("files", "open files"), ("threads", "threads")):
                found[f"{name}: {unit}, {at}"] = f"{first['processes'][name][what]} / {last['processes'][name][what]}"
        for what, told in (
            ("seconds_an_iteration", "seconds of an iteration"),
            ("plan_s", "seconds of `plan`"),
            ("tick_s", "seconds of a look of the loop driver"),
            ("stale_status_s", "seconds of the UI's stale status of one partition"),
            ("materializations_s", "seconds of the UI's materialisations of one partition"),
            ("partitions_s", "seconds of the UI's list of partitions"),
        ):
            found[f"{told}, {at}"] = f"{first[what]} / {last[what]}"
        found[f"MB of Dagster's records, {at}"] = " / ".join(f"{s['dagster_bytes'] / 1e6:.1f}" for s in (first, last))
        if self.collected:
            one, other = self.collected[0], self.collected[-1]
            at = f"iteration {one['iteration']} / {other['iteration']}"
            for what, told in (("rest_bytes", "MB of artifacts and rows"), ("small_bytes", "MB of manifests")):
                sizes = " / ".join(f"{c['after'][what] / 1e6:.2f}" for c in (one, other))
                found[f"{told} in the store after gc, {at}"] = sizes
            for what, told in (("rest_files", "files of artifacts and rows"), ("small_files", "manifests")):
                found[f"{told} after gc, {at}"] = f"{one['after'][what]} / {other['after'][what]}"
            found[f"MB of artifacts and rows that gc removed, {at}"] = " / ".join(
                f"{(c['before']['rest_bytes'] - c['after']['rest_bytes']) / 1e6:.1f}" for c in (one, other)
            )
        return found


def timed(function: Callable[[], Any]) -> float:
    """Wall-clock seconds: the median of five calls."""
    taken = []
    for _ in range(5):
        begun = time.monotonic()
        function()
        taken.append(time.monotonic() - begun)
    return round(statistics.median(taken), 4)


def size(paths: list[Path]) -> int:
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
