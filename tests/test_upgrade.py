"""A store that an earlier version wrote: what it holds is used, or computed again for a reason that is told.

The earlier forms are made from a finished store of now, on the oracle's small world: the real graph, planner and
store, over computations that cost nothing.
"""

import json
from unittest.mock import patch

import pytest

from apt_assets.engine.stage import STAGES
from apt_assets.loop.gc import collect_garbage
from apt_assets.report.explain import explain
from resources.store.digest import digest_json
from tests.oracle import World, content_of
from tests.torture.small_loop import open_loop


@pytest.fixture
def engine(tmp_path):
    """Two promoted iterations, one on each landed file."""
    with patch.dict(STAGES):
        engine = open_loop(tmp_path, loop={"max_iterations": 1})
        for file in ("a", "b"):
            land(engine.world, file)
            engine.run()
        assert engine.world.store.iterations("t") == ["0001", "0002"]
        yield engine


def land(world, file):
    rows = [{"prompt": f"{file}{n}", "answer": str(n % 4)} for n in range(20)]
    (world.landing / f"{file}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def anew(engine):
    """The world as the next process opens it: nothing is remembered but what is on the disk."""
    world = World.__new__(World)
    world.__dict__ |= {k: v for k, v in vars(engine.world).items() if k not in ("store", "_digests")}
    engine.world, engine.seen = world, set()
    return world


def rewrite(root, kinds, change):
    """Put what `change` makes of each JSON file of these folders in its place."""
    for kind in kinds:
        for path in (root / kind).rglob("*.json"):
            path.write_text(json.dumps(change(json.loads(path.read_text()))))


def without_seals(root):
    """As before STORE_VERSION 2: no version, no check; a snapshot had a version of its own, and the journal did
    not tell of opened iterations."""
    rewrite(root, ("traces", "pointers"), lambda m: without(m, "version", "check", "not_repeatable"))
    rewrite(root, ("snapshots",), lambda snapshot: {"version": 1, "files": snapshot["files"]})
    journal = root / "journal.jsonl"
    lines = [line for line in journal.read_text().splitlines() if json.loads(line)["event"] != "opened"]
    journal.write_text("\n".join(lines) + "\n")


def of_the_first_store(root):
    """As the first store wrote them: a stage had a version of its code, and rows were not kept."""
    newer = ("code", "work", "row_tables", "iteration", "collected", "check", "not_repeatable")
    rewrite(root, ("traces", "pointers"), lambda m: {**without(m, *newer), "version": "3"})
    rewrite(root, ("snapshots",), lambda snapshot: {"version": 1, "files": snapshot["files"]})


def with_row_checks_by_digest(root):
    """As before rows were checked by CRC-32."""
    for path in (root / "rows").glob("*/*.jsonl"):
        head, *rows = [json.loads(line) for line in path.read_text().splitlines()]
        older = [{**row, "check": digest_json([row["key"], row["value"]])[:16]} for row in rows]
        path.write_text("\n".join(map(json.dumps, [head, *older])))


def without(content, *names):
    return {name: value for name, value in content.items() if name not in names}


def test_store_without_seals_is_used_as_it_is_and_what_is_written_from_then_on_is_sealed(engine):
    expected, snapshots = engine.results(), opened(engine.world)
    without_seals(engine.world.store.root)
    world = anew(engine)
    engine.run()
    assert engine.seen == set(), "nothing was computed"
    assert engine.results() == expected
    assert opened(world) == snapshots

    land(world, "c")
    engine.run()
    assert opened(world) == {**snapshots, "0003": ["a.jsonl", "b.jsonl", "c.jsonl"]}
    assert engine.results()["0003", "promoted_adapter"]
    for kind in ("traces", "snapshots"):
        sealed = ["check" in json.loads(path.read_text()) for path in (world.store.root / kind).rglob("*.json")]
        assert {True, False} == set(sealed), "old and new ones side by side"
    collect_garbage(world, 1, dry_run=False)
    before = len(engine.seen)
    engine.run()
    assert len(engine.seen) == before, "gc of both kinds turns nothing stale"


def test_damage_to_an_artifact_of_a_store_without_seals_is_noticed_and_made_good(engine):
    expected = engine.results()
    without_seals(engine.world.store.root)
    world = anew(engine)
    manifest = world.planner().stage("0001", "bad_cases").manifest
    (world.store.open(manifest) / "bad_cases.parquet").write_text("[]")
    engine.run()
    assert {json.loads(work)[0] for work in engine.seen} == {"bad_cases"}
    assert engine.results() == expected


def test_manifests_of_the_first_store_are_computed_again_and_the_reason_says_so(engine):
    expected, snapshots = engine.results(), opened(engine.world)
    of_the_first_store(engine.world.store.root)
    world = anew(engine)
    plan = world.planner().stage("base", "heldout_rows")
    assert (plan.status, plan.causes) == ("missing", ["its manifest is damaged, or of another version"])
    assert explain(world, "gate", "0002")["status"] == "waiting"
    assert opened(world) == snapshots
    engine.run()
    assert engine.results() == expected
    assert opened(world) == snapshots
    whys = [event["reason"] for event in world.store.events("miss") if event["iteration"] == "0002"]
    assert whys[-1] == ["its manifest is damaged, or of another version"]
    computed = {json.loads(work)[0] for work in engine.seen}
    assert computed >= {"policy", "gate"}
    assert not {"answers", "grades", "scores"} & computed, "rows are reused, though no manifest names them"
    assert len(list((world.store.root / "quarantine").glob("*.json*"))) > 0, "the old manifests are kept aside"


def test_rows_that_are_checked_in_an_earlier_way_are_computed_again_and_kept_aside(engine):
    expected = engine.results()
    root = engine.world.store.root
    with_row_checks_by_digest(root)
    world = anew(engine)
    engine.run()
    assert engine.seen == set(), "the artifacts are whole: no row is asked for"
    manifest = world.planner().stage("0001", "eval_predictions").manifest
    world.store.forget(manifest)
    engine.run()
    assert {json.loads(work)[0] for work in engine.seen} == {"eval_predictions", "answers", "grades"}
    assert engine.results() == expected
    assert len(list((root / "rows" / "damaged").iterdir())) > 0
    assert content_of(world.store.verify(world.planner().stage("0001", "eval_predictions").manifest))


def opened(world):
    return {key: world.store.snapshot("t", key) for key in world.store.iterations("t")}


def test_store_of_an_earlier_engine_is_computed_once_more_for_that_reason_and_what_was_promoted_stays(
    engine, monkeypatch
):
    from apt_assets.engine import execute, plan

    world = engine.world
    promoted = world.store.pointed("t", "0002", "promoted_adapter")
    for module in (plan, execute):
        monkeypatch.setattr(module, "ENGINE_VERSION", plan.ENGINE_VERSION + 1)
    world = anew(engine)
    first = world.planner().stage("0001", "domain_dataset")
    assert (first.status, first.causes) == (
        "stale",
        ["made by an earlier version: all is computed once more", "engine: 2 -> 3"],
    )
    waiting = world.planner().stage("0001", "eval_predictions")
    assert (waiting.status, [str(change) for change in waiting.changes]) == ("waiting", ["engine: 2 -> 3"])
    collect_garbage(world, 1, dry_run=False)
    assert world.store.verify(promoted).is_dir(), "whoever serves it can go on"
    before = engine.results()
    engine.run()
    assert set(before) <= set(engine.results())
    assert {plan.status for plan in world.planner().plan(2)} == {"fresh"}
