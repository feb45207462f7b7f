"""Where a process is killed: traps that are set in the loop's own code, each springs once.

A trap is (iteration, stage, point). POINTS says which there are, in the order in which a stage comes to them.
"""

import os
import random
import threading
from pathlib import Path
from typing import Any

from tests.torture.processes import die

AFTER_EVENT = "after Dagster's event"
WITH_ROWS = ("base_scores", "eval_predictions", "similar_predictions", "adapter_checkpoint", "benchmark_scores")
# Point -> the stages that come to it; None: all.
POINTS: dict[str, tuple[str, ...] | None] = {
    "before it computes": None,
    "half of a batch of rows written": WITH_ROWS,
    "after a batch of rows": WITH_ROWS,
    "before vectors are added": ("retrieval_index",),
    "while vectors are added": ("retrieval_index",),
    "after vectors are added": ("retrieval_index",),
    "in a training step": ("adapter_checkpoint",),
    "half of a checkpoint written": ("adapter_checkpoint",),
    "half of a file written": None,
    "after the artifact, before the manifest": None,
    "half of the manifest written": None,
    "between manifest and pointer": None,
    "between pointer and journal": None,
    "between journal and Dagster's event": None,
    AFTER_EVENT: None,
}


# Points of a stage that is reused, as the second iteration reuses what it has in common with the first.
OF_A_HIT = ("between manifest and pointer", "between pointer and journal", "between journal and Dagster's event")


class Trap:
    """Kills this process when `stage` of `iteration` comes to `point`; dice: at which step or moment. If the
    stage does not come to it, the process notes that in `missed` and dies all the same."""

    def __init__(self, iteration: str, stage: str, point: str, dice: random.Random, missed: Path):
        self.where, self.point, self.dice, self.missed = (iteration, stage), point, dice, missed
        self.inside = False  # this stage is being run
        self.step = 0  # of training, at which it springs; 0: not drawn yet

    def set(self) -> None:
        """Put the trap into the code."""
        import apt_assets.orchestration.assets as assets
        from apt_assets.engine import execute
        from resources.store.local import LocalStore
        from resources.store.records import Records
        from resources.store.row_file import RowFile
        from resources.training import checkpoints

        checkpoints.SECONDS = 0.0
        run_stage, compute = assets.run_stage, execute.compute

        def run(project: Any, iteration: str, name: str, **more: Any) -> Any:
            if self.inside:
                die()  # the next stage begins, so the event of this one is there
            mine = (iteration, name) == self.where
            self.inside = mine
            outcome = run_stage(project, iteration, name, **more)
            if mine and self.point == "between journal and Dagster's event":
                die()
            if mine and self.point != AFTER_EVENT:
                self.missed.write_text(self.point)
                die()
            return outcome

        def computing(project: Any, planner: Any, plan: Any, *more: Any) -> Any:
            if self.point == "before it computes":
                self.spring()
            return compute(project, planner, plan, *more)

        assets.run_stage, execute.compute = run, computing
        self.before(LocalStore, "commit", self.half_of_a_file, "half of a file written")
        put = Records.put

        def putting(records: Any, place: str, content: dict[str, Any]) -> None:
            kind = place.split("/")[0]
            if kind == "traces" and self.point == "after the artifact, before the manifest":
                self.spring()
            if kind == "traces" and self.point == "half of the manifest written":
                self.half_at_rename()
            if kind == "pointers" and self.point == "between manifest and pointer":
                self.spring()
            put(records, place, content)
            if kind == "pointers" and self.point == "between pointer and journal":
                self.spring()

        Records.put = putting  # type: ignore[method-assign]
        self.before(RowFile, "_append", self.half_of_a_batch, "half of a batch of rows written")
        self.after(RowFile, "_append", "after a batch of rows")
        self.before(checkpoints.Checkpoints, "after_step", self.at_some_step, "in a training step")
        if self.point == "half of a checkpoint written":
            save = checkpoints.save

            def saving(trainer: Any, folder: Path) -> None:
                save(trainer, folder)
                if self.at_its_step(trainer):
                    halve(folder / "optimizer.safetensors")
                    die()

            checkpoints.save = saving
        if self.point.endswith("vectors are added"):
            import lancedb.table

            self.before(lancedb.table.LanceTable, "add", lambda *_: self.spring(), "before vectors are added")
            self.before(lancedb.table.LanceTable, "add", lambda *_: self.spring_soon(), "while vectors are added")
            self.after(lancedb.table.LanceTable, "add", "after vectors are added")

    # -- how it springs ----------------------------------------------------------------------------

    def spring(self) -> None:
        if self.inside:
            die()

    def spring_soon(self) -> None:
        if self.inside:
            timer = threading.Timer(self.dice.uniform(0, 0.02), die)
            timer.daemon = True
            timer.start()

    def before(self, owner: Any, name: str, act: Any, point: str) -> None:
        """Call `act` with the arguments before `owner.name`, if this is the trap's point."""
        if self.point != point:
            return
        function = getattr(owner, name)

        def acting(*given: Any, **more: Any) -> Any:
            act(*given)
            return function(*given, **more)

        setattr(owner, name, acting)

    def after(self, owner: Any, name: str, point: str) -> None:
        """Die after `owner.name`, if this is the trap's point."""
        if self.point != point:
            return
        function = getattr(owner, name)

        def acting(*given: Any, **more: Any) -> Any:
            function(*given, **more)
            self.spring()

        setattr(owner, name, acting)

    def half_of_a_file(self, store: Any, workspace: Path) -> None:
        if self.inside:
            halve(self.dice.choice(sorted(path for path in workspace.rglob("*") if path.is_file())))
            die()

    def half_of_a_batch(self, table: Any, rows: dict[str, Any]) -> None:
        if self.inside:
            from resources.store.row_lines import BEFORE_KEY, BEFORE_VALUE

            line = b"\n%b%b%b" % (BEFORE_KEY, next(iter(rows)).encode(), BEFORE_VALUE)
            text = line if table.path.exists() else table._head + line
            with table.path.open("ab") as file:
                file.write(text[: self.dice.randint(1, len(text))])
            die()

    def at_some_step(self, kept: Any, trainer: Any, parts: Any) -> None:
        if self.at_its_step(trainer):
            die()

    def at_its_step(self, trainer: Any) -> bool:
        if self.inside and not self.step:
            self.step = self.dice.randint(trainer.state.global_step, trainer.state.max_steps)
        return self.inside and trainer.state.global_step == self.step

    def half_at_rename(self) -> None:
        """Die when the next temporary file is complete, after it was cut in half."""
        if not self.inside:
            return
        replace = Path.replace

        def dying(path: Path, target: Any) -> Any:
            if path.name.endswith(f".{os.getpid()}.{threading.get_ident()}"):
                halve(path)
                die()
            return replace(path, target)

        Path.replace = dying  # type: ignore[method-assign]


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)
