"""MLflow: an iteration is a run of the experiment of its name, a promoted adapter a version of the registered model
of that name. `MLFLOW_TRACKING_URI` says where."""

import os
import time
from typing import TYPE_CHECKING, Any

from apt_assets.settings.experiment import UsageError
from apt_assets.tracking.record import Record, in_words

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from apt_assets.project import Project

ENVIRONMENT = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
# The library's own would have a run wait for minutes for a server that is not there.
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
AT_ONCE = 100  # parameters and tags; a server takes no more
ALIAS = "promoted"
DIGEST = "apt.digest"


def send(project: "Project", record: Record) -> str:
    """One run with the settings as parameters, scores and curves as metrics, and the report. Of a promoted adapter
    also the adapter, which becomes a version of the registered model, with the record's tags."""
    client = connect()
    experiment = experiment_of(client, record.experiment)
    run = finished_run(client, experiment, record) or new_run(client, experiment, record)
    if record.outcome.promoted and record.adapter is not None and version_of(client, record) is None:
        client.log_artifacts(run, str(record.adapter), "adapter")
        source = f"{client.get_run(run).info.artifact_uri}/adapter"
        client.create_model_version(record.experiment, source, run_id=run, tags=record.tags)
    return f"run {run}"


def promote(record: Record) -> None:
    """Point the alias at the version of this record. Without one, as where gc removed the adapter before it was sent,
    there is nothing to point at."""
    client = connect()
    if (version := version_of(client, record)) is not None:
        client.set_registered_model_alias(record.experiment, ALIAS, version)


def connect() -> "MlflowClient":
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UsageError("set MLFLOW_TRACKING_URI to the address of the server, such as http://localhost:5000")
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def experiment_of(client: "MlflowClient", name: str) -> str:
    found = client.get_experiment_by_name(name)
    return client.create_experiment(name) if found is None else found.experiment_id


def finished_run(client: "MlflowClient", experiment: str, record: Record) -> str | None:
    """The run that has the record. One that was interrupted is deleted."""
    found = client.search_runs([experiment], f"tags.`{DIGEST}` = '{record.outcome.digest}'")
    for run in found:
        if run.info.status == "FINISHED":
            return run.info.run_id
        client.delete_run(run.info.run_id)
    return None


def new_run(client: "MlflowClient", experiment: str, record: Record) -> str:
    from mlflow.entities import Metric, Param, RunTag

    run = client.create_run(experiment, run_name=record.name, tags={DIGEST: record.outcome.digest}).info.run_id
    now = int(1000 * time.time())
    curve = [(f"training/{n}", value, int(at["step"])) for at in record.curve for n, value in at.items() if n != "step"]
    scores = [(name, value, 0) for name, value in record.scores.items()]
    metrics = [Metric(name, value, now, step) for name, value, step in [*scores, *curve]]
    params = [Param(name, in_words(value)) for name, value in record.settings.items()]
    for some in in_parts(metrics):
        client.log_batch(run, metrics=some)
    for some in in_parts(params):
        client.log_batch(run, params=some)
    for some in in_parts([RunTag(name, value) for name, value in record.tags.items()]):
        client.log_batch(run, tags=some)
    client.log_artifact(run, str(record.report))
    client.set_terminated(run)
    return run


def version_of(client: "MlflowClient", record: Record) -> str | None:
    """The version of the registered model that has the record's adapter; the model is made if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(record.experiment)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(record.experiment)
    found = client.search_model_versions(f"name='{record.experiment}'")
    same = (version for version in found if version.tags.get(DIGEST) == record.outcome.digest)
    return next((version.version for version in same), None)


def in_parts(values: list[Any]) -> list[list[Any]]:
    return [values[start : start + AT_ONCE] for start in range(0, len(values), AT_ONCE)]
