"""A shared store, beside what any store must do (test_store_contract.py): what is refused, several machines, kills."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from unittest.mock import patch

import pytest

from apt_assets.engine.plan import stages_of
from apt_assets.engine.stage import STAGES
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import BASE
from apt_assets.settings.reader import find_store
from resources.store.shared.bucket import Thing
from resources.store.shared.listings import Listings
from resources.store.store import Kept, StoreError
from tests import cluster, tiny
from tests.test_store_contract import commit, events, fill
from tests.torture.small_loop import land, missing, open_loop, wrong

pytestmark = pytest.mark.cluster


@pytest.fixture
def store(shared):
    return shared.open()


@pytest.fixture
def stages():
    """The stages, of which a test makes others."""
    with patch.dict(STAGES):
        yield


# -- what is refused at opening ------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_server_that_does_not_keep_the_conditions_of_a_write_is_refused(shared, proxy, header):
    proxy.fault = lambda method, path: header
    with pytest.raises(StoreError, match=rf"{shared.url} \({proxy.address}\): this server does not keep {header}:"):
        shared.open()
    proxy.fault = lambda method, path: None
    shared.open()


def test_bucket_that_is_not_there_is_told(shared):
    shared.url = "s3://apt-none/prefix"
    with pytest.raises(StoreError, match=r"s3://apt-none/prefix.*there is no such bucket"):
        shared.open()


def test_lock_server_that_does_not_answer_is_told_without_its_password(shared):
    shared.locks = "postgresql://user:secret@127.0.0.1:1/postgres"
    with pytest.raises(StoreError, match=r"lock server that \$APT_LOCKS names: .*refused") as error:
        shared.open()
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "locks", "said"),
    [
        ("s3://bucket/x", "", "names no lock server, and the store s3://bucket/x is shared"),
        ("s3://bucket/x", "mysql://host", "names no lock server"),
        ("/mnt/nfs", "postgresql://host/db", "APT_STORE: /mnt/nfs: name s3://BUCKET/PREFIX"),
        ("s3:///x", "postgresql://host/db", "APT_STORE: s3:///x: name"),
    ],
)
def test_store_that_cannot_be_shared_as_it_is_named_is_refused(monkeypatch, address, locks, said):
    monkeypatch.setenv("APT_STORE", address)
    monkeypatch.setenv("APT_LOCKS", locks)
    with pytest.raises(UsageError, match=said):
        find_store()


def test_store_in_a_folder_loads_nothing_that_a_shared_one_needs(tmp_path):
    code = "import sys; from tests.oracle import World; from pathlib import Path; w = World(Path(sys.argv[1])); "
    code += "w.store.journal('hit'); print({'obstore', 'psycopg2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# -- several machines ----------------------------------------------------------------------------------


def test_artifact_of_one_machine_is_found_and_verified_on_another(shared, store, tmp_path):
    manifest = commit(store, "é" * (6 << 20))  # larger than the parts in which it goes up
    other = shared.open("elsewhere")
    assert other.lookup("bad_cases", "f1") == manifest
    assert (other.verify(manifest) / "table.txt").read_text() == "é" * (6 << 20)
    assert other.open(manifest) != store.open(manifest)


def test_copy_that_is_damaged_is_fetched_anew_and_the_artifact_stays(store):
    manifest = commit(store)
    (store.open(manifest) / "table.txt").write_text("f1rst rows")
    assert (store.verify(manifest) / "table.txt").read_text() == "first rows"
    assert events(store) == []


def test_copy_of_rows_that_is_damaged_is_fetched_anew_and_the_store_stays_as_it_is(shared, store, tmp_path):
    fill(store.rows("answers", {}), ["a", "b"])
    (copy,) = (tmp_path / "local").rglob("rows/answers/*/*")
    whole = copy.read_bytes()
    copy.write_bytes(whole.replace(b"answer to a", b"answer to q"))
    filled = fill(shared.open().rows("answers", {}), ["a", "b"])
    assert (filled.values, filled.damaged) == (["answer to a", "answer to b"], 0)
    assert copy.read_bytes() == whole
    assert not any(name.startswith("quarantine/") for name in shared.things())


def test_writers_that_hold_no_lock_lose_no_row(shared, store):
    def write(number):
        table = shared.open().rows("answers", {})
        table._writing = lambda name: nullcontext()
        for step in range(5):
            fill(table, [f"{number}-{step}"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    keys = [f"{number}-{step}" for number in range(4) for step in range(5)]
    assert store.rows("answers", {}).missing(keys) == 0


def test_gc_joins_many_segments_and_the_rows_stay_what_they_last_were(shared, store, tmp_path):
    table = store.rows("answers", {})
    keys = [f"k{number}" for number in range(20)]
    for key in keys:
        fill(table, [key])
    table.fill(["k3"], lambda positions: (batch for batch in [(positions, ["another answer"])]), anew=True)
    reader = shared.open("elsewhere").rows("answers", {})
    before = reader.read(keys)
    assert before["k3"] == "another answer"
    kept = Kept(set(), set(), {f"answers/{table.digest}"}, {})
    with store.locks.all_idle():
        store.remove_unneeded(kept, really=True)
    assert sum(name.startswith("rows/") for name in shared.things()) == 1
    assert reader.read(keys) == shared.open().rows("answers", {}).read(keys) == before
    fill(table, ["new"])
    assert reader.missing([*keys, "new"]) == 0


def test_gc_removes_old_copies_of_what_it_removed_and_of_nothing_else(shared, store, tmp_path):
    needed, unneeded = commit(store, "needed rows"), commit(store, "other rows", fingerprint="f2")
    fill(store.rows("answers", {}), ["a"])
    before = {path for path in (tmp_path / "local").rglob("*") if path.is_file()}
    kept = Kept({needed.data_version}, {("bad_cases", "f1")}, {f"answers/{store.rows('answers', {}).digest}"}, {})
    for age, goes in ((60, False), (7200, True)):
        for path in before:
            os.utime(path, (time.time() - age, time.time() - age))
        with store.locks.all_idle():
            store.remove_unneeded(kept, really=True)
        gone = {path for path in before if not path.exists()}
        assert bool(gone) == goes
    of_unneeded = {path for path in before if unneeded.data_version in path.as_posix() or path.name.startswith("f2")}
    assert of_unneeded
    assert gone == of_unneeded
    assert shared.open().verify(needed)


def test_plan_asks_the_server_for_no_stage_by_itself(shared, proxy, stages, tmp_path, monkeypatch):
    monkeypatch.setenv("APT_STORE", shared.url)
    monkeypatch.setenv("APT_LOCKS", shared.locks)
    land(tmp_path, "a.jsonl", 0, 20)
    engine = open_loop(tmp_path, loop={"max_iterations": 1})
    engine.run()
    world = engine.world
    del world.store  # opened anew, it remembers nothing
    assert world.store.iterations("t") == ["0001"]
    proxy.seen.clear()
    planner = world.planner()
    plans = [planner.stage(key, name) for key in (BASE, "0001") for name in stages_of(key)]
    assert {plan.status for plan in plans} == {"fresh"}
    assert len(plans) > 10
    assert len(proxy.seen) < 8


def drive(home, address, locks, environment, start, counted):
    """One driver, in a process and a home of its own: runs the loop, and tells all that it computed."""
    os.environ |= {**environment, "APT_STORE": address, "APT_LOCKS": locks}
    engine = open_loop(home)
    start.wait(60)
    engine.run()
    counted.write_text(json.dumps(sorted(engine.seen)))


@pytest.mark.slow("processes")
def test_two_drivers_on_one_store_compute_each_unit_once(shared, stages, tmp_path, s3_server, monkeypatch):
    context = multiprocessing.get_context("spawn")
    start, drivers = context.Barrier(2), []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        land(tmp_path / name, "a.jsonl", 0, 20)
        given = (
            tmp_path / name,
            shared.url,
            shared.locks,
            cluster.environment(s3_server),
            start,
            tmp_path / f"{name}.json",
        )
        drivers.append(context.Process(target=drive, args=given))
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join(120)
    assert [driver.exitcode for driver in drivers] == [0, 0]
    one, two = (set(json.loads((tmp_path / f"{name}.json").read_text())) for name in ("one", "two"))
    assert one | two
    assert one & two == set()
    monkeypatch.setenv("APT_STORE", shared.url)
    monkeypatch.setenv("APT_LOCKS", shared.locks)
    engine = open_loop(tmp_path / "one")
    assert (wrong(engine), missing(engine)) == ([], [])
    assert len(engine.world.store.iterations("t")) == 2


@pytest.mark.slow("loop")
def test_what_one_machine_ran_another_reuses_to_the_last_stage(shared, tiny_folder, looked_at, tmp_path, monkeypatch):
    from apt_assets.engine.display import Display
    from apt_assets.orchestration.run import run_loop

    monkeypatch.setenv("APT_STORE", shared.url)
    monkeypatch.setenv("APT_LOCKS", shared.locks)
    results = []
    for name in ("one", "two"):
        home = tmp_path / name
        shutil.copytree(looked_at, home / ".apt")
        tiny.land_hostile(home)
        monkeypatch.setenv("APT_HOME", str(home))
        monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster_home"))
        results.append(run_loop(tiny.open_project(home, tiny_folder), 1, Display()))
        assert not (home / ".apt" / "store").exists()
    one, two = results
    assert one.passed
    assert two.computed == []
    assert sorted(two.reused) == sorted(one.computed)


# -- killed --------------------------------------------------------------------------------------------


def commit_under_lock(address, locks, environment, local):
    os.environ |= environment
    from resources.retrieval.shared_vectors import open_store

    store = open_store(address, locks, local)
    with store.locks.take("e-0001-bad_cases"):
        commit(store)


def test_driver_killed_while_it_commits_leaves_no_half_artifact_and_no_lock(shared, s3_server, tmp_path):
    proxy = cluster.Proxy(s3_server, patience=60)
    reached = threading.Event()

    def hold(method, path):
        if method == "PUT" and "/objects/" in path and path.endswith("table.txt"):
            reached.set()
            return "late"
        return None

    proxy.fault = hold
    given = (shared.url, shared.locks, cluster.environment(proxy.address), tmp_path / "other")
    driver = multiprocessing.get_context("spawn").Process(target=commit_under_lock, args=given)
    driver.start()
    assert reached.wait(60)
    store = shared.open()
    assert store.locks.taken("e-0001-bad_cases")
    driver.kill()
    driver.join()
    assert any(name.startswith("objects/") for name in shared.things()), "one of its two files is there"
    assert store.lookup("bad_cases", "f1") is None
    with store.locks.take("e-0001-bad_cases"):
        manifest = commit(store)
    assert (store.verify(manifest) / "table.txt").read_text() == "first rows"
    assert events(store) == []
    proxy.close()


class Listed:
    """A bucket that is written to while it is being listed."""

    def __init__(self, there, meanwhile):
        self._there, self._meanwhile = there, meanwhile

    def things(self, folder):
        found = list(self._there)
        self._meanwhile()
        return found


def test_what_another_thread_writes_while_the_bucket_is_listed_is_not_lost():
    old, new = Thing("traces/a", "1", 1), Thing("traces/b", "2", 1)
    listings = Listings(Listed([old], lambda: listings.put(new)), since=time.monotonic)
    assert listings.folder("traces") == {old.name: old, new.name: new}
    listings = Listings(Listed([old], lambda: None), since=lambda: float("-inf"))
    listings.put(Thing("traces/gone", "3", 1))
    assert listings.folder("traces") == {old.name: old}, (
        "what was written before it was asked for is told by the server"
    )
