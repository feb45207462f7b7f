"""What many looks at a loop, and a loop of many iterations, cost and show. The daemon: torture/long_life.py."""

import json

import dagster as dg
import pytest

from apt_assets import cli
from apt_assets.landing.folder import LandingFolder


@pytest.fixture
def long(bench):
    """Twelve promoted iterations on one file."""
    bench.set(loop={"max_iterations": 12})
    bench.land("a.jsonl")
    for number in range(1, 13):
        bench.project.open_iteration(f"{number:04d}")
    bench.compute()
    return bench


def printed(capsys, command, bench, **options):
    command(experiment=bench.project.experiment_file, **{"as_json": False, **options})
    return capsys.readouterr().out


def test_status_of_many_iterations_has_columns_for_the_last_ones_and_says_so(long, capsys):
    text = printed(capsys, cli.status, long)
    assert "0012" in text
    assert "0005" in text
    assert "0004" not in text
    assert "4 earlier iterations are not shown: --json has all" in text
    found = json.loads(printed(capsys, cli.status, long, as_json=True))
    assert len(found["iterations"]) == 13


def test_plan_of_many_iterations_leaves_out_earlier_ones_only_where_all_is_fresh(long, capsys):
    text = printed(capsys, cli.plan, long, iterations=None)
    assert "0004" not in text
    assert "4 earlier iterations, in which all is fresh, are not shown: --json has all" in text
    assert "172 of 172 stages are fresh" in text
    assert len(json.loads(printed(capsys, cli.plan, long, iterations=None, as_json=True))) == 172
    manifest = long.project.store.pointed("made-up", "0003", "gate")
    long.project.store.forget(manifest)
    text = printed(capsys, cli.plan, long, iterations=None)
    assert "0002" not in text
    assert "0003" in text
    assert "0004" in text, "it waits for 0003"


def test_look_at_an_unchanged_loop_leaves_the_event_log_unread_and_one_after_a_wipe_puts_it_right(ended, monkeypatch):
    ended.drive()
    ended.drive()
    with monkeypatch.context() as patch:
        patch.setattr(type(ended.instance), "fetch_materializations", None)
        assert "loop.max_iterations" in ended.drive()
    policy = dg.AssetKey("policy")
    assert ended.instance.get_latest_materialization_event(policy)
    ended.instance.wipe_assets([policy])
    assert not ended.instance.get_latest_materialization_event(policy)
    ended.drive()
    latest = ended.instance.get_latest_storage_id_by_partition(policy, dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert set(latest) == {"0001", "0002"}


def test_landed_file_is_looked_up_once_for_all_iterations_that_use_it(ended, monkeypatch):
    looked = []
    contents = LandingFolder._contents
    monkeypatch.setattr(
        LandingFolder, "_contents", lambda self, name, reader: looked.append(name) or contents(self, name, reader)
    )
    plans = ended.project.planner().plan(2)
    assert {plan.status for plan in plans} == {"fresh"}
    assert looked == ["a.jsonl"]
