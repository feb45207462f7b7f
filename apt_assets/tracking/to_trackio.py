"""Trackio: an iteration is a run of the project of the experiment's name. It lies in SQLite below `TRACKIO_DIR`,
unless `TRACKIO_SERVER_URL` or `TRACKIO_SPACE_ID` names another place."""

import os
from typing import TYPE_CHECKING

from apt_assets.tracking.record import Record

if TYPE_CHECKING:
    from apt_assets.project import Project

ENVIRONMENT = ("TRACKIO_DIR", "TRACKIO_SERVER_URL", "TRACKIO_SPACE_ID")


def send(project: "Project", record: Record) -> str:
    """One run by the name of the record. What is there by that name is half of one, or was sent before the memory of
    it was lost: here it is removed first; elsewhere it is gone on with."""
    import trackio

    elsewhere = bool(os.environ.get("TRACKIO_SERVER_URL") or os.environ.get("TRACKIO_SPACE_ID"))
    if not elsewhere:
        remove(record)
    trackio.init(
        project=record.experiment,
        name=record.name,
        config={**record.settings, **record.tags},
        resume="allow",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    for at in record.curve:
        values = {f"training/{name}": value for name, value in at.items() if name != "step"}
        trackio.log(values, step=int(at["step"]))
    said = "\n".join(f"- {name}: {value}" for name, value in record.tags.items())
    trackio.log({**record.scores, "about": trackio.Markdown(said)})
    trackio.finish()
    return f"run {record.name}"


def remove(record: Record) -> None:
    import trackio

    try:
        there = trackio.Api().runs(record.experiment)
    except ValueError:
        return  # no such project yet
    for run in there:
        if run.name == record.name:
            run.delete()
