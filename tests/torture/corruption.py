"""Damage of every kind to every kind of file below the store, noticed and made good by the next run.

On the small loop of the oracle, and on the real one with its Parquet, safetensors and LanceDB files. Each trial is
a copy of a loop at its end: one file is damaged, a new process runs the loop, and what is there then must be what
was there before.
"""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_assets.loop.turns import point_at_fresh
from resources.store.local import LocalStore
from tests import tiny
from tests.torture.evidence import found
from tests.torture.part import Part
from tests.torture.processes import child, ended, import_all, last_lines
from tests.torture.small_loop import land, missing, open_loop, wrong

SEED = 7
PATIENCE = 300  # seconds
NOTICED = {"quarantined", "lost", "restored", "pointed", "miss", "compared"}
# Files that only save time: a damaged one is not worth a line in the journal.
MEMORIES = ("memory", "note", "journal")


# -- damage --------------------------------------------------------------------------------------------


def flip(path: Path, dice: random.Random, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def cut(path: Path, dice: random.Random, other: Path) -> None:
    os.truncate(path, dice.randrange(path.stat().st_size))


def empty(path: Path, dice: random.Random, other: Path) -> None:
    os.truncate(path, 0)


def swap(path: Path, dice: random.Random, other: Path) -> None:
    """Another file of the same kind in its place."""
    shutil.copyfile(other, path)


def edit(path: Path, dice: random.Random, other: Path) -> None:
    """Still well-formed, but one digit or letter says something else."""
    content = bytearray(path.read_bytes())
    places = [n for n, byte in enumerate(content) if chr(byte).isdigit()] or list(range(len(content)))
    place = dice.choice(places)
    content[place] = ord("7") if content[place] != ord("7") else ord("3")
    path.write_bytes(content)


def other_schema(path: Path, dice: random.Random, other: Path) -> None:
    """A whole file of another form."""
    path.write_text('{"column": [1, 2, 3]}')


def remove(path: Path, dice: random.Random, other: Path) -> None:
    path.unlink()


PUT_BACK = "put back to an older state"
DAMAGE: dict[str, Callable[[Path, random.Random, Path], None]] = {
    "bit flipped": flip, "cut short": cut, "emptied": empty, "swapped": swap, "edited": edit,
    "of another form": other_schema, "removed": remove, PUT_BACK: swap,
}  # fmt: skip


# -- loops ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Small:
    """The oracle's loop: two iterations, the second on more data."""

    name = "small loop"

    def prepare(self, home: Path) -> None:
        land(home, "a.jsonl", 0, 12)
        open_loop(home).run()
        shutil.copytree(home / ".apt", home / "older")
        land(home, "b.jsonl", 12, 8)
        engine = open_loop(home)
        engine.run()
        (home / "opened.json").write_text(json.dumps(opened(engine.world.store)))

    def mend(self, home: Path) -> list[str]:
        engine = open_loop(home)
        engine.run()
        world = engine.world
        point_at_fresh(world)
        store, problems = world.store, wrong(engine) + missing(engine)
        for plan in (world.planner().stage(*where) for where in engine.results()):
            if store.pointed("t", plan.iteration, plan.stage) != plan.manifest:
                problems.append(f"{plan.stage} of {plan.iteration}: its pointer is not what it was")
        before, now = json.loads((home / "opened.json").read_text()), opened(store)
        return problems + [f"{key}: {now.get(key)}" for key, files in before.items() if now.get(key) != files]


def opened(store: LocalStore) -> dict[str, list[str] | None]:
    """Iteration -> the landed files it uses."""
    return {key: store.snapshot("t", key) for key in store.iterations("t")}


@dataclass(frozen=True)
class Real:
    """The real loop on tiny random models: one iteration."""

    models: Path
    name = "real loop"

    def open(self, home: Path) -> Any:
        os.environ["APT_HOME"] = str(home)
        return tiny.open_project(home, self.models)

    def prepare(self, home: Path) -> None:
        tiny.write_jsonl(home / "landing" / "colours.jsonl", tiny.domain_rows(60))
        (home / "expected.json").write_text(json.dumps(self.run(home)))

    def run(self, home: Path) -> dict[str, Any]:
        from apt_assets.engine.display import Display
        from apt_assets.orchestration.run import run_loop

        project = self.open(home)
        result = run_loop(project, 1, Display())
        assert result.passed, result.reason
        return json.loads(json.dumps(found(project)))

    def mend(self, home: Path) -> list[str]:
        got, expected = self.run(home), json.loads((home / "expected.json").read_text())
        wrong = [f"{kind} differ" for kind in ("versions", "rows", "vectors") if got[kind] != expected[kind]]
        return wrong + [f"twice: {one}" for one in got["twice"][:3]]


# -- what is damaged -----------------------------------------------------------------------------------


def files_by_kind(home: Path) -> dict[str, list[Path]]:
    """Kind -> its files, of what a loop at its end uses."""
    store = home / ".apt" / "store"
    kinds: dict[str, list[Path]] = {}
    for pointer in sorted((store / "pointers").glob("*/*/*.json")):
        manifest = json.loads(pointer.read_text())
        folder, stage = store / "objects" / manifest["data_version"], manifest["stage"]
        kinds.setdefault("manifest", []).append(store / "traces" / stage / f"{manifest['fingerprint']}.json")
        kinds.setdefault(f"artifact of {stage}", []).extend(p for p in sorted(folder.rglob("*")) if p.is_file())
    kinds["pointer"] = sorted((store / "pointers").glob("*/*/*.json"))
    kinds["snapshot"] = sorted((store / "snapshots").glob("*/*.json"))
    for path in sorted((store / "rows").glob("*/*.jsonl")):
        kinds.setdefault(f"rows: {path.parent.name}", []).append(path)
    for table in sorted((store / "lancedb").glob("*.lance")):
        kinds.setdefault("vectors, data", []).extend(sorted((table / "data").iterdir()))
        # Names count down: the first is the newest, which is the one that is read.
        kinds.setdefault("vectors, LanceDB's manifest", []).append(min((table / "_versions").iterdir()))
    kinds["note of checked vectors"] = sorted((store / "lancedb").glob("*.checked.json"))
    kinds["memory of digests and code"] = sorted((home / ".apt").glob("*.json"))
    kinds["memory of what Dagster was told"] = sorted((home / "dagster_home" / "history").glob("settled.json"))
    kinds["journal"] = [store / "journal.jsonl"]
    return {kind: sorted(set(paths)) for kind, paths in kinds.items() if paths}


def trials(home: Path, each: int) -> Iterator[tuple[str, str, Path, Path]]:
    """(kind, damage, file relative to the home, another file of its kind) with up to `each` files of a kind."""
    dice, kinds = random.Random(SEED), files_by_kind(home)
    all_files = [path for paths in kinds.values() for path in paths]
    for kind, paths in kinds.items():
        for damage in DAMAGE:
            changed = [path for path in paths if damage != PUT_BACK or differs(path, older(home, path))]
            for path in dice.sample(changed, min(each, len(changed))):
                if damage == PUT_BACK:
                    yield kind, damage, path.relative_to(home), older(home, path).relative_to(home)
                    continue
                others = [one for one in paths if differs(path, one)] or [
                    one for one in all_files if differs(path, one)
                ]
                yield kind, damage, path.relative_to(home), dice.choice(others).relative_to(home)


def older(home: Path, path: Path) -> Path:
    """The file as it was before the loop's last files landed."""
    return home / "older" / path.relative_to(home / ".apt") if path.is_relative_to(home / ".apt") else path


def differs(path: Path, other: Path) -> bool:
    return other.is_file() and other.read_bytes() != path.read_bytes()


def forget_users(home: Path, kind: str) -> None:
    """Rows are read only when a stage is computed: drop the traces, so that all are."""
    if kind.startswith("rows"):
        shutil.rmtree(home / ".apt" / "store" / "traces")


def run(short: bool) -> Part:
    if not short:
        import_all()  # the small loop needs none of it
    failures: list[str] = []
    counts: dict[str, dict[str, int]] = {}
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="corruption-") as folder:
        root = Path(folder)
        log = root / "log.txt"
        loops: list[Small | Real] = [Small()]
        if not short:
            models = root / "models"
            assert ended(child(lambda: tiny.make_models(models), log), PATIENCE) == 0, last_lines(log)
            loops.append(Real(models))
        for loop in loops:
            ready = root / loop.name
            ready.mkdir()
            assert ended(child(lambda loop=loop, ready=ready: loop.prepare(ready), log), PATIENCE) == 0, last_lines(log)
            tried = counts.setdefault(loop.name, {"files damaged": 0, "noticed": 0, "made good": 0})
            for number, (kind, damage, path, other) in enumerate(trials(ready, 2 if isinstance(loop, Small) else 1)):
                if short and number % 6:
                    continue
                what = f"{loop.name}, {kind}, {damage} ({path})"
                problems, noticed = damaged(root / "trial", ready, loop, kind, damage, path, other, log)
                tried["files damaged"] += not kind.startswith(MEMORIES)
                tried["noticed"] += noticed and not kind.startswith(MEMORIES)
                tried["made good"] += not problems and not kind.startswith(MEMORIES)
                if not noticed and not kind.startswith(MEMORIES):
                    problems = [*problems, "nothing in the journal tells of it"]
                failures += [f"{what}: {problem}" for problem in problems]
            print(f"{loop.name}: {tried}, {len(failures)} failures", flush=True)
    return Part(
        title="Corruption",
        text=(
            "One file of a finished loop is damaged, of every kind that is below the store; a new process then runs "
            "the loop. A failure is damage of which nothing is in the journal, and anything that is not as it was "
            "before: content, pointers, the files of an iteration. On the small loop of the oracle and on the real one "
            f"(Parquet, safetensors, LanceDB). Damage: {', '.join(DAMAGE)}. Files that only save time (remembered "
            "digests, notes) and the journal itself are damaged as well; of them it counts that nothing goes wrong."
        ),
        figures={f"{name}: {what}": count for name, tried in counts.items() for what, count in tried.items()},
        failures=failures,
    )


def damaged(
    trial: Path, ready: Path, loop: Small | Real, kind: str, damage: str, path: Path, other: Path, log: Path
) -> tuple[list[str], bool]:
    """(what went wrong after this damage, whether the journal tells of it)."""
    shutil.copytree(ready, trial)
    try:
        journal = trial / ".apt" / "store" / "journal.jsonl"
        DAMAGE[damage](trial / path, random.Random(f"{path} {damage}"), trial / other)
        forget_users(trial, kind)
        size = journal.stat().st_size if journal.exists() else 0

        def mend() -> None:
            (trial / "problems.json").write_text(json.dumps(loop.mend(trial)))

        how = ended(child(mend, log), PATIENCE)
        if how != 0:
            return [f"ended with {how}: {last_lines(log)}"], False
        lines = journal.read_bytes()[size:].splitlines() if journal.exists() else []
        events = {json.loads(line)["event"] for line in lines if line}
        return json.loads((trial / "problems.json").read_text()), bool(events & NOTICED)
    finally:
        shutil.rmtree(trial)
