"""Landed files, good and hostile: every line ends as a row or as a reject with a reason."""

import errno
import gzip
import io
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from apt_assets.landing.chunks import Chunk
from apt_assets.landing.land import land_files
from apt_assets.landing.records import ROWS, contents_of, read_landed, sort_out
from apt_assets.method.domain import build_domain
from apt_assets.project import Project
from apt_assets.settings.experiment import UsageError
from tests import tiny

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
        (b'{"prompt": "Capital?", "answer": ["Paris", 7]}', "answer[1]", "must be text, got int: write it as text"),
        (b'{"prompt": "Capital?", "answer": [null, ""]}', "answer", "empty"),
        (b'{"prompt": "Capital?", "answer": "  "}', "answer", "empty"),
        (b'{"prompt": "Capital?", "answer": "a\\u0000b"}', "answer", "NUL"),
        (b'{"prompt": "\\ud800", "answer": "Paris"}', "prompt", "lone surrogate"),
        (b'{"prompt": "Caf\xe9?", "answer": "Paris"}', None, "not valid UTF-8 at byte 16"),
        (b'{"prompt": "Capital?", "answer": ', None, "not valid JSON"),
        (b'["Capital?", "Paris"]', None, "must be an object"),
        (b"[" * 100_000, None, "nested too deeply"),
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


def test_csv_record_that_is_broken_costs_one_row_unless_a_quote_stays_open(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text('prompt,answer\na?,1\n"b"?,2\nc?,3\n"d?,4\ne?,5\n')
    rows, rejects = read(path)
    assert [row.prompt for row in rows] == ["a?", "c?"]
    assert [(r.line, r.reason.partition(":")[0]) for r in rejects] == [
        (3, "not valid CSV"),
        (0, "the file cannot be read on"),
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_of_20_mib_is_one_reject_and_the_lines_after_it_are_kept(tmp_path, end):
    long = b'{"prompt": "' + b"x" * (20 << 20) + b'", "answer": "1"}'
    good = json.dumps(GOOD).encode()
    (tmp_path / "data.jsonl").write_bytes(end.join([good, long, good, long]))
    rows, rejects = read(tmp_path / "data.jsonl")
    assert [row.line for row in rows] == [1, 3]
    assert [(r.line, r.reason) for r in rejects] == [(2, "longer than 16 MiB"), (4, "longer than 16 MiB")]
    assert rejects[0].raw.startswith('{"prompt": "xxx')
    (tmp_path / "data.csv").write_bytes(end.join([b"prompt,answer", b"a?,1", b"x" * (20 << 20) + b",1", b"b?,2"]))
    rows, rejects = read(tmp_path / "data.csv")
    assert [(row.line, row.prompt) for row in rows] == [(2, "a?"), (4, "b?")]
    assert [(r.line, r.reason) for r in rejects] == [(3, "longer than 16 MiB")]


def test_quote_that_stays_open_for_17_mib_costs_what_it_swallowed_and_no_more(tmp_path):
    lines = [b"prompt,answer", b"a?,1", b'"open,2', *[b"swallowed " * 1000] * 1800, b"b?,3", b""]
    (tmp_path / "data.csv").write_bytes(b"\n".join(lines))
    rows, rejects = read(tmp_path / "data.csv")
    assert [row.prompt for row in rows] == ["a?", "b?"]
    assert rejects[0].reason == "longer than 16 MiB"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x" * 1_000_001, "longer than 1000000 characters"),
        ("a" + "\u0301" * 400_000 + "\u0316" * 400_000, "holds more than 100 combining marks in a row"),
        ("a" * 5000 + "\uff9e" * 101, "holds more than 100 combining marks in a row"),
    ],
)
@pytest.mark.parametrize("field", ["prompt", "answer"])
def test_text_that_is_too_much_is_rejected_at_once(tmp_path, field, text, reason):
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, [GOOD, {**GOOD, field: text}])))
    started = time.monotonic()
    tables = build_domain(read_landed(path), 0.1, 0.1, None)
    assert time.monotonic() - started < 10
    assert tables["quarantine"].select("field", "reason").rows() == [(field, reason)]


def test_text_just_short_of_too_much_is_kept(tmp_path):
    path = tmp_path / "data.jsonl"
    texts = ["x" * 1_000_000, "é" * 999_000, ("a" + "\u0301" * 100) * 900, "नमस्ते " * 100_000, "\u0301" * 998]
    path.write_text(
        "\n".join(json.dumps({"prompt": f"{n}{text}"[:1_000_000], "answer": "x"}) for n, text in enumerate(texts))
    )
    rows, rejects = read(path)
    assert (len(rows), rejects) == (len(texts), [])


def test_value_nested_as_deep_as_json_allows_is_named_in_its_reason(tmp_path):
    path = tmp_path / "data.jsonl"
    deep = "[" * 900 + "]" * 900
    path.write_text(
        f'{{"prompt": "a?", "answer": {deep}}}\n'
        f'{{"messages": [{{"role": {deep}, "content": "a?"}}]}}\n' + json.dumps(GOOD)
    )
    rows, rejects = read(path)
    assert [row.line for row in rows] == [3]
    assert [len(r.reason) < 200 for r in rejects] == [True, True]


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


def test_file_that_was_edited_in_the_landing_folder_stays_and_the_one_that_lands_again_lies_beside_it(tmp_path):
    path, folder = tiny.write_jsonl(tmp_path / "data.jsonl", tiny.domain_rows(10)), tmp_path / "landing"
    (first,) = land_files([path], folder)
    (folder / first["landed"]).write_text("".join(path.read_text().splitlines(True)[:3]))
    (again,), (once_more,) = land_files([path], folder), land_files([path], folder)
    assert once_more["landed"] == again["landed"] != first["landed"]
    assert [contents_of(folder / one["landed"]).rows for one in (first, again)] == [3, 10]


def test_unknown_format_lands_nothing_at_all(tmp_path):
    good, odd = tmp_path / "data.jsonl", tmp_path / "data.xlsx"
    good.write_text(json.dumps(GOOD))
    odd.write_text("")
    with pytest.raises(UsageError, match=r"unknown format '\.xlsx'"):
        land_files([good, odd], tmp_path / "landing")
    assert not (tmp_path / "landing").exists()


# -- files and names -------------------------------------------------------------------------------------


def test_pipe_is_refused_before_anything_is_read_of_it(tmp_path):
    os.mkfifo(tmp_path / "data.jsonl")
    with pytest.raises(UsageError, match="is a pipe or a device"):
        land_files([tmp_path / "data.jsonl"], tmp_path / "landing")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "data.parquet")
    with pytest.raises(UsageError, match="holds neither"):
        land_files([tmp_path / "folder"], tmp_path / "landing")


@pytest.mark.parametrize(
    ("name", "landed"),
    [
        ("-rf.jsonl", "rf-"),
        (".hidden.jsonl", "hidden-"),
        ("....jsonl", "data-"),
        ("a\nb\x1b[2J.jsonl", "a_b_[2J-"),
        ("\u202egpj.exe.jsonl", "_gpj.exe-"),
        (os.fsdecode(b"caf\xe9.jsonl"), "caf_-"),
        ("$(touch x); rm *.jsonl", "$(touch x); rm *-"),
        ("é" * 120 + ".jsonl", "é" * 75 + "-"),
        ("データ.jsonl", "データ-"),
    ],
    ids=ascii,
)
def test_file_of_any_name_lands_under_one_that_the_project_sees(tmp_path, make_experiment, name, landed):
    project = Project.open(make_experiment())
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / name).write_text(json.dumps(GOOD))
    (report,) = land_files([tmp_path / "given" / name], project.landing)
    json.dumps(report).encode()
    print(report["file"])
    assert report["landed"].startswith(landed)
    assert project.landed() == [report["landed"]]
    assert len(list(project.landing.iterdir())) == 1


def test_file_whose_name_said_another_format_is_read_anew_under_the_right_one(make_experiment):
    project = Project.open(make_experiment())
    wrong = tiny.write_jsonl(project.landing / "more.csv", tiny.domain_rows(20))
    assert project.usable_rows("more.csv") == 0
    wrong.rename(wrong.with_suffix(".jsonl"))
    project = Project.open(make_experiment())
    assert project.usable_rows("more.jsonl") == 20
    assert not project.landing.joinpath("more.csv").exists()


def test_landing_folder_below_the_home_folder_is_found_there(make_experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert Project.open(make_experiment(data={"landing": "~/rows"})).landing == tmp_path / "me" / "rows"


def test_link_out_of_the_landing_folder_is_not_seen_and_one_inside_is(tmp_path, make_experiment):
    project = Project.open(make_experiment())
    project.landing.mkdir()
    (tmp_path / "secret.jsonl").write_text(json.dumps(GOOD))
    (project.landing / "a.jsonl").write_text(json.dumps(GOOD))
    (project.landing / "b.jsonl").symlink_to("a.jsonl")
    (project.landing / "c.jsonl").symlink_to("../secret.jsonl")
    (project.landing / "d.jsonl").symlink_to("d.jsonl")
    (project.landing / "e.jsonl").symlink_to("/dev/zero")
    (project.landing / "f.jsonl").symlink_to("nowhere.jsonl")
    (project.landing / "g\u202e.jsonl").write_text(json.dumps(GOOD))
    os.mkfifo(project.landing / "h.jsonl")
    assert project.landed() == ["a.jsonl", "b.jsonl"]
    assert list(project.landing_files("base")) == ["a.jsonl", "b.jsonl"]


def test_file_of_an_iteration_that_became_a_link_out_of_the_folder_counts_as_withdrawn(tmp_path, make_experiment):
    project = Project.open(make_experiment())
    project.landing.mkdir()
    (project.landing / "a.jsonl").write_text(json.dumps(GOOD))
    project.open_iteration("0001")
    (project.landing / "a.jsonl").rename(tmp_path / "a.jsonl")
    (project.landing / "a.jsonl").symlink_to(tmp_path / "a.jsonl")
    assert project.landing_files("0001") == {"a.jsonl": "withdrawn"}


def test_landing_a_link_copies_what_it_leads_to_and_never_writes_through_one(tmp_path):
    data, victim = tmp_path / "data.jsonl", tmp_path / "victim.jsonl"
    data.write_text(json.dumps(GOOD))
    (tmp_path / "link.jsonl").symlink_to(data)
    (first,) = land_files([tmp_path / "link.jsonl"], tmp_path / "landing")
    landed = tmp_path / "landing" / first["landed"]
    assert not landed.is_symlink()
    assert landed.read_bytes() == data.read_bytes()
    for name in (landed.name, f".{landed.name}.partial"):
        landed.unlink()
        victim.write_text("not to be written")
        (tmp_path / "landing" / name).symlink_to(victim)
        land_files([tmp_path / "link.jsonl"], tmp_path / "landing")
        assert victim.read_text() == "not to be written"
        assert not landed.is_symlink()


# -- what is no fault of a file --------------------------------------------------------------------------


def test_decoder_that_the_machine_killed_is_no_content_of_the_file(make_experiment, tmp_path, monkeypatch):
    project = Project.open(make_experiment())
    pl.DataFrame(tiny.domain_rows(9)).write_parquet(tmp_path / "rows.parquet")
    (landed,) = land_files([tmp_path / "rows.parquet"], project.landing)
    started = subprocess.Popen

    def killed(command, **how):
        process = started(command, **how)
        process.kill()
        return process

    name = landed["landed"]
    monkeypatch.setattr(subprocess, "Popen", killed)
    looked = Project(project.experiment, project.home)
    assert looked.usable_rows(name) == 0, "and nothing of it is remembered"
    with pytest.raises(OSError, match=f"lack of memory.*{name}"):
        looked.landing_folder.versions([name])
    (told,) = land_files([tmp_path / "rows.parquet"], tmp_path / "elsewhere")
    assert (told["landed"], "nothing is wrong with the file" in told["bad"][0]["reason"]) == (None, True)
    monkeypatch.undo()
    assert Project(project.experiment, project.home).usable_rows(name) == 9


def test_packed_file_that_finds_no_room_to_be_unpacked_is_not_taken_for_a_bad_one(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet.gz"
    pl.DataFrame(tiny.domain_rows(9)).write_parquet(tmp_path / "rows.parquet")
    path.write_bytes(gzip.compress((tmp_path / "rows.parquet").read_bytes()))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OSError, match="gone"):
        read(path)
    monkeypatch.undo()
    assert len(read(path)[0]) == 9


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "a.csv.gz"])
def test_disk_that_fails_in_the_middle_of_a_file_is_not_taken_for_its_end(tmp_path, monkeypatch, name):
    rows = tiny.domain_rows(30_000)
    plain = {
        ".jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        ".json": json.dumps(rows, indent=1),
        ".csv": "prompt,answer\n" + "".join(f"{row['prompt']},{row['answer']}\n" for row in rows),
    }[f".{name.split('.')[1]}"].encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(plain) if name.endswith(".gz") else plain)
    opened = Path.open

    class Failing(io.FileIO):
        def readinto(self, buffer):
            if self.tell() > path.stat().st_size // 2:
                raise OSError(errno.EIO, "Input/output error")
            return super().readinto(buffer)

    def fails(self, mode="r", *how, **options):
        return io.BufferedReader(Failing(self), 4096) if mode == "rb" else opened(self, mode, *how, **options)

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(OSError, match="Input/output error"):
        read(path)


def test_file_that_lands_twice_at_once_is_whole_whenever_it_is_seen(tmp_path, monkeypatch):
    path, seen, both = tiny.write_jsonl(tmp_path / "rows.jsonl", tiny.domain_rows(50)), [], threading.Barrier(2)
    copy = shutil.copyfile

    def slow(source, target):
        target.write_bytes(source.read_bytes()[:100])
        both.wait(20)
        seen.extend(file.stat().st_size for file in (tmp_path / "landing").glob("rows-*"))
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", slow)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: land_files([path], tmp_path / "landing"), range(2)))
    assert set(seen) <= {path.stat().st_size}
    assert [file.stat().st_size for file in (tmp_path / "landing").iterdir()] == [path.stat().st_size]
