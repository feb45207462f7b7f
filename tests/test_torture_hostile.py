"""A sample of the hostile files that `python -m tests.torture hostile` lands."""

import re

import pytest

from tests.torture.hostile import Worker, complaints, run
from tests.torture.hostile_files import Case

pytestmark = pytest.mark.slow("cases")


def test_hostile_files_are_landed_without_a_crash_a_hang_or_a_lost_row(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "theirs.jsonl").write_text('{"prompt": "a?", "answer": "b"}\n{broken\n')
    (tmp_path / "theirs.xlsx").write_bytes(b"PK")
    found = run(short=True, corpus=tmp_path)
    assert found.failures == []
    files = found.figures["files and folders"]
    assert int(files.split()[0]) >= 100
    assert "given 2" in files
    kept, of = map(int, re.findall(r"\d+", found.figures["good rows kept"]))
    assert kept == of > 2000


def test_lost_row_crash_and_hang_would_be_noticed(tmp_path, monkeypatch):
    case = Case("kind", "data.jsonl", lambda path: None, good=("good row 0?", "good row 1?"), bad=1)
    (lost,) = complaints(case, {"prompts": ["good row 0?"], "reasons": ["empty"]})
    assert lost.startswith("lost 1 of 2 good rows")
    assert complaints(case, {"prompts": case.good, "reasons": []}) == ["rejected 0 records and not 1: []"]
    assert complaints(case, {"refused": "cannot be read"}) == ["refused: cannot be read"]
    monkeypatch.setattr("tests.torture.hostile.PATIENCE", 1.0)
    worker = Worker(tmp_path, tmp_path / "landing")
    (tmp_path / "noise.jsonl").write_bytes(b"{broken\n" * 2_000_000)
    (hang,) = complaints(case, worker.land(tmp_path / "noise.jsonl"))
    assert hang.startswith("hang")
    worker.process.kill()
    (crash,) = complaints(case, worker.land(tmp_path / "noise.jsonl"))
    assert crash == "crash with exit code -9"
    assert worker.close() > 0
