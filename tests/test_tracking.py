"""What trackers get, read back by their own readers, and what they can do to a run: nothing."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from apt_assets.engine.display import Display
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.tracking import beside
from apt_assets.tracking.outcome import outcomes
from apt_assets.tracking.record import numbers
from apt_assets.tracking.send import send_all
from tests import tiny, waiting
from tests.postgres import free_port

pytestmark = pytest.mark.slow("processes")

LOCAL = ("tensorboard", "trackio", "wandb")
HERE = [name for name in LOCAL if find_spec(name) is not None]


def needs(name: str) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install -e '.[{name}]'")


def with_trackers(file: Path, *names: str) -> Path:
    file.write_text(f"{file.read_text()}\ntracking: [{', '.join(names)}]\n")
    return file


def run_names(project: Project) -> list[str]:
    return [f"tiny-{one.iteration}-{one.digest[:12]}" for one in outcomes(project, project.planner())]


def test_score(project: Project, key: str) -> dict[str, float]:
    planner = project.planner()
    return planner.stage(key, planner.scored_by(key)).manifest.facts["domain"]["test"]["exact"]


test_score.__test__ = False


def losses(project: Project, key: str) -> list[float]:
    from resources.store.tables import read_table

    manifest = project.planner().stage(key, "adapter_checkpoint").manifest
    return read_table(project.artifact(manifest) / "training_log.parquet")["loss"].to_list()


# -- trackers that keep what they get on this machine ---------------------------------------------------


@pytest.fixture(scope="module")
def told(loops, tiny_folder, tmp_path_factory):
    """A project with two iterations, after `apt-assets track` to each of LOCAL that is installed."""
    home = shutil.copytree(loops / "twice", tmp_path_factory.mktemp("told") / "home")
    project = tiny.open_project(home, tiny_folder, policy={"system_prompt": None})
    with_trackers(home / "tiny.yaml", *HERE)
    track(home, sent={name: ["0001", "0002"] for name in HERE})
    return project


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "APT_HOME": str(home), "WANDB_MODE": "offline", "TRACKIO_DIR": str(home / "trackio")}


def track(home: Path, sent: dict[str, list[str]]) -> None:
    command = [sys.executable, "-m", "apt_assets.cli", "track", "--json", "-e", str(home / "tiny.yaml")]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: list(runs) for name, runs in json.loads(done.stdout)["sent"].items()} == sent


def test_tensorboard_reads_curves_scores_with_intervals_and_settings_of_each_iteration(told):
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = told.home / "tensorboard" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == run_names(told)
    for key, name in zip(("0001", "0002"), run_names(told), strict=True):
        found = EventAccumulator(str(folder / name)).Reload()
        curve = found.Scalars("training/loss")
        assert [at.step for at in curve] == list(range(1, len(curve) + 1))
        assert [at.value for at in curve] == pytest.approx(losses(told, key))
        for part, tag in (("mean", ""), ("low", "_low"), ("high", "_high"), ("n", "_n")):
            (score,) = found.Scalars(f"domain/test/exact{tag}")
            assert score.value == pytest.approx(test_score(told, key)[part])
        (settings,) = found.Tensors("settings/text_summary")
        assert "| mining.questions | 12 |" in settings.tensor_proto.string_val[0].decode()
        assert "tiny" in (folder / name / "report.html").read_text()


def test_trackio_shows_each_iteration_as_a_run(told):
    needs("trackio")

    def asked(*arguments):
        command = [str(Path(sys.executable).with_name("trackio")), *arguments, "--project", "tiny", "--json"]
        return json.loads(subprocess.check_output(command, env=environment(told.home), text=True, timeout=60))

    assert sorted(asked("list", "runs")["runs"]) == run_names(told)
    found = asked("get", "metric", "--run", run_names(told)[1], "--metric", "training/loss")["values"]
    assert [at["value"] for at in found] == pytest.approx(losses(told, "0002"))


def test_wandb_keeps_each_iteration_as_a_run_to_be_synced(told):
    needs("wandb")
    files = sorted(told.home.glob("wandb/offline-run-*/run-*.wandb"))
    records = [wandb_records(file) for file in files]
    names = [record.run.display_name for one in records for record in one if record.HasField("run")]
    assert sorted(names) == run_names(told)
    logged = [{item.nested_key[0] or item.key: item.value_json for item in record.history.item}
              for record in records[0] if record.HasField("history")]  # fmt: skip
    curve = [float(at["training/loss"]) for at in logged if "training/loss" in at]
    assert curve == pytest.approx(losses(told, "0001"))
    settings = {u.nested_key[0] if u.nested_key else u.key: u.value_json
                for record in records[0] if record.HasField("run") for u in record.run.config.update}  # fmt: skip
    assert settings["mining.questions"] == "12"


def wandb_records(file: Path) -> list:
    """The records of a run's file, which is a log as LevelDB writes it: a head of seven bytes, blocks of 32 KiB, each
    record with its sum, length and part."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


def test_what_was_sent_once_is_not_sent_again_and_a_lost_memory_makes_no_second_run(told, monkeypatch):
    if not HERE:
        needs(LOCAL[0])
    for name, value in environment(told.home).items():
        monkeypatch.setenv(name, value)
    assert beside.is_up_to_date(Project.open(told.home / "tiny.yaml"))
    monkeypatch.setenv("WANDB_ENTITY", "another")
    assert beside.is_up_to_date(Project.open(told.home / "tiny.yaml")) == ("wandb" not in HERE)
    shutil.rmtree(told.home / ".apt" / "tracked")
    track(told.home, sent={name: ["0001", "0002"] for name in HERE})
    if "tensorboard" in HERE:
        assert len(list((told.home / "tensorboard" / "tiny").iterdir())) == 2
    if "trackio" in HERE:
        test_trackio_shows_each_iteration_as_a_run(told)
    ids = {file.name for file in told.home.glob("wandb/offline-run-*/run-*.wandb")}
    assert len(ids) == (2 if "wandb" in HERE else 0)


# -- what a tracker can do to a run ----------------------------------------------------------------------


class Lines(Display):
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def test_tracker_that_is_down_costs_one_line_and_no_result_and_the_others_get_their_runs(
    ran, loops, tiny_folder, tmp_path, monkeypatch
):
    needs("tensorboard")
    monkeypatch.setattr(beside, "DOWN", set())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    project = Project.open(with_trackers(ran(1), "mlflow", "tensorboard"))
    shown = Lines()
    result = run_loop(project, 2, shown)
    assert result.passed
    assert ("0002", "adapter_checkpoint") in result.computed
    (told,) = [line for line in shown.lines if "not tracked" in line]
    assert "mlflow: " in told
    assert "tensorboard" not in told
    assert sorted(path.name for path in (tmp_path / "tensorboard" / "tiny").iterdir()) == run_names(project)
    # To the bit what it is without trackers.
    without = tiny.open_project(loops / "twice", tiny_folder, policy={"system_prompt": None})
    assert outcomes(project, project.planner()) == outcomes(without, without.planner())


def test_run_that_changes_nothing_starts_no_process_for_its_trackers(ran, monkeypatch):
    needs("tensorboard")
    project = Project.open(with_trackers(ran(2), "tensorboard"))
    assert list(send_all(project).sent["tensorboard"]) == ["0001", "0002"]
    monkeypatch.setattr(beside, "answer_of", lambda project: pytest.fail("a process was started"))
    assert run_loop(project, 2, Display()).passed


def test_process_that_says_nothing_in_time_is_ended_with_those_it_started(ran, monkeypatch, tmp_path):
    monkeypatch.setattr(beside, "DOWN", set())
    monkeypatch.setattr(beside, "PATIENCE", 0.5)
    hangs = tmp_path / "python"
    hangs.write_text(f"#!/bin/sh\nsleep 600 & echo $! > {tmp_path}/started\nwait\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hangs))
    told = []
    beside.send_beside(Project.open(with_trackers(ran(1), "tensorboard")), told.append)
    assert len(told) == 1
    assert "the run goes on" in told[0]
    assert waiting.until(lambda: not is_alive(int((tmp_path / "started").read_text())), 30)


def is_alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_what_trained_nothing_and_what_is_stale_is_no_outcome(ran):
    assert [one.iteration for one in outcomes(*looked_at(ran(2)))] == ["0001", "0002"]
    assert outcomes(*looked_at(ran(2, assessor={"bad_below": 2}))) == []
    # The same rows, whatever stands in the settings: the same outcomes, and no new run.
    same = outcomes(*looked_at(ran(2, loop={"max_iterations": 7}, compute={"engine": "local"})))
    assert [one.digest for one in same] == [one.digest for one in outcomes(*looked_at(ran(2)))]


def looked_at(file: Path):
    project = Project.open(file)
    return project, project.planner()


def test_password_in_the_address_of_a_tracker_is_not_told(ran, monkeypatch):
    needs("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    project = Project.open(with_trackers(ran(1), "mlflow"))
    found = send_all(project)
    assert "mlflow" in found.failed
    assert "secret" not in str(found)


def test_tasks_with_names_in_other_letters_keep_their_scores_apart():
    found = dict(numbers({"颜色": {"accuracy": 0.1}, "形状": {"accuracy": 0.2}, "a task": {"accuracy": 0.3}}))
    assert sorted(found.values()) == [0.1, 0.2, 0.3]
    assert len(dict(numbers({"a b": {"n": 1}, "a_b": {"n": 2}}))) == 2
    assert found["a_task/accuracy"] == 0.3
