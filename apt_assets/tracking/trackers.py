"""The trackers that there are. A new one is a file with a function that sends a `Record`, and an entry here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apt_assets.tracking import to_mlflow, to_tensorboard, to_trackio, to_wandb

if TYPE_CHECKING:
    from apt_assets.project import Project
    from apt_assets.tracking.record import Record


@dataclass(frozen=True)
class Tracker:
    """One tracker, by its name in `tracking`, which is also that of the extra that installs it.

    package: what has to be importable.
    environment: the variables, read by the tracker's own library, that say where it sends to and as whom.
    send: sends a record as one run, and returns where that is. What is there already, or half of it, it finds by the
    record's digest: called twice there is one run. It may raise anything.
    promote: tells the tracker which of the records that it has is the one to serve; None: it has no such notion.
    """

    name: str
    package: str
    environment: tuple[str, ...]
    send: "Callable[[Project, Record], str]"
    promote: "Callable[[Record], None] | None" = None

    @property
    def keeps_adapters(self) -> bool:
        return self.promote is not None


TRACKERS = {
    tracker.name: tracker
    for tracker in (
        Tracker("mlflow", "mlflow", to_mlflow.ENVIRONMENT, to_mlflow.send, to_mlflow.promote),
        Tracker("wandb", "wandb", to_wandb.ENVIRONMENT, to_wandb.send),
        Tracker("trackio", "trackio", to_trackio.ENVIRONMENT, to_trackio.send),
        Tracker("tensorboard", "tensorboard", to_tensorboard.ENVIRONMENT, to_tensorboard.send),
    )
}
