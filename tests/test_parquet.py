"""Parquet that is broken, swollen or made to break its reader: an error or rejected rows, and the good rows kept."""

import os
import textwrap
import time

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apt_assets.landing import parquet
from apt_assets.landing.land import land_files
from apt_assets.landing.records import contents_of, read_landed
from apt_assets.settings.experiment import UsageError


def write(path, table, **options):
    pq.write_table(pa.table(table), path, **options)
    return path


def read(path):
    """(prompts, {line: reason})."""
    parts = list(read_landed(path))
    prompts = [prompt for part in parts for prompt in part.rows["prompt"]]
    return prompts, {bad.line: bad.reason for part in parts for bad in part.rejects}


def not_text(*values):
    """A column of type string, of bytes that need not be UTF-8."""
    column = pa.array(values, pa.binary())
    return pa.StringArray.from_buffers(len(values), column.buffers()[1], column.buffers()[2])


@pytest.fixture
def decoder(tmp_path, monkeypatch):
    """A function (code) that runs in place of the decoder, after one good batch was sent."""
    good = "stream.write_batch(pa.record_batch({'prompt': ['kept?'], 'answer': ['yes']}))"

    def replace(code):
        script = "import os, resource, signal, sys\nimport pyarrow as pa\nsend = sys.stdout.buffer\n"
        script += "stream = pa.ipc.new_stream(send, pa.schema({'prompt': pa.string(), 'answer': pa.string()}))\n"
        (tmp_path / "decoder.py").write_text(f"{script}{good}\nsend.flush()\n{textwrap.dedent(code)}")
        monkeypatch.setattr(parquet, "__file__", str(tmp_path / "decoder.py"))
        (tmp_path / "data.parquet").write_bytes(b"PAR1")
        return tmp_path / "data.parquet"

    return replace


@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), 11)"])
def test_reader_that_crashes_is_an_error_and_the_rows_before_it_are_kept(decoder, end):
    path = decoder(f"resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n{end}")
    prompts, rejects = read(path)
    assert prompts == ["kept?"]
    assert rejects[0].startswith("the file cannot be read on: its reader crashed (SIG")


def test_reader_that_crashes_in_the_middle_of_a_batch_gives_no_half_batch(decoder):
    path = decoder(
        "send.write(b'\\xff\\xff\\xff\\xff\\x00\\x01\\x00\\x00 half'); send.flush(); os.kill(os.getpid(), 11)"
    )
    prompts, rejects = read(path)
    assert prompts == ["kept?"]
    assert rejects == {0: "the file cannot be read on: its reader crashed (SIGSEGV)"}


FOR_EVER = "signal.pause()"


@pytest.mark.slow("processes")
@pytest.mark.parametrize("forever", ["while True: pass", FOR_EVER])
def test_reader_that_never_ends_is_ended(decoder, monkeypatch, forever):
    monkeypatch.setattr(parquet, "LONGEST_WAIT", 3.0)
    monkeypatch.setattr(parquet, "MOST_WAITS", 3)
    started = time.monotonic()
    prompts, rejects = read(decoder(forever))
    assert time.monotonic() - started < 300
    assert prompts == ["kept?"]
    assert rejects == {0: "the file cannot be read on: nothing was read of it for 3 s"}


@pytest.mark.slow("processes")
def test_reader_that_the_machine_lets_wait_is_waited_for(decoder, monkeypatch, tmp_path):
    monkeypatch.setattr(parquet, "LONGEST_WAIT", 3.0)
    # The reader goes on when it was looked after, which is after so many seconds, and left alone.
    pipe, look = tmp_path / "looked", parquet.Watch.look
    os.mkfifo(pipe)
    monkeypatch.setattr(parquet.Watch, "look", lambda watch: (look(watch), pipe.write_text("")))
    prompts, rejects = read(decoder(f"open({str(pipe)!r}).read(); os.kill(os.getpid(), 11)"))
    assert prompts == ["kept?"]
    assert "crashed (SIGSEGV)" in rejects[0]


def test_reading_that_is_given_up_leaves_no_process_behind(decoder):
    before = psutil.Process().children()
    batches = parquet.read_batches(decoder(FOR_EVER))
    started = time.monotonic()
    assert next(batches).num_rows == 1
    batches.close()
    assert time.monotonic() - started < 300
    assert psutil.Process().children() == before


def test_text_that_is_not_utf_8_costs_its_rows(tmp_path):
    prompts = not_text(b"a?", b"caf\xe9?", b"c?", b"d?")
    notes = not_text(b"", b"", b"\xff", b"")
    path = write(tmp_path / "data.parquet", {"prompt": prompts, "answer": ["1", "2", "3", "4"], "note": notes})
    assert read(path) == (["a?", "d?"], {2: "not valid UTF-8", 3: "not valid UTF-8"})
    assert [bad.field for bad in contents_of(path).rejects] == ["prompt", "note"]


def test_date_that_python_does_not_know_costs_its_row(tmp_path):
    when = pa.array([0, 2**62], pa.timestamp("us"))
    path = write(tmp_path / "data.parquet", {"prompt": ["a?", "b?"], "answer": ["1", "2"], "when": when})
    prompts, rejects = read(path)
    assert prompts == ["a?"]
    assert rejects[2].startswith("cannot be read: ")


def test_row_of_20_mib_is_one_reject_and_the_rows_after_it_are_kept(tmp_path):
    path = write(tmp_path / "data.parquet", {"prompt": ["a?", "x" * (20 << 20), "c?"], "answer": ["1", "2", "3"]})
    assert read(path) == (["a?", "c?"], {2: "longer than 16 MiB"})


def test_millions_of_rows_in_a_few_bytes_are_not_unpacked(tmp_path):
    path = write(tmp_path / "data.parquet", {"prompt": pa.nulls(3_000_000, pa.string())})
    prompts, rejects = read(path)
    assert prompts == []
    assert "rows in" in rejects[0]


def test_values_beyond_the_limit_end_the_file_and_the_rows_before_them_are_kept(tmp_path, monkeypatch):
    """The limit is lowered in the process that decodes, too: it runs a copy of the file."""
    source = parquet.Path(parquet.__file__).read_text()
    (tmp_path / "limited.py").write_text(source.replace("MOST_UNPACKED = 1 << 32", "MOST_UNPACKED = 5 << 20"))
    monkeypatch.setattr(parquet, "__file__", str(tmp_path / "limited.py"))
    answers = pa.array(["x" * 1000] * 10_000)  # equal ones are written once, so the footer tells little of them
    path = write(tmp_path / "data.parquet", {"prompt": [f"{n}?" for n in range(10_000)], "answer": answers})
    prompts, rejects = read(path)
    assert prompts == [f"{n}?" for n in range(4096)]
    assert "split it" in rejects[0]


def test_long_values_that_a_dictionary_repeats_do_not_take_all_memory(tmp_path):
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 9000, pa.int32()), pa.array(["x" * 1_000_001]))
    path = write(tmp_path / "data.parquet", {"prompt": long, "answer": long})
    assert path.stat().st_size < 1 << 20
    assert "GiB" in read(path)[1][0]


def test_categories_are_read_as_their_text(tmp_path):
    colours = pa.array(["red", "blue", "red"]).dictionary_encode()
    tags = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), colours)
    path = write(tmp_path / "data.parquet", {"prompt": ["a?", "b?", "c?"], "answer": colours, "tags": tags})
    (part,) = read_landed(path)
    assert part.rows["answer"].to_list() == ["red", "blue", "red"]
    assert part.rows["metadata"][1] == '{"tags": ["blue"]}'


@pytest.mark.parametrize("seed", range(12))
def test_file_with_flipped_bytes_ends_as_rows_and_rejects(tmp_path, seed):
    import random

    path = write(tmp_path / "data.parquet", {"prompt": [f"q {n}?" for n in range(300)], "answer": ["a"] * 300})
    content, draw = bytearray(path.read_bytes()), random.Random(seed)
    for place in draw.sample(range(len(content)), 1 + seed):
        content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    prompts, rejects = read(path)
    assert prompts or rejects
    assert len(prompts) <= 300


def test_folder_with_a_parquet_file_that_breaks_its_reader_is_refused(decoder, tmp_path):
    decoder("os.kill(os.getpid(), 11)")
    with pytest.raises(UsageError, match=r"cannot be read as a data set: its reader crashed \(SIGSEGV\)"):
        land_files([tmp_path], tmp_path / "landing")
    assert not (tmp_path / "landing").exists()
