"""Training by two workers of a Ray cluster, of which one is killed, and what is said where they cannot train."""

import polars as pl
import psutil
import pytest
from safetensors.torch import load_file

from apt_assets.engine.display import Display
from apt_assets.engine.nodes import package_folders
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from resources import cluster
from resources.training import checkpoints
from resources.training.checkpoints import Checkpoints
from tests.test_anchor import close
from tests.test_parts import same

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.cluster

EPOCHS = 6  # of a few steps each: long enough for a worker to be killed on the way


@pytest.fixture(scope="module", autouse=True)
def two_places():
    """This process drives a cluster of this machine with two places, however many cores there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "cores", lambda: 2)
        cluster.connect(None, [*package_folders().values()])
    yield
    ray.shutdown()


class Told(Display):
    def __init__(self):
        super().__init__()
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def trained(experiment):
    """(manifest, log, adapter's tensors, lines for people) of the first iteration of a project that is computed now."""
    display, project = Told(), Project.open(experiment)
    result = run_loop(project, 1, display)
    assert result.passed, result.reason
    manifest = project.planner().stage("0001", "adapter_checkpoint").manifest
    folder = project.store.open(manifest)
    log, adapter = pl.read_parquet(folder / "training_log.parquet"), load_file(folder / "adapter_model.safetensors")
    return manifest, log, adapter, display.lines


def test_loop_whose_training_loses_a_worker_goes_on_at_its_checkpoint_to_the_adapter_of_one_process(
    ran, make_experiment, monkeypatch
):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    taken, take = [], Checkpoints.take

    def take_and_kill(kept, name, files):
        take(kept, name, files)
        taken.append(int(name.removeprefix("step-")))
        if len(taken) == 2:
            workers = [its for its in psutil.process_iter(["cmdline"]) if is_worker(its)]
            assert len(workers) == 2
            workers[1].kill()

    monkeypatch.setattr(Checkpoints, "take", take_and_kill)
    manifest, log, adapter, lines = trained(ran(1, training={"epochs": EPOCHS, "workers": 2}))
    assert taken == list(range(1, log.height + 1)), "no step that was kept is made again"
    assert sum("a worker of the training was lost" in line for line in lines) == 1
    alone, log_alone, adapter_alone, _ = trained(make_experiment(training={"epochs": EPOCHS}))
    same(log, log_alone)
    assert close(adapter, adapter_alone, 1e-5)
    assert manifest.fingerprint != alone.fingerprint, "they round otherwise"
    assert manifest.files.keys() == alone.files.keys()
    assert ray.available_resources()["CPU"] == 2, "workers that are done give their places back"


def is_worker(process):
    return any("RayTrainWorker" in part for part in process.info["cmdline"] or ())


def test_cluster_with_too_few_places_says_how_many_workers_want_what(two_places):
    assert cluster.lacks({"CPU": 1}, 2) == ""
    assert cluster.lacks({"CPU": 1}, 3) == (
        "the cluster has only 2 times 1 CPU, which each of 3 workers wants; its 1 nodes have 2 CPU, 0 GPU"
    )


def test_workers_without_ray_are_told_what_to_install(ran, monkeypatch):
    def absent(*arguments):
        raise ModuleNotFoundError("No module named 'ray'")

    monkeypatch.setattr(cluster, "connect", absent)
    result = run_loop(Project.open(ran(1, training={"workers": 2})), 1, Told())
    assert not result.passed
    assert "training.workers needs Ray: pip install 'apt-assets[cluster]'" in result.reason
