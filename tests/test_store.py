import fcntl
import json
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest

from resources.store import file_digests
from resources.store.digest import list_files
from resources.store.file_digests import FileDigests
from resources.store.manifest import CorruptArtifact
from resources.store.tables import parquet
from tests.stores import local_store


@pytest.fixture
def store(tmp_path):
    return local_store(tmp_path / "store")


def commit(store, content="rows", fingerprint="f1"):
    with store.workspace() as folder:
        (folder / "table.txt").write_text(content)
        return store.commit(
            folder, stage="bad_cases", fingerprint=fingerprint, inputs={}, settings={}, identities={},
            libraries={}, code={}, facts={"rows": 1}, work={}, row_tables=[], iteration="0001", seconds=0.1,
            run_id="r", created="now",
        )  # fmt: skip


def test_committed_artifact_is_found_by_its_fingerprint_and_verified(store):
    manifest = commit(store)
    assert store.lookup("bad_cases", "f1") == manifest
    assert (store.verify(manifest) / "table.txt").read_text() == "rows"
    assert store.lookup("bad_cases", "f2") is None


def test_same_content_under_another_fingerprint_has_the_same_data_version(store):
    assert commit(store, fingerprint="f1").data_version == commit(store, fingerprint="f2").data_version
    assert len(list((store.root / "objects").iterdir())) == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damaged_artifact_is_noticed_quarantined_and_committed_anew(store, damage):
    manifest = commit(store)
    path = store.open(manifest) / "table.txt"
    {"flip": lambda: path.write_text("r0ws"), "truncate": lambda: path.write_text(""), "delete": path.unlink}[damage]()
    with pytest.raises(CorruptArtifact, match=r"table\.txt"):
        store.verify(manifest)
    assert store.verify(commit(store)) == store.open(manifest)
    assert len(list((store.root / "quarantine").iterdir())) == 1


def test_edited_or_foreign_trace_is_a_miss(store):
    commit(store)
    trace = store.root / "traces" / "bad_cases" / "f1.json"
    trace.rename(trace.with_name("f9.json"))
    assert store.lookup("bad_cases", "f9") is None
    trace.with_name("f9.json").write_text('{"stage": "bad_cases"')
    assert store.lookup("bad_cases", "f9") is None


def test_failed_computation_leaves_nothing_behind(store):
    def compute():
        with store.workspace() as folder:
            (folder / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        compute()
    assert list((store.root / "temporary").iterdir()) == []


def hold_lock(root, started):
    with local_store(root).locks.take("one"):
        started.set()
        multiprocessing.parent_process().join()


def test_lock_of_a_killed_holder_is_free(store):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    holder = context.Process(target=hold_lock, args=(store.root, started))
    holder.start()
    assert started.wait(30)
    holder.kill()
    holder.join()
    with store.locks.take("one"):
        pass


def test_journal_is_one_json_object_a_line(store):
    store.journal("hit", stage="x")
    store.journal("miss", stage="y", reason=["a"])
    lines = (store.root / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["hit", "miss"]


def test_file_overwritten_in_place_with_its_old_size_and_mtime_has_a_new_digest(tmp_path):
    import os

    path = tmp_path / "weights"
    path.write_bytes(b"aaaa")
    first = FileDigests(tmp_path / "memory.json").file(path)
    stat = path.stat()
    path.write_bytes(b"bbbb")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert FileDigests(tmp_path / "memory.json").file(path) != first


def test_overwrite_within_one_tick_of_a_coarse_file_clock_is_noticed(tmp_path, monkeypatch):
    def by_the_second(stat):
        return stat.st_ino, stat.st_size, *(time // 10**9 * 10**9 for time in (stat.st_mtime_ns, stat.st_ctime_ns))

    monkeypatch.setattr(file_digests, "seen", by_the_second)
    path, memory = tmp_path / "weights", tmp_path / "memory.json"
    found = []
    for content in (b"aaaa", b"bbbb", b"cccc"):
        path.write_bytes(content)
        found.append(FileDigests(memory).file(path))
    assert len(set(found)) == 3


def events(store, kind):
    return list(store.events(kind))


def test_edited_manifest_is_a_miss_and_kept_aside_when_the_artifact_is_committed_anew(store):
    manifest = commit(store)
    trace = store.root / "traces" / "bad_cases" / "f1.json"
    trace.write_text(trace.read_text().replace('"rows": 1', '"rows": 7'))
    assert store.lookup("bad_cases", "f1") is None
    assert commit(store) == manifest
    assert store.lookup("bad_cases", "f1") == manifest
    (aside,) = (store.root / "quarantine").iterdir()
    assert '"rows": 7' in aside.read_text()
    (event,) = events(store, "quarantined")
    assert event["file"] == "traces/bad_cases/f1.json"
    assert "does not match its check" in event["reason"][0]


def test_pointer_of_another_iteration_put_in_place_counts_as_absent(store):
    store.point("e", "0001", commit(store))
    folder = store.root / "pointers" / "e"
    (folder / "0002").mkdir()
    (folder / "0002" / "bad_cases.json").write_bytes((folder / "0001" / "bad_cases.json").read_bytes())
    assert store.pointed("e", "0001", "bad_cases") is not None
    assert store.pointed("e", "0002", "bad_cases") is None


@pytest.mark.parametrize("content", ["", "[]", '{"files": 7}', '{"version": 2, "files": ["b.jsonl"]}'])
def test_damaged_snapshot_is_read_from_the_journal_and_written_again(store, content):
    store.take_snapshot("e", "0001", ["b.jsonl", "a.jsonl"])
    path = store.root / "snapshots" / "e" / "0001.json"
    whole = path.read_bytes()
    path.write_text(content)
    assert store.snapshot("e", "0001") == ["a.jsonl", "b.jsonl"]
    store.restore_snapshots("e")
    assert path.read_bytes() == whole
    assert len(events(store, "quarantined")) == 1


def test_snapshot_that_is_gone_is_written_again_if_something_was_computed_for_its_iteration(store):
    store.take_snapshot("e", "0001", ["a.jsonl"])
    store.take_snapshot("e", "0002", ["a.jsonl", "b.jsonl"])
    store.point("e", "0001", commit(store))
    for path in (store.root / "snapshots" / "e").iterdir():
        path.unlink()
    store.restore_snapshots("e")
    assert store.iterations("e") == ["0001"]
    assert store.snapshot("e", "0001") == ["a.jsonl"]


def test_damaged_snapshot_that_the_journal_does_not_know_either_is_a_clear_error(store):
    store.take_snapshot("e", "0001", ["a.jsonl"])
    (store.root / "snapshots" / "e" / "0001.json").write_text("{")
    (store.root / "journal.jsonl").unlink()
    with pytest.raises(CorruptArtifact, match=r"0001\.json.*delete it"):
        store.snapshot("e", "0001")


def test_line_after_a_torn_one_in_the_journal_can_be_read(store):
    store.journal("hit", stage="x")
    with (store.root / "journal.jsonl").open("a") as file:
        file.write('{"event": "mi')
    store.journal("miss", stage="y")
    assert [event["event"] for event in store.events()] == ["hit", "miss"]


def test_locks_of_two_stores_in_one_process_are_two_locks(tmp_path):
    one, other = local_store(tmp_path / "one"), local_store(tmp_path / "other")
    one.locks.keep("run-1")
    other.locks.keep("run-1")
    assert one.locks.taken("run-1")
    assert other.locks.taken("run-1")
    assert not one.locks.taken("run-2")


def test_process_that_waits_for_a_lock_whose_file_gc_removes_locks_the_new_file(store, monkeypatch):
    path = store.root / "locks" / "run-1"
    path.parent.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        with path.open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            asked, flock = threading.Event(), fcntl.flock
            monkeypatch.setattr(fcntl, "flock", lambda *given: asked.set() or flock(*given))
            waiting = pool.submit(store.locks.keep, "run-1")
            assert asked.wait(30), "it has opened the file"
            path.unlink()
        waiting.result(30)
    assert store.locks.taken("run-1")


def test_process_that_runs_many_iterations_holds_the_lock_of_one(store):
    for number in range(5):
        store.locks.keep(f"run-{number}")
    assert [number for number in range(5) if store.locks.taken(f"run-{number}")] == [4]


def test_folder_that_is_a_link_counts_with_what_is_in_it_and_one_that_leads_back_ends(tmp_path):
    model, pooling = tmp_path / "model", tmp_path / "elsewhere"
    model.mkdir()
    pooling.mkdir()
    (model / "config.json").write_text("{}")
    (pooling / "config.json").write_text("mean")
    (model / "1_Pooling").symlink_to(pooling)
    (pooling / "back").symlink_to(model)
    (pooling / "itself").symlink_to(".")
    digests = FileDigests(tmp_path / "digests.json")
    before = digests.folder(model)
    (pooling / "config.json").write_text("cls")
    assert digests.folder(model) != before
    assert [str(path.relative_to(model)) for path in list_files(model)] == ["1_Pooling/config.json", "config.json"]
    assert list_files(tmp_path / "gone") == []


def test_links_that_lead_nowhere_cost_no_other_file_and_folders_that_link_to_each_other_end(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "weights").write_text("1")
    (tmp_path / "broken").symlink_to(tmp_path / "config.json" / "x")
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    assert [path.name for path in list_files(tmp_path)] == ["config.json", "weights"]
    several = [tmp_path / "several" / str(n) for n in range(8)]
    for folder in several:
        folder.mkdir(parents=True)
        (folder / "file").write_text("")
    for folder in several:
        for other in several:
            (folder / f"to {other.name}").symlink_to(other)
    assert len(list_files(tmp_path / "several")) > 8 * 8  # each by its name, and by links


def test_link_to_another_folder_of_the_same_model_is_another_model(tmp_path):
    for name in ("mean", "cls"):
        (tmp_path / "pools" / name).mkdir(parents=True)
        (tmp_path / "pools" / name / "config.json").write_text(name)
    (tmp_path / "1_Pooling").symlink_to(tmp_path / "pools" / "mean")
    digests = FileDigests(tmp_path.parent / "digests.json")
    before = digests.folder(tmp_path)
    (tmp_path / "1_Pooling").unlink()
    (tmp_path / "1_Pooling").symlink_to(tmp_path / "pools" / "cls")
    assert digests.folder(tmp_path) != before


def test_table_below_a_folder_with_brackets_in_its_name_is_read(tmp_path):
    folder = tmp_path / "mine [x] *"
    folder.mkdir()
    pl.DataFrame({"a": [1]}).write_parquet(folder / "t.parquet")
    assert parquet(folder / "t.parquet").height == 1
