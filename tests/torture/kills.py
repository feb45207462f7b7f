"""The real loop on the tiny models, killed at every stage and point, and then restarted.

A chain is a home folder of its own: a process runs the loop until its trap springs, the next one goes on
with the next trap, and the last one runs to the end. Then everything must be what a loop gave that no one
disturbed (tests/torture/evidence.py).
"""

import json
import os
import random
import shutil
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import tiny
from tests.torture.evidence import again_beyond_a_batch, found, note_work, told, units_done
from tests.torture.part import Part
from tests.torture.processes import child, die, ended, import_all, last_lines
from tests.torture.traps import AFTER_EVENT, OF_A_HIT, POINTS, Trap

SEED = 20261125
ITERATIONS = 2
ROUNDS, CHAINS = 2, 16  # every kill once in each round
PATIENCE = 300  # seconds
SENSOR_POINTS = ("before the journal", "before the snapshot", "before the partition", "at some moment of a tick")
Kill = tuple[str, str, str]  # (iteration, stage, point); a sensor's: (iteration, "landing" or "loop_driver", point)


@dataclass
class Chain:
    """One home folder, and what is done to it."""

    home: Path
    models: Path
    seed: int
    kills: list[Kill]
    died: list[Kill] = field(default_factory=list)
    missed: list[Kill] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def ledger(self) -> Path:
        return self.home / "work.txt"

    def open(self) -> Any:
        os.environ["APT_HOME"] = str(self.home)
        os.environ.pop("APT_EXPERIMENT", None)
        return tiny.open_project(self.home, self.models, training={"epochs": 2})

    def run(self) -> None:
        """Kill by kill, then to the end."""
        self.home.mkdir()
        tiny.write_jsonl(self.home / "landing" / "colours.jsonl", tiny.domain_rows(60))
        for number, kill in enumerate([*self.kills, None]):
            dice = random.Random(f"{self.seed} {number}")
            how = ended(child(lambda kill=kill, dice=dice: self.go_on(kill, dice), self.home / "log.txt"), PATIENCE)
            what = f"chain {self.seed}, process {number}, {kill}"
            if how == -signal.SIGKILL and kill is not None:
                missed = self.home / "missed"
                (self.missed if missed.exists() else self.died).append(kill)
                missed.unlink(missing_ok=True)
            elif how is None:
                self.failures.append(f"{what}: hung for {PATIENCE} s")
            elif how != 0:
                self.failures.append(f"{what}: ended with {how}: {last_lines(self.home / 'log.txt')}")

    def go_on(self, kill: Kill | None, dice: random.Random) -> None:
        """What one process does: the loop, or a tick of a sensor, until the trap springs."""
        from apt_assets.engine.display import Display
        from apt_assets.orchestration.run import run_loop

        project = self.open()
        note_work(self.ledger)
        if kill is not None and kill[1] in ("landing", "loop_driver"):
            tick(project, kill, dice)
            return
        if kill is not None:
            Trap(*kill, dice, self.home / "missed").set()
        result = run_loop(project, ITERATIONS, Display())
        if not result.passed:
            raise RuntimeError(result.reason)
        if kill is None:
            from apt_assets.orchestration.instance import Dagster

            instance = Dagster(project, Display()).instance
            (self.home / "told.json").write_text(json.dumps(told(project, instance)))
            (self.home / "found.json").write_text(json.dumps(found(project)))


def tick(project: Any, kill: Kill, dice: random.Random) -> None:
    import threading

    import dagster as dg

    from apt_assets.engine.display import Display
    from apt_assets.orchestration.instance import Dagster
    from apt_assets.orchestration.sensors import drive, notice
    from resources.store.local import LocalStore
    from resources.store.records import Records

    instance = Dagster(project, Display()).instance
    match kill[2]:
        case "before the journal":
            LocalStore.take_snapshot = lambda *_: die()  # type: ignore[method-assign]
        case "before the snapshot":
            Records.put = lambda *_: die()  # type: ignore[method-assign]
        case "before the partition":
            dg.DagsterInstance.add_dynamic_partitions = lambda *_: die()  # type: ignore[method-assign]
        case _:
            threading.Timer(dice.uniform(0, 0.4), die).start()
    (notice if kill[1] == "landing" else drive)(project, instance, [])
    die()  # between the tick and what the daemon does with its answer


# -- all of it -----------------------------------------------------------------------------------------


def compare(chain: Chain, expected: dict[str, Any]) -> list[str]:
    """How what a chain left differs from what an undisturbed loop left."""
    if chain.failures:
        return chain.failures
    wrong = again_beyond_a_batch(chain.ledger)
    got = json.loads((chain.home / "found.json").read_text())
    wrong += [f"{kind} differ" for kind in ("versions", "rows", "vectors") if got[kind] != expected[kind]]
    wrong += [f"twice: {one}" for one in got["twice"][:3]]
    told_of = json.loads((chain.home / "told.json").read_text())
    if told_of["not told"] or told_of["partitions"] != sorted(["0001", "0002"]):
        wrong.append(f"Dagster was not told: {told_of}")
    left = (chain.home / ".apt" / "store" / "quarantine").glob("*")
    wrong += [f"a kill was taken for damage: {path.name}" for path in left]
    return [f"chain {chain.seed}: {one} (kills: {chain.kills})" for one in wrong]


def all_kills() -> list[Kill]:
    """Every iteration, stage and point, in the order in which an undisturbed loop comes to them."""
    from apt_assets.engine.plan import stages_of
    from apt_assets.settings.iterations import BASE

    kills: list[Kill] = [("0001", "landing", point) for point in SENSOR_POINTS]
    for key in (BASE, "0001", "0002"):
        for name in stages_of(key):
            kills.append((key, "loop_driver", SENSOR_POINTS[-1]))
            reused = key == "0002" and name in ("domain_dataset", "retrieval_index")
            # Dagster has no event of the gate, and nothing follows the last stage of a run.
            last = name in ("gate", "promoted_adapter", "base_scores")
            points = [point for point, only in POINTS.items() if only is None or name in only]
            kills += [(key, name, point) for point in points if not (last and point == AFTER_EVENT)
                      and (not reused or point in OF_A_HIT)]  # fmt: skip
    return kills


def run(short: bool) -> Part:
    import_all()
    dice = random.Random(SEED)
    chains = [all_kills()[::40]] if short else [part for _ in range(ROUNDS) for part in dealt(dice, CHAINS)]
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="kills-") as folder:
        root = Path(folder)
        made = child(lambda: tiny.make_models(root / "models"), root / "log.txt")
        assert ended(made, PATIENCE) == 0, last_lines(root / "log.txt")
        undisturbed = Chain(root / "undisturbed", root / "models", 0, [])
        undisturbed.run()
        assert not undisturbed.failures, undisturbed.failures
        expected = json.loads((undisturbed.home / "found.json").read_text())
        units = units_done(undisturbed.ledger)
        died: list[Kill] = []
        failures: list[str] = []
        again = 0
        for number, kills in enumerate(chains, 1):
            chain = Chain(root / f"chain-{number}", root / "models", number, kills)
            chain.run()
            died += chain.died
            failures += compare(chain, expected)
            again += units_done(chain.ledger) - units
            so_far = f"{len(died)} kills, {len(failures)} failures"
            print(f"chain {number} of {len(chains)}: {so_far}; not come to: {chain.missed}", flush=True)
            shutil.rmtree(chain.home)
    return Part(
        title="Kills",
        text=(
            "SIGKILL at every stage of base scores and two iterations of the real loop on tiny random models, at every "
            "point between its start and Dagster's event, in ticks of both sensors, while vectors are added to LanceDB "
            "and while it trains; then a restart. A failure is anything that is not as in a loop that no one disturbed "
            "(an artifact, a row, a vector, a row that is there twice, a stage that Dagster was not told of), or more "
            "than the batch in flight computed again."
        ),
        figures={
            "kills": len(died),
            "pairs of stage and point they hit": len({(name, point) for _, name, point in died}),
            "loops they were in": len(chains),
            "units of work in one loop (rows, vectors, optimiser steps)": units,
            "units that were computed again, per kill": round(again / max(len(died), 1), 2),
        },
        failures=failures,
    )


def dealt(dice: random.Random, chains: int) -> list[list[Kill]]:
    """All kills, each in one of so many chains, in which they stand in the order of the loop."""
    kills = all_kills()
    order = dice.sample(range(len(kills)), len(kills))
    return [[kills[n] for n in sorted(order[first::chains])] for first in range(chains)]
