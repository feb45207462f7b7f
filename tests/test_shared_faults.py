"""A shared store whose servers fail: requests are tried again, and what was there is never taken for gone."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from resources.store.manifest import CorruptArtifact
from resources.store.store import StoreError
from tests import cluster
from tests.test_store_contract import commit, events, fill

pytestmark = pytest.mark.cluster


@pytest.fixture
def store(shared):
    return shared.open()


# -- servers that fail ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [500, 503, "cut"])
def test_request_that_fails_twice_is_tried_again(shared, proxy, fault):
    store = shared.open()
    for what in ("PUT /apt-test", "GET /apt-test"):
        proxy.times(2, fault, what)
        manifest = commit(store, what, fingerprint=what[:3])
        store.point("e", "0001", manifest)
        fill(store.rows("answers", {}), [what[:3]])
        assert store.pointed("e", "0001", "bad_cases") == manifest
        assert store.rows("answers", {}).missing(["PUT"]) == 0


def test_reading_request_that_takes_too_long_is_tried_again(shared, proxy, monkeypatch):
    manifest = commit(shared.open())
    monkeypatch.setenv("AWS_TIMEOUT", "700ms")
    store = shared.open()
    proxy.times(1, "late", "GET")
    assert store.lookup("bad_cases", "f1") == manifest


def test_server_that_hangs_is_told(shared, proxy, monkeypatch):
    monkeypatch.setenv("AWS_TIMEOUT", "700ms")
    store = shared.open()
    proxy.fault = lambda method, path: "late"
    with pytest.raises(StoreError, match=r"cannot list traces: .*error sending request"):
        store.lookup("bad_cases", "f1")


@pytest.mark.parametrize("fault", [500, "cut", 403])
def test_server_that_fails_for_good_is_one_line_that_names_it(shared, proxy, fault):
    store = shared.open()
    manifest = commit(store)
    proxy.fault = lambda method, path: fault
    for ask in (
        lambda: store.lookup("bad_cases", "f1"),
        lambda: store.verify(manifest),
        lambda: commit(store, "other rows"),
        lambda: store.rows("answers", {}).missing(["a"]),
        lambda: store.journal("hit"),
        shared.open,
    ):
        with pytest.raises(StoreError, match=rf"^{shared.url} \({proxy.address}\): cannot \w+ [^\n]+$"):
            ask()
    proxy.fault = lambda method, path: None
    assert store.lookup("bad_cases", "f1") == manifest, "nothing that was there is taken for gone"


def test_write_whose_answer_was_lost_counts_as_done(shared, proxy):
    store = shared.open()
    proxy.times(1, "lost", "PUT")
    fill(store.rows("answers", {}), ["a"])
    assert sum(name.startswith("rows/") for name in shared.things()) == 1
    manifests = [commit(store), commit(store, "other rows")]
    for manifest in manifests:
        proxy.times(1, "lost", "pointers/")
        store.point("e", "0001", manifest)
        assert shared.open().pointed("e", "0001", "bad_cases") == manifest
    assert events(store) == []


def test_artifact_is_not_taken_for_damaged_while_the_server_is_away(shared, proxy):
    store = shared.open()
    manifest = commit(store)
    proxy.fault = lambda method, path: 503
    with pytest.raises(StoreError):
        store.verify(manifest)
    proxy.fault = lambda method, path: None
    store.verify(manifest)
    shared.lose(next(name for name in shared.things() if name.endswith("table.txt")))
    with pytest.raises(CorruptArtifact):
        store.verify(manifest)


# -- locks ---------------------------------------------------------------------------------------------


def terminate_all(locks):
    """End every connection to the lock server, as its restart would."""
    import psycopg2

    connection = psycopg2.connect(locks)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'e-0001%'")
    connection.close()


def lose_lock(shared, store, error=None):
    with store.locks.take("e-0001-gate"):
        terminate_all(shared.locks)
        if error:
            raise error


def test_lock_that_was_lost_is_told_and_is_free_again(shared, store):
    with pytest.raises(StoreError, match="connection that held the lock e-0001-gate was lost"):
        lose_lock(shared, store)
    with store.locks.take("e-0001-gate"):
        pass


def test_what_was_raised_under_a_lock_that_was_lost_is_what_is_told(shared, store):
    with pytest.raises(KeyError):
        lose_lock(shared, store, KeyError())


def test_one_waits_for_another_and_then_goes_on(shared, store):
    order = []

    def second():
        with shared.open().locks.take("e-0001-gate"):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with store.locks.take("e-0001-gate"):
            waiting = pool.submit(second)
            with pytest.raises(TimeoutError):
                waiting.result(1.5)  # longer than one piece of its wait
            order.append("first")
        waiting.result(30)
    assert order == ["first", "second"]


def test_process_that_runs_many_iterations_holds_the_lock_of_one(store):
    for number in range(5):
        store.locks.keep(f"run-{number}")
    assert [number for number in range(5) if store.locks.taken(f"run-{number}")] == [4]


def test_locks_of_two_stores_on_one_server_are_two_locks(shared, store, tmp_path):
    other = cluster.Shared(tmp_path, shared.locks).open()
    with store.locks.take("e-0001-gate"), other.locks.take("e-0001-gate"), other.locks.take("e-0001-policy"):
        assert not store.locks.taken("e-0001-policy")
