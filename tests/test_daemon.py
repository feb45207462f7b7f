"""The loop that the sensors drive, and what is asked for in the UI, under a real `dagster dev` with its daemon."""

import contextlib
import itertools
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from apt_assets.engine.display import Display
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.settings.iterations import BASE
from tests import tiny, waiting

pytestmark = pytest.mark.slow("daemon")


class Ui:
    """`apt-assets ui` as a session of its own, and questions to it over GraphQL.

    home: its $APT_HOME, if it is not this process's.
    """

    def __init__(self, experiment: Path, *flags: str, home: Path | None = None):
        self.environment = os.environ | ({"APT_HOME": str(home)} if home else {})
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "apt_assets.cli", "ui", "-e", experiment, "--port", self.port, *flags]
        self.started = time.time()
        self.log = experiment.with_name("ui.log").open("a")
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=self.environment,
        )

    def __enter__(self):
        try:
            self.repository = self.until(self.loaded, 180)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        """End all of its processes at once, as a machine that goes down does: those of its session, since Dagster has a
        process group of its own."""
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(process.pid) == self.process.pid:
                    os.kill(process.pid, signal.SIGKILL)
        self.process.wait(30)
        self.log.close()

    def until(self, found, seconds):
        """What `found` returns, once that is something."""

        def logged():
            return Path(self.log.name).read_text()[-3000:]

        def look():
            assert self.process.poll() is None, logged()
            with contextlib.suppress(OSError):  # not up yet, or too busy to answer
                return found()

        return waiting.until(look, seconds, pause=2, instead=logged)  # each look is work for three processes

    def ask(self, query, **variables):
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/graphql", body, headers)
        answer = json.load(urllib.request.urlopen(request, timeout=60))
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def loaded(self):
        found = self.ask("{repositoriesOrError {... on RepositoryConnection {nodes {name location {name}}}}}")
        nodes = found["repositoriesOrError"].get("nodes")
        return nodes and {"repositoryName": nodes[0]["name"], "repositoryLocationName": nodes[0]["location"]["name"]}

    # -- sensors -----------------------------------------------------------------------------------

    def said(self, sensor):
        """Why a sensor started no run, at each look since this process began, the latest first."""
        found = self.ask(
            "query($s: SensorSelector!) {sensorOrError(sensorSelector: $s) {... on Sensor"
            " {sensorState {ticks(limit: 30) {timestamp skipReason error {message}}}}}}",
            s={**self.repository, "sensorName": sensor},
        )
        ticks = found["sensorOrError"]["sensorState"]["ticks"]
        assert [tick["error"] for tick in ticks if tick["error"]] == []
        return [tick["skipReason"] for tick in ticks if tick["timestamp"] > self.started and tick["skipReason"]]

    def until_said(self, sensor, what, seconds=60):
        return self.until(lambda: next((reason for reason in self.said(sensor) if what in reason), None), seconds)

    def until_end(self, runs, seconds=400):
        """The reason that the loop driver gives for its end, after there were more than so many runs."""

        def ended():
            latest = (self.said("loop_driver") or [""])[0]
            return latest.startswith("the loop is at its end") and len(self.runs()) > runs and latest

        return self.until(ended, seconds)

    def forget_cursor(self, sensor):
        self.ask(
            "mutation($s: SensorSelector!) {setSensorCursor(sensorSelector: $s) {__typename}}",
            s={**self.repository, "sensorName": sensor},
        )

    # -- runs --------------------------------------------------------------------------------------

    def runs(self):
        """All runs so far, in the order in which they began: what they were of, status, times."""
        found = self.ask(
            "{runsOrError {... on Runs {results {runId jobName status startTime endTime tags {key value}}}}}"
        )["runsOrError"]["results"]
        for run in found:
            tags = {tag["key"]: tag["value"] for tag in run.pop("tags")}
            run["of"] = (run["jobName"], tags.get("dagster/partition"))
        return sorted(found, key=lambda run: run["startTime"] or math.inf)

    def until_done(self, count, seconds=400):
        """So many runs, all of them at their end."""

        def done():
            runs = self.runs()
            return len(runs) == count and all(run["endTime"] for run in runs) and runs

        return self.until(done, seconds)

    def materialize(self, key):
        """Materialise all of one iteration, as "Materialize" on the asset graph with one partition chosen does."""
        nodes = self.ask("{assetNodes {assetKey {path} isMaterializable isPartitioned}}")["assetNodes"]
        chosen = [node["assetKey"] for node in nodes if node["isMaterializable"] and node["isPartitioned"]]
        checks = [
            {"assetKey": {"path": ["benchmark_scores"]}, "name": f"{name}_gate"}
            for name in ("domain", "general", "likelihood", "perplexity", "judge")
        ]
        answer = self.ask(
            "mutation($p: ExecutionParams!) {launchRun(executionParams: $p) {__typename ... on PythonError {message}}}",
            p={
                "selector": {
                    **self.repository,
                    "jobName": "__ASSET_JOB",
                    "assetSelection": chosen,
                    "assetCheckSelection": checks,
                },
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": key}]},
            },
        )
        assert answer["launchRun"]["__typename"] == "LaunchRunSuccess", answer

    def backfill(self, *keys):
        """Launch all of these iterations at once, partitions added first, as the launchpad does."""
        for key in keys:
            self.ask(
                "mutation($r: RepositorySelector!, $k: String!) {addDynamicPartition(repositorySelector: $r,"
                ' partitionsDefName: "iteration", partitionKey: $k) {__typename}}',
                r=self.repository,
                k=key,
            )
        answer = self.ask(
            "mutation($p: LaunchBackfillParams!) {launchPartitionBackfill(backfillParams: $p)"
            " {__typename ... on PythonError {message}}}",
            p={
                "selector": {"partitionSetName": "iterate_partition_set", "repositorySelector": self.repository},
                "partitionNames": list(keys),
            },
        )
        assert answer["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", answer

    def failures(self, run):
        """{step: message} of the steps of a run that failed by themselves."""
        found = self.ask(
            "query($i: ID!) {logsForRun(runId: $i) {... on EventConnection {events {__typename"
            " ... on ExecutionStepFailureEvent {stepKey error {message}}}}}}",
            i=run["runId"],
        )
        events = [e for e in found["logsForRun"]["events"] if e["__typename"] == "ExecutionStepFailureEvent"]
        return {event["stepKey"]: event["error"]["message"] for event in events}


def assert_one_at_a_time(runs):
    for one, following in itertools.pairwise(runs):
        assert one["endTime"] <= following["startTime"], (one, following)


def computed(project):
    """(iteration, stage) of everything that was ever computed, in order."""
    lines = (project.store.root / "journal.jsonl").read_text().splitlines()
    return [(e["iteration"], e["stage"]) for e in map(json.loads, lines) if e["event"] == "computed"]


def learnable_rows(count):
    """Rows of which even the tiny policy learns something, so that the loop goes on after iteration 0001."""
    return [{**row, "answer": "ab"[number % 2]} for number, row in enumerate(tiny.domain_rows(count))]


def test_watching_daemon_retrains_by_itself_when_data_lands_and_does_nothing_else(make_experiment, tmp_path):
    # Held to what it said before, so tiny a policy learns nothing of so few rows.
    experiment = make_experiment(training={"learning_rate": 0.03}, loop={"max_iterations": 2}, anchor={"weight": 0.0})
    project = Project.open(experiment)
    content = "".join(json.dumps(row) + "\n" for row in learnable_rows(60)).encode()
    path = tmp_path / "landing" / "colours.jsonl"
    with Ui(experiment, "--watch") as ui:
        ui.until_said("loop_driver", "no data has landed")
        path.parent.mkdir()
        with path.open("wb") as file:
            file.write(content[:1000])
            file.flush()
            ui.until_said("landing", "waiting until colours.jsonl is complete")
            assert ui.runs() == []
            file.write(content[1000:])
        reason = ui.until_end(runs=2)
        assert "loop.max_iterations" in reason or "iteration 0002 gained nothing" in reason
        runs = ui.runs()
        assert [run["of"] for run in runs] == [("score_base", None), ("iterate", "0001"), ("iterate", "0002")]
        assert {run["status"] for run in runs} == {"SUCCESS"}
        assert_one_at_a_time(runs)
    done = computed(project)
    assert len(done) == len(set(done))
    of_base = ("heldout_rows", "base_scores", "judge_calibration", "anchor_texts")
    assert set(done[: len(of_base)]) == {(BASE, name) for name in of_base}
    assert ("0002", "promoted_adapter") in done
    facts = project.store.pointed("tiny", "0001", "domain_dataset").facts
    assert sum(facts[f"{split}_rows"] for split in ("train", "validation", "test")) == 60, "nothing was read too early"

    with Ui(experiment, "--watch") as ui:
        for sensor in ("landing", "loop_driver"):
            ui.forget_cursor(sensor)
        ui.until(lambda: len(ui.said("landing")) >= 2 and ui.said("loop_driver")[:1] == [reason], 180)
        assert [run["runId"] for run in ui.runs()] == [run["runId"] for run in runs]
        assert computed(project) == done

        tiny.write_jsonl(path.with_name("more.jsonl"), learnable_rows(80)[60:])
        ui.until_said("landing", "opened iteration 0003 with more.jsonl")
        ui.until_end(runs=len(runs) + 1)
        later = ui.runs()[len(runs) :]
        assert {run["status"] for run in later} == {"SUCCESS"}
        # The base model is scored on the new rows too; the gate of 0001, which compares with it, says the same.
        order = [("score_base", None), ("iterate", "0001"), ("iterate", "0003")]
        assert [run["of"] for run in later][:3] == order
        assert_one_at_a_time(ui.runs())
    new = computed(project)[len(done) :]
    assert [key for key in new if key[0] in ("0001", "0002")] == [("0001", "gate")]
    assert ("0003", "promoted_adapter") in new
    assert project.planner().promoted_before("0004") == "0003"


def test_dagster_ends_with_the_command_that_is_killed(tmp_path):
    there = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(there)!r}).write_text(str(os.getpid())); time.sleep(60)"
    code = (
        f"import sys; from apt_assets.orchestration.ui import passed_on; passed_on([sys.executable, '-c', {child!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        pid = int(waiting.until(lambda: there.exists() and there.read_text(), 60))
        process.kill()
    waiting.until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 20)


def test_iterations_asked_for_in_the_ui_run_in_order_one_at_a_time_and_a_gap_is_refused(ran):
    experiment = ran(1)
    with Ui(experiment) as ui:
        before = len(ui.runs())
        ui.materialize("0002")
        ui.until_done(before + 1)
        ui.backfill("0003", "0004", "0005")
        runs = ui.until_done(before + 4)[before:]
        assert [run["of"][1] for run in runs] == ["0002", "0003", "0004", "0005"]
        assert {run["of"][0] for run in runs[1:]} == {"iterate"}
        assert {run["status"] for run in runs} == {"SUCCESS"}
        assert_one_at_a_time(runs)
        done = computed(Project.open(experiment))
        assert len(done) == len(set(done))
        assert {("0002", "promoted_adapter"), ("0005", "promoted_adapter")} <= set(done)

        ui.backfill("0007")
        refused = ui.until_done(before + 5)[-1]
        assert refused["status"] == "FAILURE"
        failures = ui.failures(refused)
        assert any("0007 does not run: iteration 0006 was never opened" in failure for failure in failures.values())
        assert "0007" not in Project.open(experiment).store.iterations("tiny")
        assert not {"eval_predictions", "adapter_checkpoint", "promoted_adapter"} & set(failures)
        assert ui.said("loop_driver") == ui.said("landing") == [], "without --watch both sensors are off"
        ui.process.send_signal(signal.SIGINT)
        assert ui.process.wait(60) == 130
    assert run_loop(Project.open(experiment), 5, Display()).computed == []
