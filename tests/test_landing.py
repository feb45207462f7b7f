"""Landed files, good and hostile: every line ends as a row or as a reject with a reason."""

import json
from collections import namedtuple

import polars as pl
import pytest

from apt_assets.experiment import UsageError
from apt_assets.land import land_files
from apt_assets.method.domain import build_domain
from apt_assets.method.landing import ROWS, contents_of, read_landed, sort_out
from apt_assets.method.reading import Chunk

Row = namedtuple("Row", [name for name in ROWS if name != "record"])
GOOD = {"prompt": "Capital of France?", "answer": "Paris"}


def read(path):
    """(accepted rows as named tuples, rejects) of one file."""
    parts = list(read_landed(path))
    rows = [Row(*row) for part in parts for row in part.rows.drop("record").iter_rows()]
    return rows, [reject for part in parts for reject in part.rejects]


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        (b'{"answer": "Paris"}', "prompt", "missing"),
        (b'{"prompt": "Capital?"}', "answer", "missing"),
        (b'{"prompt": 7, "answer": "Paris"}', "prompt", "must be text, got int"),
        (b'{"prompt": "Capital?", "answer": ["Paris"]}', "answer", "must be text, got list"),
        (b'{"prompt": "Capital?", "answer": "  "}', "answer", "empty"),
        (b'{"prompt": "Capital?", "answer": "a\\u0000b"}', "answer", "NUL"),
        (b'{"prompt": "\\ud800", "answer": "Paris"}', "prompt", "lone surrogate"),
        (b'{"prompt": "Caf\xe9?", "answer": "Paris"}', None, "not valid UTF-8 at byte 16"),
        (b'{"prompt": "Capital?", "answer": ', None, "not valid JSON"),
        (b'["Capital?", "Paris"]', None, "must be an object"),
        (b"[" * 100_000, None, "nested too deeply"),
        (b'{"prompt": "Capital?", "answer": "Paris", "split": "dev"}', "split", "must be one of"),
        (b'{"prompt": "Capital?", "answer": "Paris", "id": true}', "id", "must be text"),
        (b'{"prompt": "Capital?", "answer": "Paris", "metadata": 3}', "metadata", "must be an object"),
    ],
)
def test_bad_jsonl_line_is_rejected_with_line_field_and_reason_and_others_go_on(tmp_path, line, field, reason):
    path = tmp_path / "data.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"\n".join([good, line, good, b""]))
    rows, rejects = read(path)
    assert [row.line for row in rows] == [1, 3]
    assert [(r.file, r.line, r.field) for r in rejects] == [("data.jsonl", 2, field)]
    assert reason in rejects[0].reason


def test_csv_with_quotes_newlines_short_long_and_invalid_rows(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(
        b'prompt,answer,source\r\n"two\nlines",yes,web\r\nno answer\r\na,b,c,d\r\ncaf\xe9,x,y\r\n"q ""q""",z,\r\n'
    )
    rows, rejects = read(path)
    assert [(row.prompt, row.answer) for row in rows] == [("two\nlines", "yes"), ('q "q"', "z")]
    assert json.loads(rows[0].metadata) == {"source": "web"}
    assert [(r.line, r.field) for r in rejects] == [(4, "answer"), (5, None), (6, "prompt")]


def test_parquet_rows_are_read_and_a_broken_file_is_one_reject(tmp_path):
    frame = pl.DataFrame({"prompt": ["a?", None, "c?"], "answer": ["1", "2", ""]})
    frame.write_parquet(tmp_path / "data.parquet")
    rows, rejects = read(tmp_path / "data.parquet")
    assert [row.prompt for row in rows] == ["a?"]
    assert [(r.line, r.field) for r in rejects] == [(2, "prompt"), (3, "answer")]
    (tmp_path / "broken.parquet").write_bytes((tmp_path / "data.parquet").read_bytes()[:-20])
    rows, rejects = read(tmp_path / "broken.parquet")
    assert rows == []
    assert rejects[0].line == 0


def rows_of(*pairs, split=None):
    """One part for each row, so that their order can be changed."""
    records = [{"prompt": prompt, "answer": answer, "split": split} for prompt, answer in pairs]
    return [sort_out("f", Chunk([n], [b""], [record])) for n, record in enumerate(records, start=1)]


def test_row_order_of_a_file_does_not_change_the_dataset():
    rows = rows_of(*[(f"question {n}", str(n)) for n in range(50)])
    forward, backward = build_domain(rows, 0.2, 0.2, None), build_domain(rows[::-1], 0.2, 0.2, None)
    for name in ("train", "validation", "test"):
        assert forward[name].equals(backward[name])
        assert forward[name].height > 0


def test_row_order_decides_nothing_even_where_rows_contradict_repeat_or_are_broken(tmp_path):
    import random

    lines = [json.dumps({"prompt": f"Q {n % 7}?", "answer": str(n % 3), "id": n}) for n in range(30)]
    lines += ['{"prompt": "no answer"}', "{broken", json.dumps({"prompt": "q 3", "answer": "0", "split": "test"})]
    seen = set()
    for seed in range(5):
        random.Random(seed).shuffle(lines)
        (tmp_path / "data.jsonl").write_text("\n\n".join(lines) + ("\r\n" if seed else ""))
        tables = build_domain(read_landed(tmp_path / "data.jsonl"), 0.2, 0.2, None)
        seen.add((contents_of(tmp_path / "data.jsonl").digest, *(table.write_json() for table in tables.values())))
    assert len(seen) == 1
    (tmp_path / "data.jsonl").write_text("\n".join(lines[1:]))
    assert contents_of(tmp_path / "data.jsonl").digest not in {digest for digest, *_ in seen}


def test_questions_that_differ_in_case_and_punctuation_never_cross_splits():
    tables = build_domain(rows_of(("What is it?", "x"), ("what  IS it", "x")), 0.5, 0.2, None)
    assert sum(tables[name].height for name in ("train", "validation", "test")) == 1


def test_training_row_equal_to_a_held_out_one_is_quarantined_whichever_came_first():
    train, held = rows_of(("Same?", "x"), split="train"), rows_of(("same", "x"), split="test")
    for rows in (train + held, held + train):
        tables = build_domain(rows, 0.1, 0.1, None)
        assert (tables["train"].height, tables["test"].height) == (0, 1)
        assert "held out" in tables["quarantine"]["reason"][0]


def test_of_two_contradicting_answers_one_is_quarantined_with_the_other_as_the_reason():
    tables = build_domain(rows_of(("Same?", "x"), ("Same?", "y"), split="train"), 0.1, 0.1, None)
    (kept,) = tables["train"]["answer"]
    assert tables["quarantine"]["reason"].to_list() == [f"contradicts f: Same? -> {kept}"]


def test_landing_copies_the_file_unchanged_and_twice_is_once(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(GOOD) + "\nbroken\n")
    for _ in range(2):
        (report,) = land_files([path], tmp_path / "landing")
    assert (report["good"], len(report["bad"])) == (1, 1)
    (landed,) = (tmp_path / "landing").iterdir()
    assert landed.read_bytes() == path.read_bytes()


def test_unknown_format_lands_nothing_at_all(tmp_path):
    good, odd = tmp_path / "data.jsonl", tmp_path / "data.xlsx"
    good.write_text(json.dumps(GOOD))
    odd.write_text("")
    with pytest.raises(UsageError, match=r"unknown format '\.xlsx'"):
        land_files([good, odd], tmp_path / "landing")
    assert not (tmp_path / "landing").exists()
