"""TensorBoard: an iteration is a folder of event files below `tensorboard/` of the project's folder."""

import shutil
from typing import TYPE_CHECKING

from apt_assets.report.markdown import table
from apt_assets.tracking.record import Record, in_words
from resources.store.digest import temporary_folder

if TYPE_CHECKING:
    from apt_assets.project import Project

ENVIRONMENT = ()


def send(project: "Project", record: Record) -> str:
    """A folder by the name of the record: scores and curves as scalars, settings and tags as text, the report beside
    them. It is there whole or not at all."""
    from torch.utils.tensorboard import SummaryWriter

    target = project.home / "tensorboard" / record.experiment / record.name
    with temporary_folder(project.home / ".apt" / "tracked") as folder, SummaryWriter(str(folder)) as writer:
        for name, value in record.scores.items():
            writer.add_scalar(name, value)
        for at in record.curve:
            for name, value in at.items():
                if name != "step":
                    writer.add_scalar(f"training/{name}", value, int(at["step"]))
        settings = ([name, in_words(value)] for name, value in record.settings.items())
        writer.add_text("settings", table(["setting", "value"], settings))
        writer.add_text("about", table(["what", "value"], (list(one) for one in record.tags.items())))
        writer.close()
        shutil.copyfile(record.report, folder / "report.html")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        folder.replace(target)
    return str(target)
