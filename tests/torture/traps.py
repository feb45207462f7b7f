"""Where a process is killed: traps that are set in the loop's own code, each springs once.

A trap is (iteration, stage, point). POINTS says which there are, in the order in which a stage comes to them.
"""

import os
import random
import threading
from pathlib import Path
from typing import Any

from tests.torture.processes import die

WITH_ROWS = ("base_scores", "eval_predictions", "preference_pairs", "adapter_checkpoint", "benchmark_scores")
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
    "after Dagster's event": None,
}


def stages_at(point: str, stages: list[str]) -> list[str]:
    only = POINTS[point]
    return [name for name in stages if only is None or name in only]


class Trap:
    """Kills this process when `stage` of `iteration` comes to `point`. dice: which batch, step or moment."""

    def __init__(self, iteration: str, stage: str, point: str, dice: random.Random):
        self.where, self.point, self.dice = (iteration, stage), point, dice
        self.inside = False  # this stage is being run

    def set(self) -> None:
        """Put the trap into the code."""
        import apt_assets.dagster_assets as assets
        from apt_assets.engine import execute
        from resources import checkpoints
        from resources.artifact_store import ArtifactStore
        from resources.row_store import RowTable

        checkpoints.SECONDS = 0.0
        run_stage, compute = assets.run_stage, execute.compute

        def run(project: Any, iteration: str, name: str, **more: Any) -> Any:
            if self.point == "after Dagster's event" and self.inside:
                die()  # the next stage begins, so the event of this one is there
            mine = (iteration, name) == self.where
            self.inside = self.inside or mine
            outcome = run_stage(project, iteration, name, **more)
            if mine and self.point == "between journal and Dagster's event":
                die()
            if not (mine and self.point == "after Dagster's event"):
                self.inside = False
            return outcome

        def computing(project: Any, planner: Any, plan: Any, *more: Any) -> Any:
            if self.point == "before it computes":
                self.spring()
            return compute(project, planner, plan, *more)

        assets.run_stage, execute.compute = run, computing
        self.before(ArtifactStore, "commit", self.half_of_a_file, "half of a file written")
        put = ArtifactStore._put

        def putting(store: Any, path: Path, content: dict[str, Any]) -> None:
            kind = store._about(path).split("/")[0]
            if kind == "traces" and self.point == "after the artifact, before the manifest":
                self.spring()
            if kind == "traces" and self.point == "half of the manifest written":
                self.half_at_rename()
            if kind == "pointers" and self.point == "between manifest and pointer":
                self.spring()
            put(store, path, content)
            if kind == "pointers" and self.point == "between pointer and journal":
                self.spring()

        ArtifactStore._put = putting  # type: ignore[method-assign]
        self.before(RowTable, "_append", self.half_of_a_batch, "half of a batch of rows written")
        self.after(RowTable, "_append", "after a batch of rows", most=2)
        self.before(checkpoints.Checkpoints, "after_step", self.at_some_step, "in a training step")
        if self.point == "half of a checkpoint written":
            save = checkpoints.save

            def saving(trainer: Any, folder: Path) -> None:
                save(trainer, folder)
                if self.inside and self.dice.random() < 0.4:
                    halve(folder / "optimizer.safetensors")
                    die()

            checkpoints.save = saving
        if self.point.endswith("vectors are added"):
            import lancedb.table

            self.before(lancedb.table.LanceTable, "add", lambda *_: self.spring(), "before vectors are added")
            self.before(lancedb.table.LanceTable, "add", lambda *_: self.spring_soon(), "while vectors are added")
            self.after(lancedb.table.LanceTable, "add", "after vectors are added", most=1)

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

    def after(self, owner: Any, name: str, point: str, most: int) -> None:
        """Die after one of the first `most` calls of `owner.name`, if this is the trap's point."""
        if self.point != point:
            return
        function, calls = getattr(owner, name), self.dice.randint(1, most)

        def acting(*given: Any, **more: Any) -> Any:
            nonlocal calls
            found = function(*given, **more)
            if self.inside:
                calls -= 1
                if calls <= 0:
                    die()
            return found

        setattr(owner, name, acting)

    def half_of_a_file(self, store: Any, workspace: Path) -> None:
        if self.inside:
            halve(self.dice.choice(sorted(path for path in workspace.rglob("*") if path.is_file())))
            die()

    def half_of_a_batch(self, table: Any, rows: dict[str, Any]) -> None:
        if self.inside:
            from resources.row_store import BEFORE_KEY, BEFORE_VALUE

            line = b"\n%b%b%b" % (BEFORE_KEY, next(iter(rows)).encode(), BEFORE_VALUE)
            text = line if table.path.exists() else table._head + line
            with table.path.open("ab") as file:
                file.write(text[: self.dice.randint(1, len(text))])
            die()

    def at_some_step(self, kept: Any, trainer: Any) -> None:
        if self.inside and (self.dice.random() < 0.4 or trainer.state.global_step == trainer.state.max_steps):
            die()

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
