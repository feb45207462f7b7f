"""Two drivers on one shared store, while they, PostgreSQL and the S3 server fail.

A chain is a store of its own in a bucket, and two homes with a driver of the small loop each. At some request to the
store one of the drivers is killed, PostgreSQL is, or the server answers with errors for a while. A driver that ended
with an error or was killed is started again; at last nothing disturbs.
"""

import json
import multiprocessing
import os
import random
import signal
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests import cluster, postgres
from tests.torture.part import Part
from tests.torture.processes import last_lines
from tests.torture.small_loop import land, missing, open_loop, wrong
from tests.waiting import within

SEED = 23
KILLS, FAULTS = ("driver", "database"), (500, 503, "cut", "late")
CHAINS, EVENTS = 20, 6
PATIENCE = 180  # seconds
BURST = (1, 30)  # requests in a row that fail
BETWEEN = (5, 50)  # requests between two events
DRIVERS = 2


def run(short: bool) -> Part:
    chains = 1 if short else CHAINS
    done: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="shared-") as folder, cluster.s3_server() as s3, Database() as database:
        for number in range(chains):
            chain = Chain(Path(folder) / str(number), s3, database, random.Random(f"{SEED} {number}"))
            failures += [f"chain {number}, {chain.done}: {one}" for one in chain.run()]
            done.update(str(what) for what in chain.done)
            print(f"chain {number}: {dict(done)}, {len(failures)} failures", flush=True)
    return Part(
        title="A shared store whose drivers and servers are killed and fail",
        text=(
            "Two drivers, each in a home of its own, run the same loop over one store in a bucket (a real S3 server on "
            "loopback, locks by a real PostgreSQL). At requests that a seed chooses, SIGKILL goes to a driver or to "
            "PostgreSQL, which is started again, or up to thirty requests in a row are answered by 500 or 503, cut, or "
            "left waiting. A failure is an end that is not what a loop from scratch gives, a driver that hangs, or one "
            "that ends with anything but a line that names the server."
        ),
        figures={
            "kills": sum(done[kind] for kind in KILLS),
            **{f"of them {name}": done[kind] for kind, name in zip(KILLS, ("a driver", "PostgreSQL"), strict=True)},
            **{f"times that the store answered with {fault}": done[str(fault)] for fault in (500, 503)},
            "times that it cut the connection, or let it wait": done["cut"] + done["late"],
            "chains, of two drivers each": chains,
        },
        failures=failures,
    )


class Database:
    """A PostgreSQL server that can be killed."""

    def __enter__(self) -> "Database":
        self._open = ExitStack()
        self._folder, self._port = self._open.enter_context(postgres.made()), postgres.free_port()
        self._start()
        self.url = self.server.url(self.server.database())
        return self

    def _start(self) -> None:
        self._running = ExitStack()
        self.server = self._running.enter_context(postgres.running(self._folder, self._port))

    def kill(self) -> None:
        """And start it again, once all of its processes are gone."""
        leader = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(leader, signal.SIGQUIT)  # to all of its processes: no one is told, nothing is written
        self._running.close()
        self._start()

    def __exit__(self, *error: object) -> None:
        self._running.close()
        self._open.close()


class Chain:
    """One store and two homes; done: what was done to them."""

    def __init__(self, folder: Path, s3: str, database: Database, dice: random.Random):
        self.folder, self.database, self.dice = folder, database, dice
        self.proxy = cluster.Proxy(s3, patience=5)
        self.environment = {
            **cluster.environment(self.proxy.address), "APT_STORE": f"s3://{cluster.BUCKET}/{folder.name}-{SEED}",
            "APT_LOCKS": database.url, "AWS_TIMEOUT": "2s",
        }  # fmt: skip
        self.homes = [folder / f"home-{number}" for number in range(DRIVERS)]
        self.done: list[int | str] = []
        self.drivers: dict[Path, Any] = {}

    def run(self) -> list[str]:
        """Event by event, then to the end; returns what went wrong."""
        for home in self.homes:
            home.mkdir(parents=True)
            land(home, "a.jsonl", 0, 20)
        failures: list[str] = []
        for _ in range(EVENTS):
            self.start_those_that_ended(failures)
            seen = len(self.proxy.seen) + self.dice.randint(*BETWEEN)
            within(PATIENCE, lambda seen=seen: len(self.proxy.seen) >= seen or not self.alive())
            if not self.alive():
                break  # both came to the end
            self.disturb(self.dice.choice([*KILLS, self.dice.choice(FAULTS)]))
        self.ended(failures)
        self.proxy.fault = lambda method, path: None
        for _ in range(2):  # what a driver that was disturbed left, and then that nothing is left to do
            self.start_those_that_ended(failures)
            self.ended(failures)
        found = failures or self.wrong()
        self.proxy.close()
        return found

    def alive(self) -> list[Path]:
        return [home for home, driver in self.drivers.items() if driver.is_alive()]

    def start_those_that_ended(self, failures: list[str]) -> None:
        for home in self.homes:
            if home in self.alive():
                continue
            failures += self.complaints(home)
            driver = multiprocessing.get_context("spawn").Process(target=drive, args=(home, self.environment))
            driver.start()
            self.drivers[home] = driver

    def complaints(self, home: Path) -> list[str]:
        """What is wrong with how a driver ended, if it did."""
        driver = self.drivers.get(home)
        if driver is None or driver.exitcode in (0, TOLD, -signal.SIGKILL):
            return []
        return [f"{home.name} ended with {driver.exitcode}: {last_lines(home / 'log.txt')}"]

    def disturb(self, what: int | str) -> None:
        self.done.append(what)
        if what == "driver":
            home = self.dice.choice(self.alive())
            self.drivers[home].kill()
            self.drivers[home].join()
        elif what == "database":
            self.database.kill()
        else:
            self.proxy.times(self.dice.randint(*BURST), what)

    def ended(self, failures: list[str]) -> None:
        for home, driver in self.drivers.items():
            driver.join(PATIENCE)
            if driver.is_alive():
                driver.kill()
                failures.append(f"{home.name} hung for {PATIENCE} s")

    def wrong(self) -> list[str]:
        """How the store differs from what a loop from scratch gives."""
        found = multiprocessing.get_context("spawn").Process(target=look, args=(self.homes[0], self.environment))
        found.start()
        found.join(PATIENCE)
        answer = self.homes[0] / "found.json"
        return json.loads(answer.read_text()) if answer.exists() else [last_lines(self.homes[0] / "log.txt")]


TOLD = 3  # exit code of a driver that ended with the line that a person would see


def drive(home: Path, environment: dict[str, str]) -> None:
    """One driver, as a person would start it: an error of the store is a line."""
    from resources.store.store import StoreError

    with (home / "log.txt").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ |= environment
    try:
        open_loop(home).run()
    except StoreError as error:
        print(error, flush=True)
        os._exit(TOLD)


def look(home: Path, environment: dict[str, str]) -> None:
    os.environ |= environment
    engine = open_loop(home)
    (home / "found.json").write_text(json.dumps([*wrong(engine), *missing(engine)]))
