"""`apt-assets doctor`: what it finds, and that it finds what a run would end with."""

import json

import pytest
from typer.testing import CliRunner

from apt_assets.cli import app
from apt_assets.project import Project
from apt_assets.start import checks
from apt_assets.start.doctor import summary
from tests import tiny
from tests.fake_endpoint import always, serve


def look(experiment, code=0):
    """(area, state) -> what was said, of what is not ok; and all lines."""
    result = CliRunner().invoke(app, ["doctor", "-e", str(experiment), "--json"])
    assert result.exit_code == code, (result.output, result.exception)
    found = json.loads(result.stdout)
    return {(one["area"], one["state"]): one["said"] for one in found if one["state"] != "ok"}, found


@pytest.fixture
def land(tmp_path):
    return lambda rows: tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", rows)


def test_project_that_can_run_is_told_so_with_what_it_has(make_experiment, land):
    land(tiny.domain_rows(60))
    odd, found = look(make_experiment(gate={"general_tolerance": 1.0}, policy={"max_new_tokens": 8}))
    assert set(odd) == {("data", "warn")}
    assert "validation rows, where one answer is" in odd["data", "warn"]
    said = " | ".join(one["said"] for one in found)
    for expected in ("cores", "weights are held in float32", "it has a chat template", "runs in packed passes",
                     "rows: ", "5 general items", "no stage needs more than", "to compute: "):  # fmt: skip
        assert expected in said


def test_nothing_landed_is_bad_and_says_the_command(make_experiment):
    odd, _ = look(make_experiment(), code=1)
    assert "`apt-assets land FILE`" in odd["data", "bad"]


def test_iteration_whose_files_were_taken_away_is_bad_as_it_is_for_run(make_experiment, land):
    path, file = make_experiment(), land(tiny.domain_rows(60))
    Project.open(path).open_iteration("0001")
    file.rename(file.with_name("renamed.jsonl"))
    odd, _ = look(path, code=1)
    assert odd["data", "bad"].startswith("iteration 0001 used colours.jsonl, and none of that is in")


def test_one_bad_check_does_not_hide_the_others(make_experiment, land, tmp_path):
    land(tiny.domain_rows(60))
    odd, found = look(make_experiment(policy={"model": str(tmp_path)}, gate={"general_tolerance": 0.01}), code=1)
    assert "no safetensors in" in odd["model", "bad"]
    assert "5 general items show a loss of" in odd["gate", "warn"]
    assert [one["said"] for one in found].count(odd["model", "bad"]) == 1
    assert {one["area"] for one in found} == {"machine", "model", "data", "gate"}


def test_rows_that_do_not_fit_are_counted_by_what_they_run_into(make_experiment, land):
    rows = [*tiny.domain_rows(40), {"prompt": "Colour of a very long word?", "answer": "red" * 40, "split": "train"}]
    land([*rows, rows[0] | {"answer": "black"}])
    experiment = make_experiment(training={"max_length": 64})
    _, found = look(experiment)
    said = " | ".join(one["said"] for one in found if one["state"] == "warn")
    assert "the same question as another row, and another answer" in said
    assert "gold answers are longer than policy.max_new_tokens = 4" in said
    assert "training.max_length is 64" in said


def test_row_that_the_model_cannot_read_is_bad_as_it_is_for_run(make_experiment, land):
    land([*tiny.domain_rows(40), {"prompt": "Why? " * 80, "answer": "red"}])
    odd, _ = look(make_experiment(), code=1)
    assert "policy.model reads 256 tokens at once" in odd["data", "bad"]


def test_stage_that_does_not_fit_into_memory_is_bad_and_one_in_smaller_passes_is_not(
    make_experiment, land, monkeypatch
):
    land(tiny.domain_rows(60))
    experiment = make_experiment(gate={"general_tolerance": 1.0})
    monkeypatch.setattr("apt_assets.rows.memory.free_memory", lambda device: 700_000_100)
    odd, _ = look(experiment, code=1)
    assert "at least, and cpu has 100 MB left" in odd["settings", "bad"] or "left for it" in odd["settings", "bad"]
    needed = 702_500_000
    monkeypatch.setattr("apt_assets.rows.memory.free_memory", lambda device: needed)
    odd, _ = look(experiment)
    assert "smaller passes" in odd["settings", "warn"]


def test_grader_behind_an_endpoint_is_asked_for_one_grade(make_experiment, land, monkeypatch):
    land(tiny.domain_rows(60))
    monkeypatch.setenv("OPENAI_API_KEY", "secret-of-a-test")
    rubric = {"model": "grader", "timeout": 5}
    with serve(always(5)) as server:
        _, found = look(make_experiment(assessor={"kind": "rubric", "rubric": {**rubric, "endpoint": server.url}}))
        assert f"{server.url} grades (it gave 5 to a right answer)" in [one["said"] for one in found]
        assert len(server.requests) == 1
    with serve(lambda body: (401, {}, "no")) as server:
        refused = make_experiment(assessor={"kind": "rubric", "rubric": {**rubric, "endpoint": server.url}})
        odd, _ = look(refused, code=1)
    assert "the API key is not accepted" in odd["servers", "bad"]
    assert "secret-of-a-test" not in odd["servers", "bad"]
    monkeypatch.setenv("OPENAI_API_KEY", "two words")
    odd, _ = look(refused, code=1)
    assert "OPENAI_API_KEY" in odd["servers", "bad"]
    monkeypatch.setenv("OPENAI_API_KEY", "secret-of-a-test")
    odd, _ = look(refused, code=1)  # nobody is there any more
    assert "no grade from" in odd["servers", "bad"]


def test_policy_server_that_is_not_there_is_bad_with_the_command_that_starts_one(make_experiment, land):
    land(tiny.domain_rows(60))
    server = {"backend": "openai", "server": {"url": "http://127.0.0.1:9/v1", "timeout": 1}}
    odd, _ = look(make_experiment(policy=server), code=1)
    assert "vllm serve" in odd["servers", "bad"]


@pytest.mark.parametrize(("free", "state"), [(1e9, "warn"), (1e8, "bad")])
def test_disk_that_is_nearly_full_says_what_makes_room(make_experiment, land, monkeypatch, free, state):
    from collections import namedtuple

    land(tiny.domain_rows(60))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda place: usage(1e12, 1e12, free))
    odd, _ = look(make_experiment(gate={"general_tolerance": 1.0}), code=1 if state == "bad" else 0)
    assert "`apt-assets gc` makes room" in odd["machine", state]


def test_last_line_counts_what_is_to_be_mended():
    found = [checks.Finding("data", state, "") for state in ("ok", "bad", "warn", "warn")]
    assert summary(found) == "1 to mend before a run, 2 to know of"
    assert summary(found[:1]) == "a run can start"
    assert summary([found[0], found[2]]) == "a run can start; 1 to know of"
