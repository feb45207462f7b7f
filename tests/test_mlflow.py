"""A real MLflow server with SQLite on loopback. It has pins that do not go with ours, so that it lives in an
environment of its own: `python -m venv E && E/bin/pip install mlflow==3.17.2`, and APT_MLFLOW=E/bin/mlflow."""

import os
import shutil
import subprocess
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from apt_assets.project import Project
from apt_assets.tracking.outcome import outcomes
from apt_assets.tracking.send import send_all
from resources.store.digest import digest_file
from tests.postgres import free_port
from tests.test_tracking import losses, test_score, with_trackers
from tests.waiting import until

SERVER = os.environ.get("APT_MLFLOW")
pytestmark = [
    pytest.mark.slow("processes"),
    pytest.mark.skipif(find_spec("mlflow") is None, reason="no client: pip install -e '.[mlflow]'"),
    pytest.mark.skipif(SERVER is None, reason="no server: $APT_MLFLOW names its command, see the top of this file"),
]
test_score.__test__ = False


def answers(address):
    try:
        return urllib.request.urlopen(f"{address}/health", timeout=5).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    address = f"http://127.0.0.1:{port}"
    command = [SERVER, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "kept")]
    own = {**os.environ, "HOME": str(folder), "DO_NOT_TRACK": "true"}
    own.pop("PYTHONPATH", None)
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, env=own, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            until(lambda: answers(address) or process.poll() is not None, 120, 0.5)
            assert process.poll() is None, (folder / "log").read_text()
            yield address
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def client(server, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    return MlflowClient(server)


def test_iterations_are_runs_promoted_adapters_versions_and_nothing_is_there_twice(client, ran, tmp_path):
    project = Project.open(with_trackers(ran(2), "mlflow"))
    first, second = outcomes(project, project.planner())
    # Half a run of the second, as one that was killed leaves it.
    experiment = client.create_experiment("tiny")
    left = client.create_run(experiment, tags={"apt.digest": second.digest}).info.run_id

    assert send_all(project).failed == {}
    runs = {run.data.tags["apt.iteration"]: run for run in client.search_runs([experiment])}
    assert sorted(runs) == ["0001", "0002"]
    assert left not in {run.info.run_id for run in runs.values()}
    for key, outcome in (("0001", first), ("0002", second)):
        run = runs[key]
        assert run.info.status == "FINISHED"
        assert run.data.params["mining.questions"] == "12"
        assert run.data.metrics["domain/test/exact_high"] == pytest.approx(test_score(project, key)["high"])
        curve = client.get_metric_history(run.info.run_id, "training/loss")
        assert [at.value for at in sorted(curve, key=lambda at: at.step)] == pytest.approx(losses(project, key))
        assert run.data.tags["apt.artifact.adapter_checkpoint"] == f"sha256:{outcome.artifacts['adapter_checkpoint']}"
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"report.html", "adapter"}

    served = client.get_model_version_by_alias("tiny", "promoted")
    assert served.run_id == runs["0002"].info.run_id
    assert served.tags["apt.gate"] == "promoted"
    assert served.tags["apt.gate.reason"].startswith("domain passed")
    fetched = Path(client.download_artifacts(served.run_id, "adapter", str(tmp_path / "fetched")))
    kept = project.artifact(project.planner().stage("0002", "promoted_adapter").manifest)
    assert digest_file(fetched / "adapter_model.safetensors") == digest_file(kept / "adapter_model.safetensors")

    shutil.rmtree(project.home / ".apt" / "tracked")
    assert send_all(project).failed == {}
    assert len(client.search_runs([experiment])) == 2
    assert len(client.search_model_versions("name='tiny'")) == 2


def test_alias_goes_back_to_an_earlier_adapter_although_its_run_was_sent_long_ago(client, ran, tmp_path):
    def promoted():
        found = send_all(Project.open(with_trackers(tmp_path / "tiny.yaml", "mlflow")))
        assert found.failed == {}
        return list(found.sent["mlflow"]), client.get_model_version_by_alias("tiny", "promoted").tags["apt.iteration"]

    ran(1)
    promoted()
    ran(2)
    assert promoted()[1] == "0002"
    # As after a setting was changed back, with which there is no second iteration.
    (tmp_path / ".apt" / "store" / "snapshots" / "tiny" / "0002.json").unlink()
    ran(1)
    assert promoted() == ([], "0001")
