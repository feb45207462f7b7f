"""What a tracker has got already: a small file of the project for each experiment and tracker."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apt_assets.project import Project
from apt_assets.tracking.outcome import Outcome, served
from apt_assets.tracking.trackers import Tracker
from resources.store.digest import digest_json
from resources.store.sealed import Damaged, read_sealed, write_sealed


@dataclass
class Sent:
    """What was sent to one place. Another server, project or folder is another place, to which all is sent.

    runs: an outcome's digest -> where its run is. promoted: the digest of the outcome that the tracker was told is
    the one to serve.

    A file that is gone or damaged counts as nothing sent; the trackers themselves then know what they have.
    """

    path: Path
    runs: dict[str, str] = field(default_factory=dict)
    promoted: str | None = None

    @classmethod
    def read(cls, project: Project, tracker: Tracker) -> "Sent":
        # By digest: an address may hold a password.
        place = digest_json([os.environ.get(name) for name in tracker.environment])[:12]
        name = f"{tracker.name}-{place}.json"
        path = project.home / ".apt" / "tracked" / project.experiment.name / name
        try:
            found: dict[str, Any] = read_sealed(path, name)
        except (OSError, Damaged):
            return cls(path)
        return cls(path, found["runs"], found["promoted"])

    def write(self) -> None:
        write_sealed(self.path, self.path.name, {"runs": self.runs, "promoted": self.promoted})

    def lacks(self, found: list[Outcome]) -> list[Outcome]:
        """Those of the outcomes that were not sent yet."""
        return [one for one in found if one.digest not in self.runs]

    def is_up_to_date(self, found: list[Outcome]) -> bool:
        last = served(found)
        return not self.lacks(found) and (last is None or last.digest == self.promoted)
