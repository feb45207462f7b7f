"""Rows that were computed once: reused, kept batch by batch, and never trusted when damaged."""

import fcntl
import json
import multiprocessing

import pytest

from resources.store import row_lines
from resources.store.row_file import RowFile
from resources.store.rows import collect, renumber


@pytest.fixture
def table(tmp_path):
    return RowFile(tmp_path, "answers", {"policy": "m1"})


def computing(log, value="answer to {}"):
    def compute(missing):
        log.append(list(missing))
        for start in range(0, len(missing), 2):
            part = missing[start : start + 2]
            yield part, [value.format(i) for i in part]

    return compute


def at_once(values):
    def compute(missing):
        yield missing, values

    return compute


def test_only_missing_rows_are_computed_and_order_is_kept(table):
    log = []
    first = table.fill(["a", "b", "a"], computing(log))
    second = table.fill(["c", "b"], computing(log))
    assert log == [[0, 1], [0]]
    assert (first.reused, first.computed, second.reused, second.computed) == (0, 2, 1, 1)
    assert second.values == ["answer to 0", "answer to 1"]
    assert table.missing(["a", "d", "d"]) == 1


def test_other_context_shares_nothing(table, tmp_path):
    table.fill(["a"], computing([]))
    assert RowFile(tmp_path, "answers", {"policy": "m2"}).missing(["a"]) == 1
    assert RowFile(tmp_path, "grades", {"policy": "m1"}).missing(["a"]) == 1


def test_context_declared_in_another_order_is_the_same(tmp_path):
    context = {"settings": {"beta": 1, "alpha": 2}, "kind": "k"}
    RowFile(tmp_path, "answers", context).fill(["a"], computing([]))
    other = RowFile(tmp_path, "answers", {"kind": "k", "settings": {"alpha": 2, "beta": 1}})
    log = []
    filled = other.fill(["a", "b"], computing(log))
    assert (filled.reused, filled.damaged, log) == (1, 0, [[1]])


def test_failure_loses_at_most_the_batch_in_flight(table):
    def compute(missing):
        yield missing[:2], ["x", "y"]
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        table.fill(["a", "b", "c"], compute)
    log = []
    assert table.fill(["a", "b", "c"], computing(log)).values == ["x", "y", "answer to 2"]
    assert log == [[2]]


def test_batch_is_kept_before_the_next_is_asked_for(table):
    kept = []

    def compute(missing):
        for i in missing:
            kept.append(sorted(table.read("abc")))
            yield [i], [f"answer to {i}"]

    table.fill(["a", "b", "c"], compute)
    assert kept == [[], ["a"], ["a", "b"]]


def test_row_that_a_computation_leaves_out_is_an_error_and_the_others_are_kept(table):
    def compute(missing):
        yield missing[1:], ["y"]

    with pytest.raises(KeyError, match="a"):
        table.fill(["a", "b"], compute)
    assert table.read("ab") == {"b": "y"}


def test_computation_that_is_not_run_to_its_end_frees_what_it_holds(table):
    holds = []

    def slow(missing):
        holds.append("a pool of threads")
        try:
            for i in missing:
                yield [i], [float("nan") if i else "fine"]
        finally:
            holds.clear()

    # The error, with all that its traceback refers to, is still there when we look.
    with pytest.raises(ValueError, match="not JSON compliant") as error:
        table.fill(["a", "b", "c"], lambda missing: renumber(slow(missing), missing))
    assert holds == []
    assert error.value.__traceback__ is not None
    assert table.read("abc") == {"a": "fine"}


def test_collected_batches_are_a_list_in_order_and_none_may_be_missing():
    def said(positions):
        for position in positions:
            yield [position], [f"answer to {position}"]

    assert collect(3, said([2, 0, 1])) == ["answer to 0", "answer to 1", "answer to 2"]
    assert collect(0, said([])) == []
    with pytest.raises(KeyError, match="1"):
        collect(3, said([2, 0]))


@pytest.mark.parametrize("cut", [1, 5, 20, 50])
def test_torn_last_line_costs_its_row_and_no_other(table, cut):
    table.fill(["a", "b", "c"], computing([]))
    table.path.write_bytes(table.path.read_bytes()[:-cut])
    assert set(table.read("abcd")) == {"a", "b"}
    log = []
    table.fill(["a", "b", "c", "d"], computing(log))
    assert log == [[2, 3]]
    assert set(table.read("abcd")) == {"a", "b", "c", "d"}


def test_edited_value_is_computed_again(table):
    table.fill(["a", "b"], computing([]))
    table.path.write_text(table.path.read_text().replace("answer to 1", "answer to 7"))
    assert table.fill(["a", "b"], computing([])).values == ["answer to 0", "answer to 1"]


def test_every_single_changed_byte_of_a_row_is_noticed(table):
    table.fill(["a", "b", "c"], computing([]))
    whole = table.path.read_bytes()
    start = whole.index(b'{"key": "b"')
    end = whole.index(b"\n", start)
    for place in range(start, end):
        table.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert table.read("abc") == {"a": "answer to 0", "c": "answer to 2"}


def test_values_come_back_as_they_were_kept_whatever_is_in_them(table, monkeypatch):
    values = [
        "",
        '", "value": "x"',
        "new\nline",
        "ß\u2028😀",
        [5, True],
        [1, False],
        None,
        {"correct": True, "margin": -0.1},
    ]
    keys = [f"k{n}" for n in range(len(values))]
    table.fill(keys, at_once(values))
    for size in (1, 50, 1 << 20):
        monkeypatch.setattr(row_lines, "CHUNK_BYTES", size)
        assert list(table.read(keys).items()) == list(zip(keys, values, strict=True))


def test_only_the_rows_that_were_asked_for_are_read(table):
    table.fill(["a", "b", "c"], computing([]))
    assert table.read(["b", "z"]) == {"b": "answer to 1"}


def test_row_kept_twice_counts_as_it_was_kept_last(table):
    table.fill(["a"], computing([]))
    whole = table.path.read_bytes()
    table.path.unlink()
    table.fill(["a"], computing([], value="later {}"))
    table.path.write_bytes(whole + b"\n" + table.path.read_bytes())
    assert table.read(["a"]) == {"a": "later 0"}


def test_key_that_would_not_be_found_again_is_refused(table):
    with pytest.raises(ValueError, match="a key of a row"):
        table.fill(['a"b'], computing([]))


def fill_together(root, log_path, asked):
    """Fill, and compute only when all three processes have asked for the lock."""
    flock = fcntl.flock
    fcntl.flock = lambda *given: asked.release() or flock(*given)

    def compute(missing):
        with log_path.open("a") as log:
            log.write("".join(f"{i}\n" for i in missing))
        assert all(asked.acquire(timeout=60) for _ in range(3))
        yield missing, [str(i) for i in missing]

    RowFile(root, "answers", {"policy": "m1"}).fill([str(i) for i in range(20)], compute)


def test_two_processes_at_once_compute_each_row_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    given = (tmp_path, tmp_path / "log", context.Semaphore(0))
    workers = [context.Process(target=fill_together, args=given) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    done = (tmp_path / "log").read_text().split()
    assert sorted(done, key=int) == [str(i) for i in range(20)]


def test_context_can_be_read_from_the_file(table):
    table.fill(["a"], computing([]))
    assert json.loads(table.path.read_text().splitlines()[0]) == {"context": {"policy": "m1"}}


def test_damaged_lines_are_taken_out_and_the_file_as_it_was_is_put_aside(table, tmp_path):
    table.fill(["a", "b", "c"], computing([]))
    damaged = table.path.read_bytes().replace(b"answer to 1", b"answer to 9")
    table.path.write_bytes(damaged)
    filled = table.fill(["a", "b", "c"], computing([]))
    assert (filled.values, filled.reused, filled.computed, filled.damaged) == (
        ["answer to 0", "answer to 1", "answer to 2"], 2, 1, 1,
    )  # fmt: skip
    (aside,) = (tmp_path / "damaged").iterdir()
    assert aside.read_bytes() == damaged
    assert b"answer to 9" not in table.path.read_bytes()
    assert table.fill(["a", "d"], computing([])).damaged == 0


def test_file_of_another_context_put_in_place_is_not_read(table, tmp_path):
    other = RowFile(tmp_path, "answers", {"policy": "m2"})
    other.fill(["a"], computing([], value="of m2"))
    table.path.write_bytes(other.path.read_bytes())
    assert table.missing(["a"]) == 1
    assert table.fill(["a"], computing([])).values == ["answer to 0"]
    assert json.loads(table.path.read_text().splitlines()[0]) == {"context": {"policy": "m1"}}
    assert len(list((tmp_path / "damaged").iterdir())) == 1
