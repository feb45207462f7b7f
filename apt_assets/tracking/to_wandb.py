"""Weights & Biases: an iteration is a run of the project of the experiment's name. `WANDB_MODE=offline` keeps it here,
until `wandb sync` sends it."""

import os
from typing import TYPE_CHECKING

from apt_assets.tracking.record import Record

if TYPE_CHECKING:
    from apt_assets.project import Project

ENVIRONMENT = ("WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_PROJECT", "WANDB_MODE", "WANDB_DIR")
PATIENCE = 30  # seconds for a server to answer, and then to take it all


def send(project: "Project", record: Record) -> str:
    """One run whose id is of the record's digest, so that what is sent twice is there once. Its files go below
    $WANDB_DIR, or else the project's folder."""
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=PATIENCE,
        finish_timeout=PATIENCE,
        finish_timeout_raises=True,
        x_disable_stats=True,
        x_disable_meta=True,  # of this process and machine, of which the iteration knows nothing
        disable_git=True,
    )
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or record.experiment,
        id=record.outcome.digest[:32],
        name=record.name,
        resume="allow",
        dir=os.environ.get("WANDB_DIR") or project.home,
        config={**record.settings, "apt": record.tags},
        tags=[record.tags["apt.gate"]],
        settings=settings,
    )
    run.define_metric("training/*", step_metric="training/step")
    for at in record.curve:
        run.log({f"training/{name}": value for name, value in at.items()})
    run.log({"report": wandb.Html(record.report.read_text(encoding="utf-8"), inject=False)})
    run.summary.update(record.scores)
    run.finish()
    return f"offline, id {run.id}" if run.offline else str(run.url)
