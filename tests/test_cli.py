"""The command line as a user meets it: exit codes, output; real processes where something is computed or refused."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from apt_assets.cli import app
from tests import tiny

pytestmark = pytest.mark.slow("processes")

APT = [sys.executable, "-m", "apt_assets.cli"]


def apt(*arguments, code=0, cwd=None):
    result = subprocess.run([*APT, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=300)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def here(*arguments):
    """What a command that succeeds prints, in this process: a new one imports for longer than most commands take."""
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@pytest.fixture
def experiment(make_experiment) -> Path:
    return make_experiment()


@pytest.fixture
def landed(experiment, tmp_path) -> Path:
    here("land", tiny.write_jsonl(tmp_path / "colours.jsonl", tiny.domain_rows(60)), "-e", experiment)
    return experiment


def test_users_file_goes_from_landing_to_an_adapter_that_transformers_loads(experiment, tmp_path):
    rows = [json.dumps(row) for row in tiny.domain_rows(60)]
    rows[3:3] = ['{"prompt": "no answer"}', "{broken", '{"prompt": "empty", "answer": ""}']
    (tmp_path / "mine.jsonl").write_text("\n".join(rows))
    (report,) = json.loads(here("land", tmp_path / "mine.jsonl", "-e", experiment, "--json"))
    assert report["good"] == 60
    assert [(bad["line"], bad["field"]) for bad in report["bad"]] == [(4, "answer"), (5, None), (6, "answer")]

    found = json.loads(apt("run", "-e", experiment, "--iterations", 1, "--json").stdout)
    assert found["passed"]
    assert found["iterations"][1]["pairs"] > 0

    quarantined = json.loads(here("show", "quarantine", 1, "-e", experiment, "--json"))
    assert [row["line"] for row in quarantined] == [4, 5, 6]
    pairs = json.loads(here("show", "preference_pairs", 1, "-e", experiment, "--limit", 3, "--json"))
    assert len(pairs) == 3
    assert set(pairs[0]) >= {"prompt", "chosen", "rejected", "kind"}

    here("export", tmp_path / "adapter", "-e", experiment)
    here("export", tmp_path / "merged", "--what", "merged", "-e", experiment)
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(
        json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"]
    )
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    for (name, one), (_, two) in zip(merged.named_parameters(), adapted.named_parameters(), strict=True):
        assert (one - two).abs().max() < 1e-5, name
    apt("export", tmp_path / "merged", "-e", experiment, code=2)


def wait_for(line: str, process: subprocess.Popen) -> None:
    for text in process.stderr:
        if line in text:
            return
    raise AssertionError(f"{line!r} never came")


@pytest.mark.parametrize(
    ("stage", "how"), [("eval_predictions", signal.SIGINT), ("adapter_checkpoint", signal.SIGKILL)]
)
def test_run_interrupted_in_a_stage_goes_on_without_redoing_finished_stages(landed, tmp_path, stage, how):
    process = subprocess.Popen(
        [*APT, "run", "-e", str(landed), "--iterations", "1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    wait_for(f"{stage} of 0001: computing", process)
    process.send_signal(how)
    assert process.wait(180) == (-9 if how == signal.SIGKILL else 130)

    journal = tmp_path / ".apt" / "store" / "journal.jsonl"
    done = [e["stage"] for e in map(json.loads, journal.read_text().splitlines()) if e["event"] == "computed"]
    assert stage not in done
    found = json.loads(apt("run", "-e", landed, "--iterations", 1, "--json").stdout)
    assert found["passed"]
    assert not set(done) & {name for _, name in found["computed"]}
    assert stage in {name for _, name in found["computed"]}


def test_iteration_whose_file_was_renamed_is_named_and_goes_on_with_reopen(ran, tmp_path):
    experiment = ran(1)
    (file,) = (tmp_path / "landing").glob("*.jsonl")
    file.rename(file.with_name("renamed.jsonl"))
    apt("run", "-e", experiment, "--reopen", "--force", "nonsense", code=2)
    refused = CliRunner().invoke(app, ["run", "-e", str(experiment), "--iterations", "1", "--json"])
    assert refused.exit_code == 1
    assert f"iteration 0001 used {file.name}, and none of that is in" in json.loads(refused.stdout)["reason"]
    found = json.loads(here("run", "-e", experiment, "--iterations", 1, "--reopen", "--json"))
    assert found["passed"]
    assert ["0001", "domain_dataset"] in found["computed"]
    assert ["0001", "adapter_checkpoint"] in found["reused"], "the rows are the same"


def test_second_run_computes_nothing_and_plan_says_why_beforehand(ran, make_experiment):
    landed = ran(1)
    again = json.loads(apt("run", "-e", landed, "--iterations", 1, "--json").stdout)
    assert again["computed"] == []
    changed = make_experiment(assessor={"bad_below": 3})
    plans = {p["stage"]: p for p in json.loads(here("plan", "-e", changed, "--iterations", 1, "--json"))}
    assert plans["bad_cases"]["causes"] == ["assessor.bad_below: 4 -> 3"]
    assert plans["eval_predictions"]["status"] == "fresh"
    assert plans["adapter_checkpoint"]["work"]["steps"] > 0
    assert not plans["adapter_checkpoint"]["work_exact"]
    table = here("plan", "-e", changed, "--iterations", 1)
    assert "assessor.bad_below: 4 -> 3" in table
    assert "next: 0001, bad_cases is stale" in table

    explained = json.loads(here("explain", "bad_cases", 1, "-e", changed, "--json"))
    assert (explained["status"], explained["causes"]) == ("stale", ["assessor.bad_below: 4 -> 3"])
    assert explained["trace"]["settings"]["assessor.bad_below"] == 4
    assert [event["event"] for event in explained["journal"]][:2] == ["miss", "computed"]
    make_experiment()
    text = here("explain", "policy", "0001", "-e", landed)
    assert "policy of 0001 is" in text
    assert "previous_adapter" in text
    assert "there are: domain_dataset" in apt("explain", "nonsense", 1, "-e", landed, code=2).stderr

    would = json.loads(here("gc", "--keep", 1, "--dry-run", "-e", landed, "--json"))
    assert "artifacts" not in would["removed"]
    here("gc", "--keep", 1, "-e", landed)
    assert json.loads(apt("run", "-e", landed, "--iterations", 1, "--json").stdout)["computed"] == []


def test_refused_gate_promotes_nothing_says_so_and_exits_with_1(landed, make_experiment):
    # Without validation rows nothing shows that the adapter is not worse: the gate must refuse.
    strict = make_experiment(data={"validation": 0.0})
    result = apt("run", "-e", strict, "--iterations", 2, code=1)
    assert "STOPPED: iteration 0001 is not promoted" in result.stdout
    apt("export", "-e", strict, "out", code=2)
    status = json.loads(here("status", "-e", strict, "--json"))
    assert status["iterations"][1]["stages"]["promoted_adapter"]["status"] == "refused"


def test_landed_file_that_no_iteration_uses_is_pointed_out(ran, tmp_path):
    landed = ran(1)
    here("land", tiny.write_jsonl(tmp_path / "more.jsonl", tiny.domain_rows(70)[60:]), "-e", landed)
    assert "in no iteration yet; `apt-assets run` opens iteration 2 with it" in here("plan", "-e", landed)
    file = tmp_path / "landing" / "colours.jsonl"
    file.rename(file.with_name("renamed.jsonl"))
    said = here("plan", "-e", landed)
    assert "in no iteration yet\n" in said
    assert "opens iteration" not in said, "it asks for --reopen first"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["land", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["run", "-e", "nowhere.yaml"], "no experiment file"),
        (["show", "bad_cases", "x"], "iteration: give a number such as 1, or base"),
        (["show", "bad_cases", "1" * 5000], "iteration: give a number such as 1, or base"),
        (["run", "00001" + "1" * 5000], "iterations: give a number from 1 to 9999"),
        (["show", "bad_cases", "1"], "has nothing yet"),
        (["export", "out"], "no up-to-date promoted adapter"),
        (["run", "--iterations", "0"], "--iterations"),
        (["frobnicate"], "No such command"),
    ],
)
def test_wrong_use_is_one_clear_message_and_exit_code_2(experiment, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setenv("APT_EXPERIMENT", str(experiment))
    result = apt(*arguments, code=2, cwd=tmp_path)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_run_without_data_says_how_to_land_some(experiment):
    assert (
        f"land some with `apt-assets land FILE --experiment {experiment}`"
        in apt("run", "-e", experiment, code=2).stderr
    )


def test_land_without_experiment_goes_to_the_default_folder_not_among_the_embedded_data(experiment, tmp_path):
    path = tiny.write_jsonl(tmp_path / "mine.jsonl", tiny.domain_rows(3))
    (report,) = json.loads(apt("land", path, "--json", cwd=tmp_path).stdout)
    assert (tmp_path / "landing" / report["landed"]).is_file()


def test_bad_row_that_is_shown_sends_nothing_to_the_terminal(experiment, tmp_path):
    rows = ['{"prompt": "a?", "answer": "b"}', "\x1b]0;title\x07\x1b[2J\u202egpj"]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    shown = here("land", tmp_path / "data.jsonl", "-e", experiment)
    assert "\\x1b]0;title\\x07\\x1b[2J\\u202egpj" in shown
    assert not set("\x1b\x07\u202e") & set(shown)


def test_dry_run_shows_what_a_file_is_taken_for_and_lands_nothing(experiment, tmp_path):
    (tmp_path / "data.csv").write_text("prompt;answer\na, b?;x\nc?;y\nno answer\n")
    shown = here("land", tmp_path / "data.csv", "-e", experiment, "--dry-run")
    assert "data.csv: CSV, separated by ';', utf-8, fields prompt, answer; " in shown
    assert "2 rows would land, 1 bad rows" in shown
    assert "a, b?" in shown
    (found,) = json.loads(here("land", tmp_path / "data.csv", "-e", experiment, "--dry-run", "--json"))
    assert [(row["prompt"], row["answer"]) for row in found["rows"]] == [("a, b?", "x"), ("c?", "y")]
    assert (found["good"], len(found["bad"]), found["taken_for"]["separator"]) == (2, 1, ";")
    assert not (tmp_path / "landing").exists()
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    assert "nothing would land" in apt("land", tmp_path / "bad.csv", "-e", experiment, "--dry-run", code=2).stderr


def test_bad_rows_are_printed_by_kind_and_once_for_the_file_if_all_are_alike(experiment, tmp_path):
    rows = [{"frage": f"{n}?", "antwort": "x"} for n in range(50)]
    path = tiny.write_jsonl(tmp_path / "alike.jsonl", rows)
    shown = apt("land", path, "-e", experiment, code=2).stdout
    assert len(shown.splitlines()) == 2
    assert "all 50 rows are bad alike: prompt: missing; the fields that are there: frage, antwort" in shown
    path = tiny.write_jsonl(
        tmp_path / "kinds.jsonl", [*rows, {"prompt": "a?", "answer": 7}, {"prompt": "b?", "answer": "c"}]
    )
    lines = [
        line.split() for line in here("land", path, "-e", experiment).splitlines() if "frage" in line or "7" in line
    ]
    assert [line[0] for line in lines[-2:]] == ["50", "1"]
    assert lines[-2][1:4] == ["1,", "2,", "3,"]


def test_file_of_another_encoding_lands_when_the_encoding_is_said(experiment, tmp_path):
    (tmp_path / "data.csv").write_bytes("prompt;answer\nGröße?;groß\n".encode("cp1252"))
    shown = apt("land", tmp_path / "data.csv", "-e", experiment, code=2).stdout
    assert shown.count("not valid UTF-8") == 1
    assert "at byte 17 (0xF6) of the file; it looks like cp1252: land it with --encoding cp1252" in shown
    assert "1 rows landed" in here("land", "--encoding", "cp1252", tmp_path / "data.csv", "-e", experiment)
    wrong = apt("land", "--encoding", "cp9", tmp_path / "data.csv", "-e", experiment, code=2).stderr
    assert wrong == "error: --encoding: 'cp9' is no encoding that Python knows, such as cp1252, gbk or shift_jis\n"
