"""What people's files look like: JSON lists and objects, other separators and encodings, packed files, names that stand
twice. The same rows in any of them are the same rows."""

import csv
import errno
import gzip
import io
import json
import random
import subprocess
import sys
import time

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apt_assets.landing.dataset_folder import write_parquet
from apt_assets.landing.land import land_files
from apt_assets.landing.records import contents_of, read_landed
from apt_assets.landing.taken_for import hints, taken_for
from apt_assets.project import Project

ROWS = [{"prompt": f'Größe {n}; how big, or "what"?\t|', "answer": f"{n}, ja"} for n in range(30)]
PLAIN = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def read(path):
    """([(prompt, answer, split)], [(line, field, reason)])."""
    parts = list(read_landed(path))
    rows = [row for part in parts for row in part.rows.select("prompt", "answer", "split").rows()]
    return rows, [(bad.line, bad.field, bad.reason) for part in parts for bad in part.rejects]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(separator, first="", end="\r\n", names=("prompt", "answer"), rows=ROWS):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, lineterminator=end)
    writer.writerows([names, *([row["prompt"], row["answer"]] for row in rows)])
    return first + file.getvalue()


def zstd(content):
    return pa.compress(content.encode(), "zstd", asbytes=True)


SAME_ROWS = {
    "lines.jsonl": PLAIN,
    "lines.json": PLAIN,
    "lines.NDJSON": PLAIN,
    "list.json": json.dumps(ROWS),
    "list.jsonl": json.dumps(ROWS, indent="\t"),
    "a row a line.jsonl": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "Windows ends.jsonl": "[\r\n" + ",\r\n".join(map(json.dumps, ROWS)) + "\r\n]\r\n",
    "first on the line of the bracket.json": "[" + ",\n".join(map(json.dumps, ROWS)) + "]",
    "comma at the end.json": json.dumps(ROWS)[:-1] + ",\n]",
    "no brackets.jsonl": ",\n".join(map(json.dumps, ROWS)),
    "blank lines before.json": "\n \n" + json.dumps(ROWS, indent=2),
    "two lists.json": json.dumps(ROWS[:9]) + "\n" + json.dumps(ROWS[9:]),
    "over many lines.jsonl": "\n".join(json.dumps(row, indent=4) for row in ROWS),
    "under data.json": json.dumps({"version": 1, "data": ROWS, "more": {"data": []}}, indent=1),
    "under any name.json": json.dumps({"rows": ROWS}),
    "mark.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "UTF-16.jsonl": PLAIN.encode("utf-16"),
    "UTF-16 be.json": b"\xfe\xff" + json.dumps(ROWS).encode("utf-16-be"),
    "UTF-16 without a mark.jsonl": PLAIN.encode("utf-16-le"),
    "UTF-32.jsonl": PLAIN.encode("utf-32"),
    "comma.csv": table(","),
    "semicolon.CSV": table(";"),
    "tab.csv": table("\t"),
    "tab.tsv": table("\t", end="\n"),
    "bar.csv": table("|"),
    "told.csv": table(";", first="sep=;\r\n"),
    "told tab.csv": table("\t", first='"sep=\t"\r\n'),
    "old Mac.csv": table(";", first="SEP=;\r", end="\r"),
    "marked.csv": b"\xef\xbb\xbf" + table(";").encode(),
    "marked and told.csv": b"\xef\xbb\xbf" + table(";", first="sep=;\r\n").encode(),
    "Excel's Unicode text.csv": table("\t").encode("utf-16"),
    "spaces around names.csv": table(",", names=(" prompt", "answer ")),
    "blank lines before.csv": "\r\n\r\n" + table(";"),
    "lines.jsonl.gz": gzip.compress(PLAIN.encode()),
    "LIST.JSON.GZ": gzip.compress(json.dumps(ROWS).encode()),
    "members.jsonl.gz": gzip.compress(PLAIN[:500].encode()) + gzip.compress(PLAIN[500:].encode()),
    "padded.csv.gz": gzip.compress(table(";").encode()) + bytes(512),
    "UTF-16.csv.gz": gzip.compress(table("\t").encode("utf-16")),
    "lines.jsonl.zst": zstd(PLAIN),
    "frames.tsv.zst": zstd(table("\t")[:99]) + b"\x50\x2a\x4d\x18\x02\0\0\0xx" + zstd(table("\t")[99:]),
    "not packed.jsonl.gz": PLAIN,
    "packed.jsonl": gzip.compress(PLAIN.encode()),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME_ROWS)
def test_same_rows_in_any_form_are_the_same_rows_before_and_after_they_land(tmp_path, make_experiment, name):
    path, project = write(tmp_path / name, SAME_ROWS[name]), Project.open(make_experiment())
    rows, rejects = read(path)
    assert rejects == []
    assert [row[:2] for row in rows] == [(row["prompt"].strip(), row["answer"]) for row in ROWS]
    digest = contents_of(write(tmp_path / "same.jsonl", PLAIN)).digest
    (report,) = land_files([path], project.landing)
    assert project.landed() == [report["landed"]]
    assert project.landing_folder.versions(project.landed()) == {report["landed"]: digest}
    assert (project.landing / report["landed"]).read_bytes() == path.read_bytes()
    assert report["landed"] == f"{name.split('.')[0]}-{digest[:8]}{name[name.index('.') :].lower()}"


def test_packed_parquet_is_read_and_a_broken_one_told(tmp_path):
    pq.write_table(pa.table({name: [row[name] for row in ROWS] for name in ROWS[0]}), tmp_path / "d.parquet")
    packed = gzip.compress((tmp_path / "d.parquet").read_bytes())
    rows, rejects = read(write(tmp_path / "d.parquet.gz", packed))
    assert (len(rows), rejects) == (30, [])
    rows, ((line, _, reason),) = read(write(tmp_path / "cut.parquet.gz", packed[:-30]))
    assert (rows, line) == ([], 0)
    assert "the gzip archive is damaged or cut off" in reason


@pytest.mark.parametrize("indent", [None, 2])
def test_lists_under_the_names_of_splits_give_their_rows_that_split_unless_a_row_says_another(tmp_path, indent):
    held = {"prompt": "held out?", "answer": "x", "split": "test"}
    content = {"note": "mine", "train": [*ROWS[:3], held], "dev": ROWS[3:5], "Test": ROWS[5:6]}
    rows, rejects = read(write(tmp_path / "d.json", json.dumps(content, indent=indent)))
    assert rejects == []
    assert [row[2] for row in rows] == ["train"] * 3 + ["test"] + ["validation"] * 2 + ["test"]


@pytest.mark.parametrize("indent", [None, 2])
def test_row_whose_split_is_null_says_none(tmp_path, indent):
    content = {"train": [{**ROWS[0], "split": None}], "test": [{**ROWS[1], "split": None}]}
    rows, _ = read(write(tmp_path / "d.json", json.dumps(content, indent=indent)))
    assert [row[2] for row in rows] == ["train", "test"]


@pytest.mark.parametrize("place", ["{}-00000-of-00001.parquet", "default/{}/0000.parquet"])
def test_split_of_a_folder_of_parquet_is_that_of_the_name_where_a_row_says_none(tmp_path, place):
    for split, row in (("train", {**ROWS[0], "split": None}), ("test", {**ROWS[1], "split": None})):
        file = tmp_path / "set" / place.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame([row]).write_parquet(file)
    write_parquet(tmp_path / "set", tmp_path / "one.parquet")
    assert {row[0]: row[2] for row in read(tmp_path / "one.parquet")[0]} == {
        ROWS[0]["prompt"]: "train",
        ROWS[1]["prompt"]: "test",
    }


def test_folder_that_is_whole_is_not_called_damaged_where_there_is_no_room_for_its_rows(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "set").mkdir()
    pl.DataFrame(ROWS).write_parquet(tmp_path / "set" / "rows.parquet")
    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    with pytest.raises(OSError, match="No space left"):
        write_parquet(tmp_path / "set", tmp_path / "one.parquet")


def test_folder_whose_name_begins_like_a_split_is_none(tmp_path):
    for place in ("test data/rows.parquet", "dev/rows.parquet", "test/colours/rows.parquet"):
        folder = tmp_path / place.split("/")[0]
        (folder / place).parent.mkdir(parents=True)
        pl.DataFrame(ROWS[:3]).write_parquet(folder / place)
        write_parquet(folder, tmp_path / "one.parquet")
        assert [row[2] for row in read(tmp_path / "one.parquet")[0]] == [None] * 3


def test_numbers_in_a_column_split_stay_as_they_are(tmp_path):
    (tmp_path / "set").mkdir()
    pl.DataFrame([{**ROWS[0], "split": 1}, {**ROWS[1], "split": None}]).write_parquet(
        tmp_path / "set" / "train.parquet"
    )
    write_parquet(tmp_path / "set", tmp_path / "one.parquet")
    assert pl.read_parquet(tmp_path / "one.parquet")["split"].to_list() == [1, None]


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"choices": {"text": ["x", "y", "z"], "label": [1, 2, 3]}, "answerKey": 1}, "A"),
        ({"choices": {"1": "x", "2": "y"}, "answer": 1}, "A"),
        ({"choices": ["x", "y"], "answer": 1}, "B"),
    ],
)
def test_number_that_answers_a_choice_is_its_label_where_it_has_one_and_else_its_place(tmp_path, row, answer):
    rows, rejects = read(write(tmp_path / "d.jsonl", json.dumps({"question": "Which?", **row})))
    assert ([row[1] for row in rows], rejects) == ([answer], [])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"easy": ROWS[:2], "hard": ROWS[2:]}, "several lists of objects (easy, hard)"),
        ({"train": ROWS[:2], "notes": [{"by": "me"}]}, "several lists of objects (train, notes)"),
        ({"prompt": {"0": "a", "1": "b"}, "answer": {"0": "x", "1": "y"}}, "orient='records'"),
        ({"prompt": ["a", "b"], "answer": ["x", "y"]}, "orient='records'"),
    ],
)
def test_object_of_which_it_is_not_clear_what_the_rows_are_is_refused_as_a_whole(tmp_path, content, reason):
    rows, ((line, _, found),) = read(write(tmp_path / "d.json", json.dumps(content)))
    assert (rows, line) == ([], 0)
    assert reason in found


@pytest.mark.parametrize("indent", [None, 2])
def test_object_that_is_one_row_is_one_row_even_if_it_holds_lists_of_objects(tmp_path, indent):
    turns = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
    for row in ({"messages": turns}, {"prompt": "a?", "answer": "b", "sources": [{"page": 1}, {"page": 2}]}):
        assert read(write(tmp_path / "d.json", json.dumps(row, indent=indent))) == ([("a?", "b", None)], [])
    assert read(write(tmp_path / "d.json", json.dumps({"rows": [{"messages": turns}]}))) == ([("a?", "b", None)], [])


# -- broken lists --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ['"answer" "7, ja"', '"answer": 7, ja"', "oops", '"answer": "7, ja" "x": {"a": 1}'])
@pytest.mark.parametrize("form", ["one line", "a row a line", "indented", "under data", "over many lines"])
def test_row_that_is_broken_in_a_list_costs_that_row(tmp_path, form, broken):
    indent = {"indented": 2, "under data": "\t", "over many lines": 1}.get(form)
    texts = [json.dumps(row, indent=indent) for row in ROWS]
    content = "[" + (", " if form == "one line" else ",\n").join(texts) + "]"
    if form == "indented":
        content = json.dumps(ROWS, indent=indent)
    elif form == "under data":
        content = json.dumps({"data": ROWS, "version": 1}, indent=indent)
    elif form == "over many lines":
        content = "\n".join(texts)
    assert content.count('"answer": "7, ja"') == 1
    rows, rejects = read(write(tmp_path / "d.jsonl", content.replace('"answer": "7, ja"', broken)))
    assert [row[1] for row in rows] == [row["answer"] for row in ROWS if row["answer"] != "7, ja"]
    ((line, _, reason),) = rejects
    assert "not valid JSON" in reason
    assert line == (8 if form in ("one line", "a row a line") else content[: content.index('"7, ja"')].count("\n") - 1)


def test_list_that_is_cut_off_keeps_the_rows_before(tmp_path):
    whole = json.dumps(ROWS, indent=1)
    for content in (
        whole[: whole.index('"17, ja"') + 3],
        json.dumps({"data": ROWS})[: 60 + len(json.dumps(ROWS[:17]))],
    ):
        rows, rejects = read(write(tmp_path / "d.json", content))
        assert [row[1] for row in rows] == [row["answer"] for row in ROWS[:17]]
        assert rejects
    rows, rejects = read(write(tmp_path / "d.json", json.dumps(ROWS)[:-1]))
    assert len(rows) == 30
    assert "its list is not closed" in rejects[0][2]


def test_rows_of_a_broken_list_that_are_no_text_too_long_or_too_deep_are_one_reject_each(tmp_path):
    good = json.dumps(ROWS[0]).encode()
    odd = [
        b'{"prompt": "caf\xe9", "answer": "x"}',
        b'{"prompt": "' + b"x" * (17 << 20) + b'", "answer": "x"}',
        b'{"prompt": "a", "answer": "b", "v": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"prompt": "a", "answer": "b", "id": ' + b"9" * 5000 + b"}",
        b'{"prompt": "\\ud800", "answer": "b"}',
    ]
    for between in (b",", b",\n"):
        content = b"[" + between.join([good, *(part for one in odd for part in (one, good))]) + b"]"
        rows, rejects = read(write(tmp_path / "d.json", content))
        assert len(rows) == 6
        assert [line for line, _, _ in rejects] == [2, 4, 6, 8, 10]
        reasons = ("not valid UTF-8 at byte 16", "longer than 16 MiB", "nested too deeply", "4300 digits", "surrogate")
        assert all(part in found for part, (_, _, found) in zip(reasons, rejects, strict=True))


def test_many_broken_rows_in_a_list_take_no_longer_than_they_should(tmp_path):
    content = '[{"prompt": "' + "x" * (15 << 20) + '", "answer": 7}, ' + '{"prompt": oops}, ' * 100_000 + "]"
    started = time.process_time()
    _, rejects = read(write(tmp_path / "d.json", content))
    assert len(rejects) == 100_001
    assert time.process_time() - started < 30


def test_long_list_is_read_in_a_fraction_of_its_size_of_memory(tmp_path):
    row = json.dumps({"prompt": "x" * 900, "answer": "y"})
    write(tmp_path / "d.json", "[" + ",".join([row] * 300_000) + "]")
    code = """
import resource, sys
from pathlib import Path
from apt_assets.landing.readers import read_chunks
first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert sum(len(chunk.records) for chunk in read_chunks(Path(sys.argv[1]))) == 300_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "d.json"], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1 << 10
    assert int(done.stdout) * unit < (tmp_path / "d.json").stat().st_size / 4


# -- names that stand twice ----------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["prompt,answer,answer", "prompt,answer, answer", "prompt,answer,\ufeffanswer ",
                                  "prompt;answer;note;note", "answer,prompt,x,y,prompt"])  # fmt: skip
def test_csv_with_a_column_twice_is_refused_by_its_name(tmp_path, head):
    separator = ";" if ";" in head else ","
    line = separator.join("abcde"[: head.count(separator) + 1])
    rows, ((line_number, field, reason),) = read(write(tmp_path / "d.csv", f"{head}\n{line}\n{line}\n"))
    assert (rows, line_number) == ([], 0)
    assert field == next(name for name in ("note", "prompt", "answer") if head.count(name) == 2)
    assert "stands there twice" in reason


def test_columns_without_a_name_may_be_empty_or_one(tmp_path):
    rows, rejects = read(write(tmp_path / "d.csv", "prompt,answer,,\na,1,,\nb,2,x,\nc,3,x,y\n"))
    assert [row[0] for row in rows] == ["a", "b"]
    assert rejects == [(4, None, "text in several columns that have no name")]


def columns_twice():
    two = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    one = pa.array([0, 1], pa.int32())
    yield "answer", pa.table([["a?"], ["1"], ["2"]], ["prompt", "answer", "answer"])
    yield "note", pa.table([["a?"], ["1"], [None], [None]], ["prompt", "answer", "note", "note"])
    for column in (two, pa.ListArray.from_arrays(one, two), pa.MapArray.from_arrays(one, pa.array(["k"]), two),
                   pa.StructArray.from_arrays([two], ["inner"])):  # fmt: skip
        yield "x", pa.table([["a?"], ["1"], column], ["prompt", "answer", "v"])


@pytest.mark.parametrize(("name", "columns"), list(columns_twice()))
def test_parquet_with_a_name_twice_at_any_depth_is_refused_by_it(tmp_path, name, columns):
    pq.write_table(columns, tmp_path / "d.parquet")
    rows, ((line, _, reason),) = read(tmp_path / "d.parquet")
    assert (rows, line) == ([], 0)
    assert f"{name}' stands there twice" in reason


@pytest.mark.parametrize("twice", [
    '{"prompt": "a?", "answer": "1", "answer": "2"}', '{"prompt": "a?", "answer": "1", "\\u0061nswer": "1"}',
    '{"prompt": "a?", "answer": "1", "metadata": {"answer": 1, "answer": 1}}',
    '{"prompt": "a?", "answer": "1", "v": [[{"w": {"answer": 1, "b": {}, "answer": [2]}}]]}',
    '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "answer": 1, "content": "", "answer": 1}]}',
])  # fmt: skip
@pytest.mark.parametrize("form", ["lines", "list", "one line", "object", "over many lines"])
def test_json_row_with_a_key_twice_is_refused_by_it_and_the_others_are_kept(tmp_path, form, twice):
    first, last = (json.dumps(row, indent=1 if form == "over many lines" else None) for row in ROWS[:2])
    written = {"lines": f"{first}\n{twice}\n{last}", "list": f"[\n{first},\n{twice},\n{last}\n]",
               "one line": f"[{first},{twice},{last}]", "object": f'{{"data": [{first},{twice},{last}]}}',
               "over many lines": f"{first}\n{twice}\n{last}"}[form]  # fmt: skip
    rows, ((line, field, reason),) = read(write(tmp_path / "d.jsonl", written))
    assert [row[1] for row in rows] == ["0, ja", "1, ja"]
    assert (field, line) == ("answer", {"lines": 2, "list": 3, "over many lines": 5}.get(form, 2))
    assert "stands there twice" in reason


def test_list_of_rows_that_stands_twice_in_an_object_is_refused(tmp_path):
    content = '{"data": [{"prompt": "a", "answer": "b"}], "v": 1, "data": [{"prompt": "c", "answer": "d"}]}'
    rows, ((line, field, _),) = read(write(tmp_path / "d.json", content))
    assert (rows, line, field) == ([], 0, "data")


# -- packed files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["d.jsonl.gz", "d.csv.gz", "d.jsonl.zst"])
def test_packed_file_that_is_cut_off_keeps_whole_rows_before_the_cut_and_says_so(tmp_path, name):
    draw = random.Random(7)
    rows = [{"prompt": f"{draw.random()} is what?", "answer": f"{draw.random()}"} for _ in range(20_000)]
    text = table(",", rows=rows) if ".csv" in name else "".join(json.dumps(row) + "\n" for row in rows)
    packed = gzip.compress(text.encode()) if name.endswith("gz") else zstd(text)
    found, rejects = read(write(tmp_path / name, packed[: len(packed) // 2]))
    assert len(found) > 5000
    assert {row[:2] for row in found} <= {(row["prompt"], row["answer"]) for row in rows}, "no half row"
    assert rejects[-1][0] == 0
    assert "archive is damaged or cut off" in rejects[-1][2]


def test_damaged_packed_file_is_told(tmp_path):
    whole = {"d.jsonl.gz": gzip.compress(PLAIN.encode()), "d.jsonl.zst": zstd(PLAIN)}
    flipped = bytearray(whole["d.jsonl.gz"])
    flipped[len(flipped) // 2] ^= 0x55
    for name, packed in whole.items():
        for content in (packed[:9], packed + b"garbage", *([bytes(flipped)] if name.endswith("gz") else [])):
            rows, rejects = read(write(tmp_path / name, content))
            assert len(rows) <= 30
            assert "archive is damaged or cut off" in rejects[-1][2]


@pytest.mark.parametrize("pack", [gzip.compress, lambda content: pa.compress(content, "zstd", asbytes=True)])
@pytest.mark.parametrize("unit", [b"\n", b"x", b"["])
def test_bomb_is_not_unpacked_to_its_end(tmp_path, unit, pack):
    path = write(tmp_path / "d.jsonl.gz", pack(unit * ((1 << 28) // len(unit))))
    started = time.process_time()
    parts = list(read_landed(path))
    assert time.process_time() - started < 60
    assert "more than 250 times as large" in parts[-1].rejects[-1].reason


def test_file_that_packs_well_is_no_bomb(tmp_path):
    text = "".join(
        json.dumps({"prompt": f"Is {n} even?", "answer": "no", "note": "x" * 200}) + "\n" for n in range(9000)
    )
    rows, rejects = read(write(tmp_path / "d.jsonl.gz", gzip.compress(text.encode())))
    assert (len(rows), rejects) == (9000, [])


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"PK\x03\x04" + bytes(90), "Excel"), (b"\xd0\xcf\x11\xe0" + bytes(90), "Excel"), (b"\xfd7zXZ\0", "xz"),
     (gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "packed twice"), (b"PAR1\x15\x04", "Parquet")],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_file_that_is_something_else_than_its_suffix_says_is_one_line(tmp_path, suffix, content, what):
    rows, ((line, _, reason),) = read(write(tmp_path / f"d{suffix}", content))
    assert (rows, line) == ([], 0)
    assert what in reason


# -- what a file is taken for --------------------------------------------------------------------------------


def test_dry_run_tells_what_a_file_is_taken_for_and_lands_nothing(tmp_path):
    path = write(tmp_path / "d.CSV.gz", gzip.compress((table(";") + '"no answer";\r\n').encode("utf-16")))
    (report,) = land_files([path], tmp_path / "landing", dry_run=True)
    assert not (tmp_path / "landing").exists()
    assert (report["good"], len(report["bad"]), report["landed"]) == (30, 1, None)
    told = {name: report["taken_for"][name] for name in ("format", "separator", "encoding", "packing", "fields")}
    assert told == {"format": "CSV", "separator": ";", "encoding": "utf-16", "packing": "gzip",
                    "fields": ["prompt", "answer"]}  # fmt: skip
    assert [row["prompt"] for row in report["rows"]] == [row["prompt"].strip() for row in ROWS[:3]]


@pytest.mark.parametrize(
    ("name", "told"),
    [("lines.json", "JSON, a row a line"), ("list.json", "JSON, rows in a list or one after the other"),
     ("under data.json", 'JSON, an object with rows under "data"'), ("told.csv", "CSV")],
)  # fmt: skip
def test_format_is_told_by_what_is_in_the_file(tmp_path, name, told):
    assert taken_for(write(tmp_path / name, SAME_ROWS[name]))["format"] == told


def test_file_whose_rows_are_all_bad_alike_is_one_hint_with_the_fields_that_are_there(tmp_path):
    rows = [{"Frage": f"{n}?", "Antwort": f"{n}"} for n in range(40)]
    path = write(tmp_path / "d.json", json.dumps(rows))
    (hint,) = hints(path, contents_of(path))
    assert hint.startswith("all 40 rows are bad alike: prompt: missing; the fields that are there: Frage, Antwort;")
    assert "name the question `prompt`" in hint
    squad = [{"title": "t", "paragraphs": [{"context": "c", "qas": []}]}]
    path = write(tmp_path / "s.json", json.dumps({"version": "2", "data": squad}))
    assert (
        "if the rows stand inside of paragraphs, write each as an object of its own"
        in hints(path, contents_of(path))[0]
    )
    mixed = write(tmp_path / "m.jsonl", '{"prompt": "a"}\n{"prompt": "a", "answer": "b"}\n')
    assert hints(mixed, contents_of(mixed)) == []
