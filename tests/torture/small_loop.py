"""The oracle's small loop (the real graph, planner, store and driver; computations that cost nothing) as the
torture parts use it: in processes of their own, on a home folder that is copied."""

import json
from pathlib import Path
from typing import Any

from apt_assets.engine.stage import STAGES
from tests.oracle import Engine, World, scratch


def open_loop(home: Path, **settings: Any) -> Engine:
    """The loop of the world in `home`; the stages of this process are the oracle's from now on."""
    world = World(home)
    world.set("gate", domain_tolerance=1.0)
    for section, values in settings.items():
        world.set(section, **values)
    engine = Engine(world)
    STAGES.update(engine.stages())
    return engine


def land(home: Path, name: str, first: int, count: int) -> None:
    (home / "landing").mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": f"q{n}", "answer": str(n % 4)} for n in range(first, first + count)]
    (home / "landing" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def wrong(engine: Engine) -> list[str]:
    """What is fresh but not as a loop from scratch computes it."""
    world = engine.world
    snapshots = {key: world.store.snapshot("t", key) for key in world.store.iterations("t")}
    expected = scratch(world, {key: files for key, files in snapshots.items() if files is not None})
    found = engine.results()
    return [
        f"{where} is fresh and wrong" for where, content in found.items()
        if content is not None and content != expected.get(where)
    ]  # fmt: skip


def missing(engine: Engine) -> list[str]:
    """What a loop from scratch computes and is not fresh."""
    world = engine.world
    snapshots = {key: world.store.snapshot("t", key) for key in world.store.iterations("t")}
    return [f"{where} is missing" for where in scratch(world, snapshots).keys() - engine.results().keys()]
