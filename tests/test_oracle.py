"""The cached result against a from-scratch one, over a thousand random sequences of edits.

What counts as unnecessary: a stage or a row computed although the very same inputs, settings and code
were computed before in the same store. The list of exceptions is short, and every one of them is an
edit of the test's own that destroys what was there: a deleted or damaged artifact, a torn row file, gc.
"""

import json
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from apt_assets.engine.stage import STAGES
from apt_assets.loop.gc import collect_garbage
from tests.oracle import Engine, World, scratch

pytestmark = pytest.mark.slow("cases")

STORES, SEQUENCES = 20, 50  # sequences in each store: 1,000 in all


class Editor:
    """Random edits of a world, each a method; `lost` is set by those that destroy results."""

    def __init__(self, world, engine, dice):
        self.world, self.engine, self.dice = world, engine, dice
        self.kept: dict[str, str] = {}  # files withdrawn, to land again later
        self.write("a.jsonl", [(n, dice.randrange(4)) for n in range(12)])

    def write(self, name, rows):
        lines = [json.dumps({"prompt": f"q{n}", "answer": str(a), "metadata": {"n": a % 2}}) for n, a in rows]
        (self.world.landing / name).write_text("\n".join(lines) + "\n")

    def files(self):
        return sorted(self.world.landing.glob("*.jsonl"))

    def setting(self):
        section, name, values = self.dice.choice([
            ("assessor", "bad_below", [2, 4, 5]), ("training", "beta", [0.1, 0.2]), ("mining", "questions", [5, None]),
            ("policy", "max_new_tokens", [3, 4]), ("policy", "dtype", ["float32", "bfloat16"]),
            ("retrieval", "per_case", [0, 1, 2]), ("retrieval", "batch_size", [8, 64]),
            ("data", "test", [0.1, 0.2]), ("pairs", "replay_share", [0.0, 1.0, None]),
            ("retrieval", "choose", ["similar", "random"]), ("mining", "seed", [17, 18]),
            ("pairs", "counterfactual", ["none", "perturbed", "sampled"]), ("pairs", "temperature", [0.7, 1.0]),
            ("pairs", "rejected", ["own", "given"]), ("pairs", "max_doubt", [None, 0.0, 0.4]),
            ("pairs", "replay", ["answered_right", "pool"]), ("training", "objective", ["dpo", "sft"]),
            ("gate", "domain_tolerance", [0.0, 0.3, 1.0]), ("policy", "batch_tokens", [256, 1024]),
            ("anchor", "texts", [2, 4]), ("anchor", "weight", [0.3, 1.0]), ("anchor", "form", ["kl", "nll"]),
            ("promotion", "scales", [[], [0.5], [0.7, 0.3]]),
        ])  # fmt: skip
        self.world.set(section, **{name: self.dice.choice(values)})

    def code(self):
        """An edit with effect, one without, or back to the first version."""
        piece = self.dice.choice(sorted(self.world.pieces))
        effect = self.dice.choice([0, 0, 1])
        text = self.dice.choice([effect * 10, effect * 10 + 1])
        self.world.pieces[piece] = [text, effect]

    def weights(self):
        self.world.overwrite(
            self.dice.choice(["base_model", "initial_adapter", "encoder", "benchmark_tasks"]), self.dice.randrange(2)
        )

    def row(self):
        path = self.dice.choice(self.files())
        lines = [line for line in path.read_text().splitlines() if line]
        row = json.loads(self.dice.choice(lines))
        place = lines.index(json.dumps(row))
        if self.dice.random() < 0.7:
            row["answer"] = str(self.dice.randrange(4))
        else:
            row["metadata"] = {"n": self.dice.randrange(3)}
        lines[place] = json.dumps(row)
        path.write_text("\n".join(lines) + "\n")

    def order(self):
        path = self.dice.choice(self.files())
        lines = [line for line in path.read_text().splitlines() if line]
        self.dice.shuffle(lines)
        path.write_text("\n\n".join(lines))

    def land(self):
        if len(self.files()) + len(self.kept) < 2:
            self.write("b.jsonl", [(self.dice.choice([9, 12]) + n, n % 4) for n in range(3)])

    def withdraw_or_put_back(self):
        if self.kept:
            name, text = self.kept.popitem()
            (self.world.landing / name).write_text(text)
        elif len(self.files()) > 1:
            path = self.dice.choice(self.files())
            self.kept[path.name] = path.read_text()
            path.unlink()

    def destroy(self):
        """Delete or damage an artifact, tear a row file, or collect garbage."""
        objects = sorted((self.world.store.root / "objects").glob("*"))
        rows = sorted((self.world.store.root / "rows").glob("*/*.jsonl"))
        how = self.dice.choice(["delete", "damage", "tear", "gc"])
        if how == "delete" and objects:
            shutil.rmtree(self.dice.choice(objects))
        elif how == "damage" and objects:
            path = self.dice.choice(sorted(self.dice.choice(objects).iterdir()))
            path.write_bytes(path.read_bytes() + b" ")
        elif how == "tear" and rows:
            path = self.dice.choice(rows)
            path.write_bytes(path.read_bytes()[: -self.dice.randrange(1, 40)])
        elif how == "gc":
            collect_garbage(self.world, self.dice.choice([1, 2]), dry_run=False)
        self.engine.forgiven |= self.engine.seen


EDITS = (
    ["setting"] * 5
    + ["code"] * 3
    + ["weights"] * 2
    + ["row"] * 3
    + ["order", "land", "withdraw_or_put_back", "destroy"]
)


@pytest.fixture
def home(tmp_path):
    """In memory where there is such a place: the store syncs every write to disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.mark.parametrize("store", range(STORES))
def test_cached_equals_from_scratch_after_random_edits_and_nothing_is_computed_twice(home, store, monkeypatch):
    dice = random.Random(store)
    world = World(home)
    engine = Engine(world)
    for name, stage in engine.stages().items():
        monkeypatch.setitem(STAGES, name, stage)
    editor = Editor(world, engine, dice)
    engine.run()
    runs = 0
    for _ in range(SEQUENCES):
        edits = [dice.choice(EDITS) for _ in range(dice.randrange(1, 4))]
        for edit in edits:
            getattr(editor, edit)()
            if dice.random() < 0.15:
                engine.run()
        engine.run()
        runs += 1
        snapshots = {key: world.store.snapshot("t", key) for key in world.store.iterations("t")}
        expected, found = scratch(world, snapshots), engine.results()
        for where, content in found.items():
            assert where in expected, f"{where} is fresh, but a loop from scratch never reaches it, after {edits}"
            assert content is None or content == expected[where], f"{where} was wrongly reused after {edits}"
        assert expected.keys() == found.keys(), f"after {edits}"
    assert engine.repeated == [], "computed although it was there"
    assert runs == SEQUENCES
