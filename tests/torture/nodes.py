"""Rows of a Ray cluster of two nodes, while its workers, its nodes and the driver are killed.

A chain is one table of rows, and a driver that computes them in tasks of two rows each. At some row a worker, a node or
the driver dies; a driver that died is started again and goes on, and a new node takes the place of one that is gone.
"""

import json
import multiprocessing
import os
import random
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from resources import cluster
from resources.store.row_file import RowFile
from resources.store.rows import renumber
from tests.torture.part import Part
from tests.torture.processes import last_lines
from tests.waiting import within

SEED = 22
KINDS = ("worker", "node", "driver")
ROWS, TASK_ROWS = 64, 2
CHAINS, KILLS = 30, 4  # kills in each chain
PATIENCE = 180  # seconds
PLACES = 2  # nodes, of one worker each


def run(short: bool) -> Part:
    chains = 1 if short else CHAINS
    died: Counter[str] = Counter()
    failures: list[str] = []
    again = 0
    with tempfile.TemporaryDirectory(prefix="nodes-") as folder:
        nodes = Nodes()
        try:
            for number in range(chains):
                chain = Chain(Path(folder) / str(number), nodes, random.Random(f"{SEED} {number}"))
                failures += [f"chain {number}, {chain.kills}: {one}" for one in chain.run()]
                died.update(chain.died)
                again += len(chain.computed()) - ROWS
                print(f"chain {number}: {dict(died)}, {len(failures)} failures", flush=True)
        finally:
            nodes.end()
    kills = sum(died.values())
    return Part(
        title="A Ray cluster whose workers, nodes and driver are killed",
        text=(
            "Rows are computed by tasks on two Ray nodes of this machine; at moments that a seed chooses, SIGKILL goes "
            "to the worker that computes, a node is taken away without a word and another one joins, or the driver is "
            "killed and started again. A failure is a row that is not there, is there twice or is another than the one "
            "that was kept first, a driver that hangs or fails, and more rows computed again than were under way."
        ),
        figures={
            "kills": kills,
            **{f"of them a {kind}": died[kind] for kind in KINDS},
            "rows in each of the chains": ROWS,
            "chains": chains,
            "rows that were computed again, per kill": round(again / max(kills, 1), 2),
        },
        failures=failures,
    )


class Nodes:
    """A cluster of PLACES nodes on this machine, one of which may go. This process is no driver of it."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.address = self._cluster.address
        self._other = self._cluster.add_node(num_cpus=1)

    def replace_one(self) -> None:
        self._cluster.remove_node(self._other, allow_graceful=False)
        self._other = self._cluster.add_node(num_cpus=1)

    def end(self) -> None:
        self._cluster.shutdown()


class Chain:
    """One table, and what is done to those that compute it. kills: (rows that were computed until then, what dies),
    unless all are there before; died: what did."""

    def __init__(self, folder: Path, nodes: Nodes, dice: random.Random):
        folder.mkdir()
        self.folder, self.nodes = folder, nodes
        moments = sorted(dice.sample(range(2, ROWS // 2), KILLS))
        self.kills = [(moment, dice.choice(KINDS)) for moment in moments]
        self.died: list[str] = []

    def run(self) -> list[str]:
        """Kill by kill, then to the end; returns what went wrong."""
        driver = self.start()
        kept: dict[str, Any] = {}
        for moment, kind in self.kills:
            within(PATIENCE, partial(self.has_come_to, moment, driver))
            if not driver.is_alive():
                break
            kept |= self.table().read(keys())
            driver = self.kill(kind, driver)
            self.died.append(kind)
        driver.join(PATIENCE)
        if driver.exitcode != 0:
            driver.kill()
            return [f"the driver ended with {driver.exitcode}: {last_lines(self.folder / 'log.txt')}"]
        return [*self.wrong(kept)]

    def has_come_to(self, rows: int, driver: Any) -> bool:
        return len(self.computed()) >= rows or not driver.is_alive()

    def start(self) -> Any:
        given = (self.nodes.address, self.folder)
        driver = multiprocessing.get_context("spawn").Process(target=drive, args=given)
        driver.start()
        return driver

    def kill(self, kind: str, driver: Any) -> Any:
        """Kills, and returns the driver that is there then."""
        if kind == "node":
            self.nodes.replace_one()
        elif kind == "worker":
            before, worker = len(self.computed()), self.computed()[-1][0]
            os.kill(worker, signal.SIGKILL) if Path(f"/proc/{worker}").exists() else None
            within(PATIENCE, lambda: len(self.computed()) > before or not driver.is_alive())
        else:
            driver.kill()
            driver.join()
            driver = self.start()
        return driver

    def wrong(self, kept: dict[str, Any]) -> Iterator[str]:
        found = self.table().read(keys())
        if found != {key: value_of(number) for number, key in enumerate(keys())}:
            yield f"rows are missing or wrong: {json.dumps(found)[:300]}"
        if changed := [key for key, value in kept.items() if found.get(key) != value]:
            yield f"rows changed that were kept before: {changed}"
        if (lines := len(self.table().path.read_text().splitlines())) != 1 + ROWS:
            yield f"{lines - 1} lines in the table"
        under_way = {"worker": TASK_ROWS, "node": TASK_ROWS, "driver": cluster.UNDER_WAY * PLACES * TASK_ROWS}
        most = sum(under_way[kind] for kind in self.died)
        if (again := len(self.computed()) - ROWS) > most:
            yield f"{again} rows were computed again, and at most {most} were under way"

    def table(self) -> RowFile:
        return RowFile(self.folder, "answers", {"policy": "m"})

    def computed(self) -> list[tuple[int, int]]:
        """(worker, row) of all that was computed, in that order."""
        log = self.folder / "computed"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(int(worker), int(row)) for worker, row in map(str.split, lines)]


def keys() -> list[str]:
    return [f"k{number}" for number in range(ROWS)]


def value_of(number: int) -> int:
    return number * number


def drive(address: str, folder: Path) -> None:
    """One driver: fills the table."""
    with (folder / "log.txt").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    from apt_assets.engine.nodes import package_folders

    cluster.connect(address, [*package_folders().values()])
    RowFile(folder, "answers", {"policy": "m"}).fill(keys(), partial(compute, str(folder / "computed")))


def compute(log: str, missing: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    parts = [missing[start : start + TASK_ROWS] for start in range(0, len(missing), TASK_ROWS)]
    yield from renumber(in_parts(partial(note_each, log), parts), missing)


def in_parts(job: Callable[[list[int]], list[int]], parts: list[list[int]]) -> Iterator[tuple[list[int], list[int]]]:
    """(positions among all rows of the parts, their values) as they come."""
    for position, values in cluster.each(job, parts, {"CPU": 1}):
        first = position * TASK_ROWS
        yield list(range(first, first + len(values))), values


def note_each(log: str, rows: list[int]) -> list[int]:
    """What a task does: each row takes long enough to be killed in."""
    values = []
    for row in rows:
        within(0.1, lambda: None)
        values.append(value_of(row))
        with Path(log).open("a") as file:
            file.write(f"{os.getpid()} {row}\n")
    return values
