"""What holds for any input: parsers, row ids and splits, digests, keys and kept rows."""

import csv
import io
import json
import random
import string
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from apt_assets.landing import spellings
from apt_assets.landing.dialogue import LEARNED_FIELDS, ROLES
from apt_assets.landing.opening import OTHERS, PACKINGS, encoding_of
from apt_assets.landing.records import contents_of, read_landed
from apt_assets.landing.side_fields import SPLITS
from apt_assets.method.domain import build_domain
from apt_assets.method.splits import row_id, row_ids, splits_of
from apt_assets.settings.iterations import is_key, key_of, number_of
from resources.store.digest import digest_json, digest_rows
from resources.store.row_file import RowFile

# Drawn alike in every run: a new example that fails must not stop someone else's change.
few = settings(
    deadline=None, max_examples=100, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
TEXT = st.text(max_size=40)  # without lone surrogates, with everything else
ANY_TEXT = st.text(st.characters(), max_size=40) | st.text(
    st.characters(categories=["Cs", "Cc", "Cf", "Mn"]), max_size=8
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted(
    {name for names in vars(spellings).values() if isinstance(names, tuple) for name in names}
    | {"split", "id", "metadata", "note"}
)
WORDS = st.sampled_from([*SPLITS, "a", "B", "1", "\n\nHuman: a\n\nAssistant: b"])
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(sorted(ROLES)), "content": WORDS | JSON},
    optional=dict.fromkeys((*LEARNED_FIELDS, "tool_calls", "function_call", "from", "value"), JSON),
)
SHAPED = st.lists(TURN, max_size=4) | st.dictionaries(
    st.sampled_from(("text", "label", "value", "aliases", "messages")), WORDS | st.lists(WORDS | JSON, max_size=3)
)
RECORD = st.dictionaries(st.sampled_from(FIELDS), JSON | ANY_TEXT | WORDS | SHAPED, max_size=6)
GOOD = st.fixed_dictionaries(
    {
        "prompt": TEXT.filter(lambda text: text.strip("\0").strip() and "\0" not in text),
        "answer": st.sampled_from("abc"),
    },
    optional={"split": st.sampled_from(SPLITS), "id": st.integers(), "note": JSON},
)


def jsonl(records) -> bytes:
    return b"\n".join(json.dumps(record).encode("utf-8", "surrogatepass") for record in records)


def read(path: Path) -> tuple[list[int], list[int]]:
    """(lines of rows, lines of rejects), after the data set was built of them. Each reject has its reason."""
    parts = list(read_landed(path))
    tables = build_domain(parts, 0.3, 0.3, None)
    assert all(bad.reason for part in parts for bad in part.rejects)
    rows = [line for part in parts for line in part.rows["line"]]
    rejects = [bad.line for part in parts for bad in part.rejects]
    assert tables["quarantine"].height >= len(rejects)
    assert sum(tables[split].height for split in SPLITS) <= len(rows)
    return rows, rejects


# -- parsers ---------------------------------------------------------------------------------------------


@few
@given(st.lists(RECORD | JSON, max_size=8))
def test_every_json_line_ends_as_a_row_or_as_a_reject(tmp_path, records):
    # Two lines at least: one value alone may be a list of rows.
    (tmp_path / "data.jsonl").write_bytes(jsonl([{"prompt": "a?"}, *records, 7]))
    rows, rejects = read(tmp_path / "data.jsonl")
    assert sorted(rows + rejects) == list(range(1, len(records) + 3))


@few
@given(st.lists(GOOD, min_size=1, max_size=8), st.binary(max_size=60), st.randoms(use_true_random=False))
def test_good_line_is_kept_whatever_stands_in_another(tmp_path, records, junk, draw):
    good = [json.dumps(record).encode() for record in records]
    place = draw.randrange(len(good) + 1)
    lines = [*good[:place], *junk.split(b"\n"), *good[place:]]
    # The first bytes say whether a file is text, and of which encoding.
    assume(encoding_of(lines[0][:4]) == "utf-8" and not lines[0].startswith((*PACKINGS, *OTHERS)))
    (tmp_path / "data.jsonl").write_bytes(b"\n".join(lines))
    rows, _ = read(tmp_path / "data.jsonl")
    assert {n for n, line in enumerate(lines, 1) if line in good} <= set(rows)


@few
@given(st.sampled_from([".jsonl", ".csv"]), st.binary(max_size=300))
def test_any_bytes_end_as_rows_and_rejects(tmp_path, suffix, content):
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    rows, rejects = read(path)
    assert len(rows) + len(rejects) <= content.count(b"\n") + content.count(b"\r") + 1


@settings(few, max_examples=10)
@given(st.binary(max_size=100), st.integers(0, 400), st.booleans())
def test_any_bytes_in_a_parquet_file_end_as_rows_and_rejects(tmp_path, junk, place, over):
    path = tmp_path / "data.parquet"
    pl.DataFrame({"prompt": ["a?", "b?"], "answer": ["1", "2"]}).write_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[:place] + junk + content[place + len(junk) * over :])
    rows, rejects = read(path)
    assert set(rows) <= {1, 2}
    assert rows or rejects


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@few
@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=8), st.sampled_from(["\n", "\r\n", "\r"]))
def test_every_csv_record_that_a_writer_quotes_comes_back_as_it_was(tmp_path, records, end):
    file = io.StringIO()
    csv.writer(file, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("prompt", "answer", "note"), *records])
    (tmp_path / "data.csv").write_bytes(file.getvalue().encode())
    parts = list(read_landed(tmp_path / "data.csv"))
    found = [row for part in parts for row in part.rows.select("prompt", "answer").rows()]
    assert found == [(p.strip(), a.strip()) for p, a, _ in records if p.strip() and a.strip()]
    assert len(found) + sum(len(part.rejects) for part in parts) == len(records)


@few
@given(st.lists(GOOD | RECORD, max_size=10), st.randoms(use_true_random=False))
def test_order_of_lines_changes_neither_the_digest_nor_the_data_set(tmp_path, records, draw):
    shuffled = draw.sample(records, len(records))
    found = []
    for order in (records, shuffled):
        (tmp_path / "data.jsonl").write_bytes(jsonl(order))
        tables = build_domain(read_landed(tmp_path / "data.jsonl"), 0.3, 0.3, None)
        found.append((contents_of(tmp_path / "data.jsonl").digest, {name: t.rows() for name, t in tables.items()}))
    assert found[0] == found[1]


@few
@given(st.lists(GOOD, max_size=10))
def test_no_question_is_in_two_splits_and_none_is_lost(tmp_path, records):
    (tmp_path / "data.jsonl").write_bytes(jsonl(records))
    tables = build_domain(read_landed(tmp_path / "data.jsonl"), 0.3, 0.3, None)
    kept = [row for split in SPLITS for row in tables[split]["row_id"]]
    assert sorted(kept) == sorted({row_id(record["prompt"].strip()) for record in records})


# -- row ids and splits ----------------------------------------------------------------------------------

WORDS = st.lists(
    st.text(st.sampled_from(string.ascii_letters + string.digits + "äßñ日"), min_size=1), min_size=1, max_size=6
)
BETWEEN = st.text(st.sampled_from(" \t\n.,;:!?-_()\"'/\u00a0\u3000"), min_size=1, max_size=4)


@few
@given(
    WORDS, st.lists(BETWEEN, min_size=7, max_size=7), st.sampled_from([str.upper, str.lower, str.title, str.swapcase])
)
def test_case_spacing_and_punctuation_change_neither_id_nor_split(words, signs, change):
    plain = " ".join(words)
    other = signs[6] + "".join(change(word) + sign for word, sign in zip(words, signs, strict=False))
    assert row_id(other) == row_id(plain)
    assert splits_of([row_id(other)], 0.3, 0.3) == splits_of([row_id(plain)], 0.3, 0.3)


@few
@given(st.lists(TEXT.filter(lambda text: "\0" not in text), max_size=10))
def test_ids_of_many_prompts_are_those_of_each_and_do_not_depend_on_the_others(prompts):
    assert row_ids(pl.Series(prompts, dtype=pl.String)) == [row_id(prompt) for prompt in prompts]


@few
@given(st.lists(st.from_regex("[0-9a-f]{16}", fullmatch=True), max_size=20), st.floats(0, 0.4), st.floats(0, 0.4))
def test_larger_share_takes_rows_only_out_of_training(rows, validation, test):
    before, after = splits_of(rows, 0.0, test), splits_of(rows, validation, test)
    assert all(a == b or (b, a) == ("train", "validation") for b, a in zip(before, after, strict=True))


# -- digests, keys, kept rows ----------------------------------------------------------------------------


@few
@given(st.lists(st.tuples(*[st.none() | TEXT] * 3), max_size=10), st.integers(1, 64))
def test_digests_of_columns_are_those_of_each_row(rows, digits):
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    assert digest_rows(*columns, digits=digits) == [digest_json(list(row))[:digits] for row in rows]


@few
@given(st.dictionaries(TEXT, JSON, max_size=5), st.randoms(use_true_random=False))
def test_digest_does_not_depend_on_the_order_of_keys(value, draw):
    items = draw.sample(list(value.items()), len(value))
    assert digest_json(dict(items)) == digest_json(value)


@few
@given(st.integers(1, 9999))
def test_every_iteration_has_a_key_that_leads_back_to_it_and_sorts_as_it(number):
    assert number_of(key_of(number)) == number
    assert key_of(number) <= key_of(9999)
    assert (key_of(number) < key_of(1000)) == (number < 1000)


@few
@given(ANY_TEXT | st.from_regex(r"[0-9\u0660-\u0669]{3,5}\s?"))
def test_text_is_a_key_if_it_is_that_of_a_number_and_refused_else(text):
    if is_key(text):
        assert key_of(number_of(text)) == text
    else:
        with pytest.raises(ValueError, match="an iteration key is four digits"):
            number_of(text)


@settings(few, max_examples=40)
@given(st.dictionaries(st.from_regex("[0-9A-Za-z-]{1,20}", fullmatch=True), JSON, max_size=6), JSON)
def test_kept_rows_come_back_whatever_their_values_and_are_computed_once(tmp_path_factory, values, context):
    table = RowFile(tmp_path_factory.mktemp("rows"), "answers", {"context": context})
    keys = list(values)
    asked = []

    def compute(positions):
        asked.extend(positions)
        yield positions, [values[keys[position]] for position in positions]

    for _ in range(2):
        assert table.fill(keys, compute).values == [values[key] for key in keys]
    assert asked == list(range(len(keys)))
    assert RowFile(table.path.parents[1], "answers", {"context": context}).read(keys) == values


@settings(few, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_kept_rows_of_a_damaged_file_are_whole_or_absent(tmp_path_factory, seed, flips):
    table = RowFile(tmp_path_factory.mktemp("rows"), "answers", {})
    values = {f"k{n}": f"value {n}" * 3 for n in range(6)}

    def compute(positions):
        yield positions, list(values.values())

    table.fill(list(values), compute)
    content, draw = bytearray(table.path.read_bytes()), random.Random(seed)
    for _ in range(flips):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    table.path.write_bytes(content)
    found = table.read(list(values))
    assert found.items() <= values.items()
