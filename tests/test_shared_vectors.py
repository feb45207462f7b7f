"""Vectors of a shared store, in LanceDB at s3://: none is lost, and what is damaged is embedded again."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import polars as pl
import pytest

from resources.retrieval.retriever import make_pool, verify_pool
from resources.store.store import StoreError

pytestmark = pytest.mark.cluster


@pytest.fixture
def store(shared):
    return shared.open()


def embed(texts):
    yield range(len(texts)), [np.full(4, len(text), np.float32) for text in texts]


def test_writers_of_vectors_that_hold_no_lock_lose_none_and_a_pool_has_each_once(shared, store, tmp_path):
    def write(texts):
        table = shared.open().vectors("vectors-x")
        table._writing = lambda: nullcontext()
        table.fill(texts, embed)

    texts = [f"question {number}" for number in range(12)]
    write(texts[:2])
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, [texts[:9], texts[3:], texts]))
    table = shared.open("elsewhere").vectors("vectors-x")
    assert table.missing(texts) == 0
    rows = pl.DataFrame({"row_id": texts, "prompt": texts})
    index = make_pool(table, rows)
    assert index["row_id"].to_list() == sorted(texts)
    verify_pool(table, index)
    assert table.fill(texts, pytest.fail) == 0
    assert table.unchanged_since(table.mark())


def test_vectors_are_not_taken_for_damaged_while_the_server_is_away(shared, proxy):
    table = shared.open().vectors("vectors-x")
    table.fill(["a", "bb"], embed)
    mark = table.mark()
    proxy.fault = lambda method, path: "cut"
    for ask in (lambda: table.missing(["a"]), lambda: table.fill(["a"], embed), lambda: table.unchanged_since(mark)):
        with pytest.raises(StoreError):
            ask()
    proxy.fault = lambda method, path: None
    assert table.unchanged_since(mark)


def test_server_that_goes_away_while_vectors_are_written_is_told_and_those_that_were_kept_stay(shared, proxy):
    def embed_and_lose(texts):
        proxy.fault = lambda method, path: 500
        yield from embed(texts)

    table = shared.open().vectors("vectors-x")
    table.fill(["a", "bb"], embed)
    with pytest.raises(StoreError, match="cannot list lancedb/vectors-x"):
        table.fill(["ccc"], embed_and_lose)
    proxy.fault = lambda method, path: None
    assert table.missing(["a", "bb", "ccc"]) == 1
    assert table.fill(["a", "bb", "ccc"], embed) == 1


@pytest.mark.parametrize("damage", ["bits", "cut", "lost", "swapped"])
def test_damaged_vectors_are_noticed_and_embedded_again(shared, store, damage):
    table = store.vectors("vectors-x")
    for texts in (["a", "bb"], ["ccc", "dddd"]):
        table.fill(texts, embed)
    mark = table.mark()
    assert shared.open().vectors("vectors-x").unchanged_since(mark)
    things = shared.things()
    one, other = sorted(name for name in things if "/data/" in name)
    new = {"bits": things[one].replace(b"a", b"q"), "cut": things[one][:100], "swapped": things[other]}
    shared.overwrite(one, new[damage]) if damage in new else shared.lose(one)
    table = shared.open().vectors("vectors-x")
    assert not table.unchanged_since(mark)
    if damage in ("cut", "lost"):
        assert table.missing(["a", "bb", "ccc", "dddd"]) == 4
    assert table.fill(["a", "bb", "ccc", "dddd"], embed) >= 2
    rows = table.rows("text", "check")
    assert set(rows["text"]) == {"a", "bb", "ccc", "dddd"}
    assert table.vectors(rows["place"].to_numpy())[:, 0].tolist() == [len(text) for text in rows["text"]]
    assert shared.open().vectors("vectors-x").fill(["a", "dddd"], pytest.fail) == 0
