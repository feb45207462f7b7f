"""`apt-assets track`: send to the experiment's trackers what they have not got yet."""

import re
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.report.export import write_adapter
from apt_assets.report.model_card import Names, model_card
from apt_assets.report.page import write_report
from apt_assets.settings.experiment import UsageError
from apt_assets.tracking.outcome import Outcome, outcomes, served
from apt_assets.tracking.record import Record, record_of
from apt_assets.tracking.sent import Sent
from apt_assets.tracking.trackers import TRACKERS, Tracker
from resources.store.digest import temporary_folder


@dataclass
class Sending:
    """What came of it. sent: tracker -> iteration -> where its run is. failed: tracker -> why, in one line."""

    sent: dict[str, dict[str, str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def send_all(project: Project) -> Sending:
    """Send each settled iteration that a tracker of `tracking` has not got yet, in order. A tracker that fails is
    told of, and the others go on. Raises UsageError if `tracking` names none."""
    if not project.experiment.tracking:
        raise UsageError("tracking names no tracker: set it in the experiment, such as tracking: [mlflow]")
    found = Sending()
    planner = project.planner()
    # One at a time: two would each see that a run is not there yet.
    with (
        project.store.locks.take(f"track-{project.experiment.name}"),
        temporary_folder(project.home / ".apt" / "tracked") as folder,
        redirect_stdout(sys.stderr),  # where some of the libraries say what they do
    ):
        desk = Desk(project, planner, folder)
        for name in project.experiment.tracking:
            try:
                send(desk, TRACKERS[name], found.sent.setdefault(name, {}))
            except Exception as error:  # whatever a library or a server raises
                found.failed[name] = reason_of(error)
    return found


@dataclass
class Desk:
    """What records are made from, and the folder in which their files are made once for all trackers."""

    project: Project
    planner: LoopPlanner
    folder: Path

    def record(self, outcome: Outcome, tracker: Tracker) -> Record:
        adapter = self.adapter(outcome) if tracker.keeps_adapters and outcome.promoted else None
        return record_of(self.project, self.planner, outcome, self.report(), adapter)

    def report(self) -> Path:
        page = self.folder / "report.html"
        if not page.is_file():
            write_report(self.project, page)
        return page

    def adapter(self, outcome: Outcome) -> Path | None:
        """The promoted adapter with its card, as `export` writes it; None if gc removed it."""
        key, target = outcome.iteration, self.folder / outcome.iteration
        manifest = self.planner.stage(key, "promoted_adapter").manifest
        assert manifest is not None, "it is promoted"
        if not self.project.store.complete(manifest):
            return None
        if not target.is_dir():
            names = Names.here(self.project)
            write_adapter(self.project.artifact(manifest), target, replace(names, base=names.hub or names.base))
            card = model_card(self.project, self.planner, key, names, merged=False)
            (target / "README.md").write_text(card, encoding="utf-8")
        return target


def send(desk: Desk, tracker: Tracker, sent: dict[str, str]) -> None:
    """Send to one tracker; `sent` is added to, and each run is remembered as soon as it is there."""
    if find_spec(tracker.package) is None:
        raise UsageError(f"it is not installed: pip install 'apt-assets[{tracker.name}]'")
    found = outcomes(desk.project, desk.planner)
    known = Sent.read(desk.project, tracker)
    for outcome in known.lacks(found):
        known.runs[outcome.digest] = tracker.send(desk.project, desk.record(outcome, tracker))
        sent[outcome.iteration] = known.runs[outcome.digest]
        known.write()
    last = served(found)
    if last is not None and last.digest != known.promoted:
        if tracker.promote is not None:
            tracker.promote(desk.record(last, tracker))
        known.promoted = last.digest
        known.write()


def reason_of(error: Exception) -> str:
    """What an error says, in one line and without the password that an address may hold."""
    said = re.sub(r"//[^/@\s]+@", "//", " ".join(str(error).split()))
    return said if isinstance(error, UsageError) else f"{type(error).__name__}: {said}"
