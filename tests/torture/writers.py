"""Several processes run the same loop in the same home at once, and one of them may be killed.

Each unit of work must be done once, whoever does it, and everyone must come to the same end.
"""

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests import tiny
from tests.torture.evidence import found, note_work, told, units_done
from tests.torture.part import Part
from tests.torture.processes import child, ended, import_all, last_lines
from tests.waiting import within

SEED = 11
ITERATIONS = 2
PATIENCE = 500  # seconds
# Processes at once, and whether one of them is killed.
ROUNDS = ((2, False), (2, True), (3, False), (4, True), (5, False), (6, True), (8, False), (8, True))


def run(short: bool) -> Part:
    import_all()
    failures: list[str] = []
    units = again = killed = processes = 0
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="writers-") as folder:
        root, log = Path(folder), Path(folder) / "log.txt"
        assert ended(child(lambda: tiny.make_models(root / "models"), log), PATIENCE) == 0, last_lines(log)
        alone = together(root / "alone", root / "models", 1, kill=None)
        assert not alone["failures"], alone["failures"]
        units = alone["units"]
        for number, (count, kill) in enumerate([(3, True)] if short else ROUNDS):
            dice = random.Random(f"{SEED} {number}")
            got = together(root / "home", root / "models", count, dice.randrange(1, units) if kill else None)
            killed += got["killed"]
            processes += count
            again += got["twice"]
            what = f"{count} processes{', one killed' if kill else ''}"
            failures += [f"{what}: {one}" for one in got["failures"]]
            if not got["failures"]:
                failures += [f"{what}: {kind} differ" for kind in ("versions", "rows", "vectors")
                             if got["found"][kind] != alone["found"][kind]]  # fmt: skip
                failures += [f"{what}: twice: {one}" for one in got["found"]["twice"][:3]]
            if got["twice"] and not kill:
                failures.append(f"{what}: {got['twice']} units of work were done twice")
            print(f"{what}: {got['seconds']:.0f} s, {got['twice']} units twice, {len(failures)} failures", flush=True)
    return Part(
        title="Several processes at once",
        text=(
            "Two to eight processes run the same real loop (tiny random models, base scores and two iterations) in the "
            "same home at the same time, as a command line beside a daemon does; in half of the rounds one of them is "
            "killed at a moment of its own. A failure is a unit of work done twice (but for what a killed process had "
            "in flight), a row or vector that is there twice, a process that hangs or fails, and any result that one "
            "process alone does not give."
        ),
        figures={
            "rounds": 1 if short else len(ROUNDS),
            "processes": processes,
            "killed, with the locks they held": killed,
            "units of work in one loop": units,
            "units that were done twice, all of them after a kill": again,
        },
        failures=failures,
    )


def together(home: Path, models: Path, count: int, kill: int | None) -> dict[str, Any]:
    """Run the loop in so many processes at once, in a new home that is removed; kill: one of them, when all of them
    together have begun so many units of work."""
    tiny.write_jsonl(home / "landing" / "colours.jsonl", tiny.domain_rows(60))
    ledger, started = home / "work.txt", time.monotonic()

    def open_project() -> Any:
        os.environ["APT_HOME"] = str(home)
        return tiny.open_project(home, models)

    def loop() -> None:
        from apt_assets.engine.display import Display
        from apt_assets.orchestration.run import run_loop

        project = open_project()
        note_work(ledger)
        result = run_loop(project, ITERATIONS, Display())
        if not result.passed:
            raise RuntimeError(result.reason)

    def look() -> None:
        from apt_assets.engine.display import Display
        from apt_assets.orchestration.instance import Dagster

        project = open_project()
        instance = Dagster(project, Display()).instance
        (home / "found.json").write_text(json.dumps({**found(project), "told": told(project, instance)}))

    open_project()
    numbers = [child(loop, home / f"log-{number}.txt") for number in range(count)]
    failures, killed = [], 0
    if kill is not None:
        within(PATIENCE, lambda: ledger.exists() and units_done(ledger) >= kill)
        os.kill(numbers[0], signal.SIGKILL)
    for place, number in enumerate(numbers):
        how = ended(number, PATIENCE)
        if how == -signal.SIGKILL and kill is not None and place == 0:
            killed = 1
        elif how != 0:
            failures.append(f"process {place} ended with {how}: {last_lines(home / f'log-{place}.txt')}")
    if ended(child(look, home / "log.txt"), PATIENCE) != 0:
        failures.append(last_lines(home / "log.txt"))
    got = json.loads((home / "found.json").read_text()) if not failures else {}
    if got and got["told"]["not told"]:
        failures.append(f"Dagster was not told of {got['told']['not told']}")
    lines = [line.split() for line in ledger.read_text().splitlines()]
    done = Counter((kind, key) for _, kind, _, key in lines)
    result = {
        "failures": failures, "found": got, "killed": killed, "units": len(done),
        "twice": sum(done.values()) - len(done), "seconds": time.monotonic() - started,
    }  # fmt: skip
    shutil.rmtree(home)
    return result
