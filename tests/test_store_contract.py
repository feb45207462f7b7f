"""What any store must do (resources/store/store.py), and that nobody walks round it."""

import ast
from concurrent.futures import ThreadPoolExecutor

import pytest

from apt_assets.settings.experiment import REPOSITORY
from resources.retrieval.encoder import Encoder
from resources.store import locks
from resources.store.manifest import CorruptArtifact
from resources.store.store import Kept
from tests.stores import Local

NOTHING = Kept(data_versions=set(), traces=set(), row_tables=set(), vectors={})


@pytest.fixture(params=["local", pytest.param("shared", marks=pytest.mark.cluster)])
def place(request, tmp_path):
    """Where a store is kept: opens it, and lets a test damage what it holds."""
    return Local(tmp_path) if request.param == "local" else request.getfixturevalue("shared")


@pytest.fixture
def store(place):
    return place.open()


def commit(store, content="first rows", fingerprint="f1", stage="bad_cases", **facts):
    with store.workspace() as folder:
        (folder / "table.txt").write_text(content)
        (folder / "more").mkdir()
        (folder / "more" / "notes.txt").write_text("said once")
        return store.commit(
            folder, stage=stage, fingerprint=fingerprint, inputs={}, settings={}, identities={}, libraries={}, code={},
            facts=facts, work={}, row_tables=[], iteration="0001", seconds=0.1, run_id="r", created="now",
        )  # fmt: skip


def fill(table, keys, value="answer to {}"):
    """Fill the table, a row of `value` for each key; returns what came of it."""

    def compute(missing):
        yield missing, [value.format(keys[position]) for position in missing]

    return table.fill(keys, compute)


def damage(place, old, new):
    """Replace bytes wherever they are kept, but in the journal; b"" for `new` loses the things that hold them."""
    found = {n: c for n, c in place.things().items() if old in c and b'"event": ' not in c}
    assert found
    for name, content in found.items():
        if new:
            place.overwrite(name, content.replace(old, new))
        else:
            place.lose(name)


def events(store, *kinds):
    return [event["event"] for event in store.events(*kinds)]


# -- artifacts -----------------------------------------------------------------------------------------


def test_committed_artifact_is_found_by_its_fingerprint_by_whoever_opens_the_store(store, place):
    manifest = commit(store)
    other = place.open()
    assert other.lookup("bad_cases", "f1") == manifest
    assert other.complete(manifest)
    for folder in (other.open(manifest), other.verify(manifest)):
        assert (folder / "table.txt").read_text() == "first rows"
        assert (folder / "more" / "notes.txt").read_text() == "said once"
    assert other.lookup("bad_cases", "f2") is None
    assert other.lookup("neighbors", "f1") is None


def test_equal_content_is_one_data_version_kept_once(store, place):
    one = commit(store)
    before = sum(b"first rows" in content for content in place.things().values())
    other = commit(store, fingerprint="f2", stage="neighbors")
    assert one.data_version == other.data_version
    assert sum(b"first rows" in content for content in place.things().values()) == before
    assert commit(store, "other rows", fingerprint="f3").data_version != one.data_version


def test_fingerprint_that_gives_another_artifact_gives_the_last_one(store):
    first, last = commit(store), commit(store, "other rows")
    assert store.lookup("bad_cases", "f1") == last
    assert store.complete(first)


def test_many_commits_of_one_content_at_once_leave_one_whole_artifact(store):
    with ThreadPoolExecutor(8) as pool:
        manifests = list(pool.map(lambda n: commit(store, fingerprint=f"f{n}"), range(24)))
    assert len({manifest.data_version for manifest in manifests}) == 1
    assert all(store.lookup("bad_cases", manifest.fingerprint) == manifest for manifest in manifests)
    store.verify(manifests[0])


@pytest.mark.parametrize("new", [b"f1rst rows", b"first", b"no rows at all and more", b""])
def test_damaged_artifact_is_noticed_set_aside_and_committed_anew(store, place, new):
    manifest = commit(store)
    damage(place, b"first rows", new)
    store = place.open()
    with pytest.raises(CorruptArtifact, match=r"bad_cases.*table\.txt"):
        store.verify(manifest)
    assert (store.lookup("bad_cases", "f1") is None) == (new == b""), "a file that is not there is seen at once"
    store.quarantine(manifest, "the test said so")
    assert not store.complete(manifest)
    assert events(store, "quarantined", "lost") == ["quarantined"]
    with pytest.raises(FileNotFoundError):
        (store.open(manifest) / "table.txt").read_text()
    assert commit(store) == manifest
    assert (store.verify(manifest) / "table.txt").read_text() == "first rows"


def test_commit_of_content_that_is_there_and_damaged_makes_it_whole(store, place):
    manifest = commit(store)
    damage(place, b"first rows", b"f1rst rows")
    store = place.open()
    assert commit(store, fingerprint="f2").data_version == manifest.data_version
    store.verify(manifest)
    assert events(store, "quarantined") == ["quarantined"]


def test_artifact_of_which_nothing_is_left_is_noted_as_lost(store):
    manifest = commit(store)
    store.quarantine(manifest, "first")
    store.quarantine(manifest, "again")
    assert events(store) == ["quarantined", "lost"]


def test_computation_that_fails_leaves_nothing(store, place):
    before = place.things()
    written = []

    def compute():
        with store.workspace() as folder:
            assert list(folder.iterdir()) == []
            written.append(folder / "half")
            written[0].write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        compute()
    assert place.things() == before
    assert not written[0].exists()


def test_what_is_unfinished_stays_until_its_artifact_is_committed(store, place):
    (store.unfinished("f1")).mkdir(parents=True)
    (store.unfinished("f1") / "step").write_text("7")
    commit(store, fingerprint="f2")
    assert (place.open().unfinished("f1") / "step").read_text() == "7"
    commit(store, fingerprint="f1")
    assert not store.unfinished("f1").exists()


def test_forgotten_manifest_is_a_miss_and_its_artifact_and_pointers_stay(store):
    manifest = commit(store)
    store.point("e", "0001", manifest)
    store.forget(manifest)
    store.forget(manifest)
    assert store.lookup("bad_cases", "f1") is None
    assert store.pointed("e", "0001", "bad_cases") == manifest
    store.verify(manifest)


# -- manifests and pointers ----------------------------------------------------------------------------


def test_pointer_tells_the_last_manifest_of_its_stage_iteration_and_experiment(store, place):
    first, last = commit(store), commit(store, "other rows", fingerprint="f2")
    for manifest in (first, last):
        store.point("e", "0001", manifest)
    store.point("e", "0002", first)
    store = place.open()
    assert (store.pointed("e", "0001", "bad_cases"), store.pointed("e", "0002", "bad_cases")) == (last, first)
    assert store.pointed("e", "0001", "neighbors") is None
    assert store.pointed("other", "0001", "bad_cases") is None
    assert (store.started("e", "0001"), store.started("e", "0003"), store.started("other", "0001")) == (1, 0, 0)


def test_edited_manifest_counts_as_absent_and_is_kept_aside_when_it_is_written_again(store, place):
    manifest = commit(store, note="as it was")
    store.point("e", "0001", manifest)
    assert not store.unreadable("e", "0001", "bad_cases")
    damage(place, b"as it was", b"as it is not")
    store = place.open()
    assert store.lookup("bad_cases", "f1") is None
    assert store.pointed("e", "0001", "bad_cases") is None
    assert store.unreadable("e", "0001", "bad_cases")
    assert not store.unreadable("e", "0002", "bad_cases"), "there is none"
    assert events(store) == [], "reading changes nothing"
    store.point("e", "0001", commit(store, note="as it was"))
    assert store.pointed("e", "0001", "bad_cases") == store.lookup("bad_cases", "f1") == manifest
    assert events(store) == ["quarantined", "quarantined"]
    assert any(b"as it is not" in content for content in place.things().values())


def test_manifest_put_in_the_place_of_another_counts_as_absent(store, place):
    commit(store, fingerprint="f1", note="said by one")
    commit(store, "other rows", fingerprint="f2", note="said by the other")
    things = place.things()
    (one,) = (name for name, content in things.items() if b"said by one" in content)
    (other,) = (name for name, content in things.items() if b"said by the other" in content)
    place.overwrite(other, things[one])
    store = place.open()
    assert store.lookup("bad_cases", "f1") is not None
    assert store.lookup("bad_cases", "f2") is None


def test_experiments_are_those_that_opened_an_iteration_or_ran_a_stage(store):
    assert store.experiments() == []
    store.take_snapshot("opened", "0001", [])
    store.point("scored", "base", commit(store))
    assert store.experiments() == ["opened", "scored"]


# -- snapshots and the journal -------------------------------------------------------------------------


def test_snapshot_says_the_files_of_its_iteration_and_can_be_taken_anew(store, place):
    assert store.snapshot("e", "0001") is None
    store.take_snapshot("e", "0002", ["c.jsonl"])
    store.take_snapshot("e", "0001", ["b.jsonl", "a.jsonl"])
    store = place.open()
    assert store.iterations("e") == ["0001", "0002"]
    assert store.snapshot("e", "0001") == ["a.jsonl", "b.jsonl"]
    store.take_snapshot("e", "0001", [])
    assert store.snapshot("e", "0001") == []
    assert (store.iterations("other"), store.snapshot("other", "0001")) == ([], None)


def test_damaged_snapshot_is_read_from_the_journal_and_written_again(store, place):
    store.take_snapshot("e", "0001", ["a.jsonl"])
    store.take_snapshot("e", "0001", ["a.jsonl", "b.jsonl"])
    whole = place.things()
    damage(place, b"b.jsonl", b"c.jsonl")
    store = place.open()
    assert store.snapshot("e", "0001") == ["a.jsonl", "b.jsonl"]
    store.restore_snapshots("e")
    after = place.things()
    assert {name: after[name] for name in whole if b'"event": ' not in whole[name]} == {
        name: content for name, content in whole.items() if b'"event": ' not in content
    }
    assert events(store) == ["opened", "opened", "quarantined"]


def test_lost_snapshot_is_written_again_if_something_was_computed_for_its_iteration(store, place):
    store.take_snapshot("e", "0001", ["a.jsonl"])
    store.take_snapshot("e", "0002", ["a.jsonl", "b.jsonl"])
    store.point("e", "0001", commit(store))
    store.point("e", "base", commit(store))
    damage(place, b"a.jsonl", b"")
    store = place.open()
    assert store.iterations("e") == []
    store.restore_snapshots("e")
    assert (store.iterations("e"), store.snapshot("e", "0001")) == (["0001"], ["a.jsonl"])


def test_journal_tells_events_in_order_by_kind_and_with_all_that_was_said(store, place):
    store.journal("hit", stage="x", reason=["'ß\n\"", "b"])
    place.open().journal("miss", stage="y")
    store.journal("hit", stage="z")
    assert [event["stage"] for event in store.events()] == ["x", "y", "z"]
    assert [event["stage"] for event in place.open().events("hit", "collected")] == ["x", "z"]
    assert next(store.events())["reason"] == ["'ß\n\"", "b"]
    assert list(store.events("collected")) == []


def test_journal_of_many_writers_has_every_event_whole(store):
    def write(writer):
        for number in range(50):
            store.journal("hit", writer=writer, number=number, reason=["x" * number])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    found = [(event["writer"], event["number"]) for event in store.events("hit")]
    assert sorted(found) == [(writer, number) for writer in range(6) for number in range(50)]
    assert all([n for w, n in found if w == writer] == list(range(50)) for writer in range(6)), "each in its order"


# -- locks ---------------------------------------------------------------------------------------------


def test_lock_is_held_by_one_at_a_time_and_gc_waits_for_nobody(store, place):
    with store.locks.take("e-0001-gate"):
        assert store.locks.taken("e-0001-gate")
        assert not store.locks.taken("e-0002-gate")
        with pytest.raises(RuntimeError, match="e-0001-gate is being computed"), place.open().locks.all_idle():
            pass
    assert not store.locks.taken("e-0001-gate")
    with store.locks.take(locks.GC), store.locks.take(locks.DAGSTER), store.locks.all_idle():
        pass


# -- rows and vectors ----------------------------------------------------------------------------------


def test_rows_are_kept_by_kind_and_context_and_computed_once(store, place):
    table = store.rows("answers", {"policy": "m1"})
    first = fill(table, ["a", "b", "a"])
    assert (first.values, first.reused, first.computed) == (["answer to a", "answer to b", "answer to a"], 0, 2)
    again = place.open().rows("answers", {"policy": "m1"})
    assert again.digest == table.digest
    second = fill(again, ["c", "b"], "later answer to {}")
    assert (second.values, second.reused, second.computed) == (["later answer to c", "answer to b"], 1, 1)
    assert again.missing(["a", "d", "d"]) == 1
    assert again.read(["a", "d"]) == {"a": "answer to a"}
    assert store.rows("answers", {"policy": "m2"}).missing(["a"]) == 1
    assert store.rows("grades", {"policy": "m1"}).missing(["a"]) == 1


def test_damaged_row_is_noticed_computed_again_and_told(store, place):
    fill(store.rows("answers", {}), ["a", "b"])
    damage(place, b"answer to b", b"answer to q")
    filled = fill(place.open().rows("answers", {}), ["a", "b"])
    assert (filled.values, filled.reused, filled.damaged) == (["answer to a", "answer to b"], 1, 1)


@pytest.fixture(scope="module")
def encoder(tiny_folder):
    return Encoder(tiny_folder / "encoder")


def test_vectors_are_kept_by_table_and_embedded_once(store, place, encoder):
    texts = [f"question {n}" for n in range(10)]
    assert store.vectors("vectors-x").fill(texts, encoder.embed) == 10
    table = place.open().vectors("vectors-x")
    assert (table.name, table.missing([*texts, "new"])) == ("vectors-x", 1)
    assert table.fill(texts, pytest.fail) == 0
    assert store.vectors("vectors-y").missing(texts) == 10


# -- gc ------------------------------------------------------------------------------------------------


def collect(store, kept=NOTHING, *, really=True):
    with store.locks.take(locks.GC), store.locks.all_idle():
        return store.remove_unneeded(kept, really=really)


def test_gc_keeps_what_is_needed_and_removes_the_rest_as_it_said_it_would(store, place, encoder):
    needed = commit(store, "needed rows")
    known = commit(store, "known rows", fingerprint="f2")
    other = commit(store, "other rows", fingerprint="f3")
    for key, manifest in (("0001", known), ("0002", needed)):
        store.point("e", key, manifest)
    fill(store.rows("answers", {"policy": "m1"}), ["a"])
    fill(store.rows("answers", {"policy": "m2"}), ["a"])
    texts = [f"question {n}" for n in range(10)]
    for name in ("vectors-x", "vectors-y", "vectors-z"):
        store.vectors(name).fill(texts, encoder.embed)
    checks = store.vectors("vectors-x").rows("text", "check")
    few = set(checks["check"].head(2))
    kept = Kept(
        data_versions={needed.data_version},
        traces={("bad_cases", "f1"), ("bad_cases", "f2")},
        row_tables={f"answers/{store.rows('answers', {'policy': 'm1'}).digest}"},
        vectors={"vectors-x": few, "vectors-y": None},
    )
    would = collect(store, kept, really=False)
    assert store.lookup("bad_cases", "f3") == other
    assert place.open().vectors("vectors-z").missing(texts) == 0
    did = collect(store, kept)
    assert did == would
    assert did.removed == {"traces": 1, "artifacts": 2, "row tables": 1, "vector tables": 1, "vectors": 8}
    assert did.bytes > 0
    store = place.open()
    store.verify(needed)
    assert store.lookup("bad_cases", "f1") == needed
    assert store.lookup("bad_cases", "f3") is None
    gone = store.lookup("bad_cases", "f2")
    assert gone.collected
    assert not store.complete(gone)
    assert (gone.data_version, gone.files) == (known.data_version, known.files)
    assert store.pointed("e", "0001", "bad_cases") == gone
    assert store.pointed("e", "0002", "bad_cases") == needed
    assert store.rows("answers", {"policy": "m1"}).missing(["a"]) == 0
    assert store.rows("answers", {"policy": "m2"}).missing(["a"]) == 1
    assert set(store.vectors("vectors-x").rows("check")["check"]) == few
    assert store.vectors("vectors-y").missing(texts) == 0
    assert store.vectors("vectors-z").missing(texts) == 10
    assert collect(store, kept).removed == {}, "a second time there is nothing left"


def test_collected_artifact_that_is_committed_again_has_its_files(store):
    manifest = commit(store)
    collect(store, Kept(set(), {("bad_cases", "f1")}, set(), {}))
    assert store.lookup("bad_cases", "f1").collected
    assert commit(store) == manifest
    assert store.lookup("bad_cases", "f1") == manifest


def test_gc_removes_quarantine_and_what_is_unfinished_and_no_snapshot_nor_event(store, place):
    store.take_snapshot("e", "0001", ["a.jsonl"])
    store.quarantine(commit(store), "the test said so")
    store.unfinished("f9").mkdir(parents=True)
    (store.unfinished("f9") / "step").write_text("7")
    rows = store.rows("answers", {"policy": "m1"})
    fill(rows, ["a"])
    damage(place, b"answer to a", b"answer to q")
    fill(rows, ["b"])  # puts what is damaged aside
    assert {"quarantine": 2, "unfinished": 1}.items() <= collect(store).removed.items()
    assert not store.unfinished("f9").exists()
    assert store.snapshot("e", "0001") == ["a.jsonl"]
    assert events(store) == ["opened", "quarantined"]


# -- nobody walks round it -----------------------------------------------------------------------------

FOLDERS = ("objects", "traces", "pointers", "snapshots", "rows", "lancedb", "quarantine", "unfinished", "temporary")
# One makes the store of a project, and so names an implementation; the other measures a table of vectors by itself.
MAKES, MEASURES = REPOSITORY / "apt_assets" / "project.py", REPOSITORY / "benchmarks" / "retrieval.py"
INSIDE = [
    *(f"resources.store.{name}" for name in ("local", "local_files", "recorded", "records", "journal", "collect")),
    *(f"resources.store.shared.{name}" for name in ("bucket", "copies", "files", "journal", "store")),
    "lancedb",
]


def walks_round(source):
    """Lines of code that build a path inside a store, ask for its folder, or open a part of it themselves."""

    def names_folder(node):
        if isinstance(node, ast.JoinedStr) and node.values:
            return names_folder(node.values[0])
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        return text.split("/")[0] in FOLDERS

    def walks(node):
        match node:
            case ast.Attribute(attr="root"):
                return True
            case ast.BinOp(op=ast.Div(), right=right):
                return names_folder(right)
            case ast.Call(func=ast.Name(id="RowFile" | "Segments" | "VectorFolder" | "SharedVectors")):
                return True
            case ast.Call(func=ast.Name(id="Path") | ast.Attribute(attr="joinpath" | "glob" | "rglob"), args=args):
                return any(names_folder(arg) for arg in args)
            case ast.ImportFrom(module=module):
                return module in INSIDE or any(f"{module}.{alias.name}" in INSIDE for alias in node.names)
            case ast.Import():
                return any(alias.name in INSIDE for alias in node.names)
        return False

    return [node.lineno for node in ast.walk(ast.parse(source)) if walks(node)]


@pytest.mark.parametrize(
    "line",
    [
        "project.store.root",
        "home / 'rows'",
        "folder / 'traces' / stage",
        "store / f'objects/{version}'",
        "folder.glob('pointers/*/*.json')",
        "home.joinpath('quarantine')",
        "RowFile(folder, 'answers', {})",
        "from resources.store import records",
        "from resources.store.local import LocalStore",
        "import lancedb",
    ],
)
def test_walking_round_the_store_is_seen(line):
    assert walks_round(line) == [1]


@pytest.mark.parametrize(
    "line", ["store.open(manifest) / 'pool.parquet'", "facts['rows']", "store.rows('answers', {})", "a = 'lancedb'"]
)
def test_going_through_the_store_is_not(line):
    assert walks_round(line) == []


def test_no_module_of_the_product_or_the_benchmarks_walks_round_the_store():
    files = {path for folder in ("apt_assets", "benchmarks") for path in (REPOSITORY / folder).rglob("*.py")}
    assert {MAKES, MEASURES} < files
    found = {path: walks_round(path.read_text(encoding="utf-8")) for path in files - {MAKES, MEASURES}}
    assert {str(path): lines for path, lines in found.items() if lines} == {}
    makes = MAKES.read_text(encoding="utf-8")
    lines = [makes.splitlines()[number - 1] for number in walks_round(makes)]
    assert lines == ["from resources.store.local import LocalStore"]
