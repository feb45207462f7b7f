"""gc removes what nothing needs; nothing turns stale by it, and what is needed again comes back."""

import errno
import json
import resource
import shutil
from dataclasses import replace
from unittest.mock import patch

import pytest

from apt_assets.engine.execute import run_stage
from apt_assets.engine.plan import stages_of
from apt_assets.engine.stage import STAGES
from apt_assets.loop.gc import collect_garbage, needs
from apt_assets.loop.promotions import promotions
from apt_assets.promotion import TRAINED
from apt_assets.serve.live import base_of
from apt_assets.settings.iterations import BASE
from resources.store.records import Records
from tests.oracle import content_of
from tests.torture.small_loop import open_loop


@pytest.fixture
def engine(tmp_path):
    """Three iterations of the oracle's small world: the real graph, computations that cost nothing."""
    with patch.dict(STAGES):
        engine = open_loop(tmp_path, loop={"max_iterations": 3})
        for number, file in enumerate(("a", "b", "c")):
            rows = [{"prompt": f"{file}{n}", "answer": str(n % 4)} for n in range(20)]
            (engine.world.landing / f"{file}.jsonl").write_text("\n".join(map(json.dumps, rows)))
            engine.run()
            assert len(engine.world.store.iterations("t")) >= number + 1
        yield engine


def statuses(world):
    planner = world.planner()
    keys = [BASE, *world.store.iterations("t")]
    return {(key, name): planner.stage(key, name).status for key in keys for name in stages_of(key)}


def test_gc_frees_older_iterations_and_old_settings_and_nothing_turns_stale(engine):
    world = engine.world
    world.set("training", beta=0.2)
    engine.run()
    before, results = statuses(world), engine.results()
    last = world.store.iterations("t")[-1]
    would = collect_garbage(world, 1, dry_run=True)
    assert statuses(world) == before
    did = collect_garbage(world, 1, dry_run=False)
    assert did.removed == would.removed
    assert did.removed["artifacts"] > 0
    assert did.removed["traces"] > 0, "those of the other beta"
    assert statuses(world) == before
    rows = {path.suffix: set() for path in (world.store.root / "rows").glob("*/*.*")}
    for path in (world.store.root / "rows").glob("*/*.*"):
        rows[path.suffix].add(path.stem)
    assert rows[".lock"] == rows[".jsonl"], "no lock of a removed row table is left"
    after = engine.results()
    assert {where: after[where] for where in after if where[0] == last} == {
        w: c for w, c in results.items() if w[0] == last
    }
    assert after["0001", "eval_predictions"] is None, "its files are gone"
    engine.run()
    assert statuses(world) == before
    assert collect_garbage(world, 1, dry_run=False).removed == {}, "a second time there is nothing left"


def test_collected_input_that_is_needed_again_is_computed_again_first(engine):
    world = engine.world
    expected = engine.results()
    collect_garbage(world, 1, dry_run=False)
    # Lose a small artifact of the first iteration: to make it again, collected ones have to come back.
    manifest = world.planner().stage("0001", "gate").manifest
    shutil.rmtree(world.store.open(manifest))
    outcome = run_stage(world, "0001", "gate", run_id="r")
    assert outcome.status == "computed"
    assert content_of(world.store.verify(outcome.manifest)) == expected["0001", "gate"]
    restored = world.planner().stage("0001", "benchmark_scores").manifest
    assert content_of(world.store.verify(restored)) == expected["0001", "benchmark_scores"]


def test_new_iteration_after_gc_starts_from_the_promoted_adapter(engine):
    world = engine.world
    promoted = world.store.iterations("t")[-1]
    collect_garbage(world, 1, dry_run=False)
    rows = [{"prompt": f"d{n}", "answer": str(n % 4)} for n in range(9)]
    (world.landing / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    engine.run()
    new = world.store.iterations("t")[-1]
    assert new > promoted
    assert statuses(world)[new, "adapter_checkpoint"] == "fresh"


def test_gc_refuses_while_a_run_is_going_on(engine):
    store = engine.world.store
    with store.locks.take("t-0001-bad_cases"), pytest.raises(RuntimeError, match="a run is going on"):
        collect_garbage(engine.world, 1, dry_run=False)


def test_leftovers_of_killed_runs_and_quarantine_go(engine):
    root = engine.world.store.root
    for name in ("temporary/half", "quarantine/odd"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text("x")
    assert {"temporary": 1, "quarantine": 1}.items() <= collect_garbage(engine.world, 9, dry_run=False).removed.items()
    assert not any((root / "temporary").iterdir())


def test_gc_makes_room_on_a_full_disk_before_it_notes_anything(engine, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    half = engine.world.store.root / "temporary" / "half"
    half.mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(Records, "mark_collected", full)
        with pytest.raises(OSError, match="No space"):
            collect_garbage(engine.world, 1, dry_run=False)
    assert not half.exists()
    assert collect_garbage(engine.world, 1, dry_run=False).removed["artifacts"] > 0


def test_gc_that_was_killed_between_two_notes_is_finished_by_the_next_one(engine, monkeypatch):
    notes, put = [], Records.put

    def killed(records, place, content):
        notes.append(place)
        if len(notes) == 3:
            raise KeyboardInterrupt
        put(records, place, content)

    with monkeypatch.context() as patched:
        patched.setattr(Records, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            collect_garbage(engine.world, 1, dry_run=False)
    collect_garbage(engine.world, 1, dry_run=False)
    store = engine.world.store
    gone = [m for key in store.iterations("t") for name in STAGES if (m := store.pointed("t", key, name))]
    assert [m for m in gone if not m.collected and not store.complete(m)] == []


def test_gc_of_more_iterations_than_a_process_may_open_files(engine):
    store = engine.world.store
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in range(300):
        with store.locks.take(f"t-{number:04d}-policy"):
            pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, most))
    try:
        collect_garbage(engine.world, 1, dry_run=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))
    kept = {path.name for path in (store.root / "locks").iterdir()}
    assert kept <= {"gc", "dagster-instance", "in-use"}, "one file of each stage of each iteration is left otherwise"
    with store.locks.take("t-0007-policy"), pytest.raises(RuntimeError, match=r"t-0007-policy is being computed"):
        collect_garbage(engine.world, 1, dry_run=False)


def test_scores_of_an_experiment_that_has_no_iteration_stay(engine):
    world, own = engine.world, engine.world.experiment
    world.experiment = own.model_copy(update={"name": "scored-only"})
    world.set("policy", max_new_tokens=3)
    run_stage(world, BASE, "base_scores", run_id="r", log=lambda line: None)
    scored = world.store.pointed("scored-only", BASE, "base_scores")
    world.experiment = own
    assert scored.data_version != world.store.pointed("t", BASE, "base_scores").data_version
    collect_garbage(world, 1, dry_run=False)
    assert world.store.complete(world.store.pointed("scored-only", BASE, "base_scores"))


def test_what_a_study_compares_stays_all_iterations_of_it(engine):
    runs = engine.world.home / "studies" / "mine" / "runs"
    runs.mkdir(parents=True)
    (runs / "cell.yaml").write_text("# written by a study\nname: t\n")
    collect_garbage(engine.world, 1, dry_run=False)
    assert engine.results()["0001", "eval_predictions"] is not None


def test_rows_of_a_stage_that_failed_after_them_stay_and_are_not_computed_again(engine):
    world, stage = engine.world, STAGES["base_scores"]

    def full(step):
        stage.compute(step)
        raise OSError(28, "No space left on device")

    world.set("policy", max_new_tokens=9)
    with patch.dict(STAGES, {"base_scores": replace(stage, compute=full)}), pytest.raises(OSError, match="space"):
        run_stage(world, BASE, "base_scores", run_id="r")
    # Fine-tuning computes no rows, and keeps checkpoints.
    trains = replace(STAGES["anchor_texts"], compute=lambda step: step.unfinished.mkdir(parents=True) or 1 / 0)
    world.set("anchor", tokens=17)
    with patch.dict(STAGES, {"anchor_texts": trains}), pytest.raises(ZeroDivisionError):
        run_stage(world, BASE, "anchor_texts", run_id="r")
    begun = world.store.unfinished(world.planner().stage(BASE, "anchor_texts").fingerprint)
    collect_garbage(world, 1, dry_run=False)
    assert begun.is_dir()
    work = run_stage(world, BASE, "base_scores", run_id="r").manifest.work
    assert {kind: counts["computed"] for kind, counts in work.items()} == dict.fromkeys(work, 0)
    assert work["answers"]["reused"] > 0
    run_stage(world, BASE, "anchor_texts", run_id="r")
    assert not begun.exists(), "it came to its end"


def test_promotion_of_an_early_version_that_noted_no_adapter_stands(bench):
    bench.land("a.jsonl")
    bench.notice()
    bench.compute()
    store = bench.project.store
    promoted = store.pointed("made-up", "0001", "promoted_adapter")
    inputs = {name: version for name, version in promoted.inputs.items() if name != TRAINED}
    store.point("made-up", "0001", replace(promoted, inputs=inputs))
    bench.set(gate={"approval": "required"})
    assert [key for key, _ in promotions(bench.project)] == ["0001"]
    assert base_of(bench.project, "0001", next(promotions(bench.project))[1]) is None
    assert promoted.data_version in {manifest.data_version for manifest in needs(bench.project, 1)[0]}
