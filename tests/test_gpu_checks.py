"""benchmarks/gpu.py: whatever becomes of one check, the others run; and the checks hold on tiny models on a CPU."""

import json
import sys
from importlib.util import find_spec

import pytest

from benchmarks import gpu
from benchmarks.gpu_checks import alone, contests
from benchmarks.gpu_checks.made import make_headers
from benchmarks.gpu_checks.setup import Missing, Setup
from tests.waiting import within

LINE = 'print(\'{"outcome": "%s"}\')'


@pytest.fixture
def programs(monkeypatch):
    """A function (check -> the program that is run in its place): these are all checks there are."""

    def put(**programs: str) -> None:
        monkeypatch.setattr(gpu, "PLAN", tuple((check, (None,), 20) for check in programs))
        monkeypatch.setattr(gpu, "command", lambda check, setup: [sys.executable, "-c", programs[check]])

    return put


def outcomes(tmp_path, seconds=gpu.SECONDS, only=()):
    gpu.run_all("cpu", True, list(only), seconds, tmp_path / "gpu.json")
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert kept["tiny"]
    return {line["check"]: line for line in kept["checks"]}


def test_check_that_breaks_off_or_does_not_hold_leaves_the_others_and_is_kept_with_its_reason(programs, tmp_path):
    programs(
        broken="raise ValueError('no such card')", killed="import os; os.abort()", wrong=LINE % "failed",
        good="print('noise'); " + LINE % "ok",
    )  # fmt: skip
    found = outcomes(tmp_path)
    assert {check: line["outcome"] for check, line in found.items()} == {
        "broken": "error", "killed": "error", "wrong": "failed", "good": "ok"
    }  # fmt: skip
    assert "no such card" in found["broken"]["reason"]


def test_check_that_hangs_ends_at_its_limit_with_what_it_started_and_the_next_one_runs(programs, tmp_path, monkeypatch):
    alive = tmp_path / "alive"
    waiting = (
        f"import time, pathlib\nwhile True: pathlib.Path({str(alive)!r}).write_text(str(time.time())); time.sleep(.05)"
    )
    starter = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {waiting!r}])\ntime.sleep(60)"
    programs(hanging=starter, good=LINE % "ok")
    monkeypatch.setattr(gpu, "PLAN", (("hanging", (None,), 4), ("good", (None,), 60)))
    found = outcomes(tmp_path)
    assert found["hanging"]["outcome"] == "error"
    assert "not done within 4 s" in found["hanging"]["reason"]
    assert found["good"]["outcome"] == "ok"
    said = alive.read_text() if alive.exists() else None
    assert not within(0.3, lambda: alive.exists() and alive.read_text() != said), "what it started goes on"


def test_what_there_is_no_time_left_for_is_said_and_no_failure(programs, tmp_path, monkeypatch):
    programs(good=LINE % "ok")
    assert outcomes(tmp_path, seconds=0)["good"]["outcome"] == "no time left"
    assert gpu.main(["--tiny", "--device", "cpu", "--seconds", "0"]) == 0
    programs(wrong=LINE % "failed")
    assert gpu.main(["--tiny", "--device", "cpu"]) == 1


def test_without_the_device_no_other_check_is_begun(programs, tmp_path):
    programs(device="raise AssertionError('Torch not compiled with CUDA enabled')", good=LINE % "ok")
    assert list(outcomes(tmp_path)) == ["device"]


# -- the checks themselves, on tiny models -----------------------------------------------------------------


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    made = Setup("cpu", True, str(tmp_path_factory.mktemp("models")), "mistral-7b-v0.3")
    assert alone.weights(made)["files"] > 1
    return made


@pytest.mark.slow("model")
@pytest.mark.parametrize("check", [contests.training, contests.scores, contests.answers, alone.memory, alone.execution])
def test_check_holds_on_a_tiny_model_of_the_architecture(check, setup):
    found = check(setup)
    assert found["outcome"] == "ok", found
    json.dumps(found)


@pytest.mark.parametrize("model", gpu.MODELS)
def test_memory_that_is_told_of_a_7b_model_is_what_it_took_on_a_gpu(model, tmp_path):
    """Within the bound: for the peaks that benchmarks.gpu measured last."""
    from apt_assets.settings.experiment import REPOSITORY
    from apt_assets.settings.reader import load_experiment
    from resources.model.memory import Held, Pass, sizes_of, to_train

    lines = json.loads((gpu.RESULTS / "gpu.json").read_text())["checks"]
    found = {line["check"]: line for line in lines if line["model"] == model}
    taken = {stage: its["peak_gb"] for stage, its in found["memory"]["stages"].items()}
    taken |= {check: found[check]["ours"]["peak_gb"] for check in ("training", "nf4")}
    experiment, sizes = (
        load_experiment(REPOSITORY / "experiments" / f"{model}.yaml"),
        sizes_of(make_headers(model, tmp_path)),
    )
    told = alone.told_of(sizes, experiment, Held("bfloat16", device="cuda"))
    # Short pairs, whose system prompt all share, without gradient checkpointing.
    for check, quantization in (("training", "none"), ("nf4", "nf4")):
        told[check] = to_train(
            sizes, Held("bfloat16", quantization, "cuda"), Pass((120,) * 8, prefix=87), rank=16, targets="all-linear",
            answers=160, anchors=0, checkpointing=False,
        )  # fmt: skip
    off = {what: size / 1e9 / taken[what] - 1 for what, size in told.items()}
    assert off == {what: pytest.approx(0, abs=alone.ALLOWED) for what in taken}


@pytest.mark.slow("model")
def test_check_fails_where_its_bound_does_not_hold(setup, monkeypatch):
    from resources.model import agreement

    monkeypatch.setitem(agreement.NATS, "float32", -1.0)
    assert contests.scores(setup)["outcome"] == "failed"


def test_check_of_a_package_that_is_not_installed_is_skipped_with_its_name():
    if find_spec("bitsandbytes") is not None:
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(Missing, match="bitsandbytes is not installed"):
        contests.nf4(Setup("cuda", True, "nowhere", gpu.MODELS[0]))
