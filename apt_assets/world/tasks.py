"""The general benchmark's tasks: where their files lie, and what they are by content."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apt_assets.settings.experiment import REPOSITORY, Experiment, UsageError
from apt_assets.settings.reader import expanded
from resources.store.digest import digest_json
from resources.store.file_digests import FileDigests

if TYPE_CHECKING:
    from resources.model.lm_eval_tasks import Task


@dataclass
class Tasks:
    """The lm-eval tasks of one experiment. data: where their data lie if not beside them."""

    experiment: Experiment
    data: Path
    digests: FileDigests

    @property
    def folder(self) -> Path:
        """Folder of the task files, relative to the repository. Raises UsageError if missing."""
        folder = REPOSITORY / expanded(self.experiment.benchmarks.folder, "benchmarks.folder")
        if not folder.is_dir():
            raise UsageError(f"benchmarks.folder: no such folder: {folder}; name one that holds the task files")
        return folder

    def load(self, items: dict[str, int | None]) -> "list[Task]":
        """The named tasks, each with its first items. Raises TaskError, see `load_tasks`."""
        from resources.model.lm_eval_tasks import load_tasks

        return load_tasks(self.folder, items, self.data)

    def identity(self) -> str:
        """Content of the tasks that the experiment names, and of their data files."""
        from resources.model.lm_eval_tasks import task_identity

        names = sorted(self.experiment.benchmarks.tasks)
        return digest_json([task_identity(self.folder / f"{n}.yaml", self.data, self.digests.file) for n in names])
