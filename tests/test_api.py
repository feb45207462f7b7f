"""The project as a program uses it."""

import contextlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest

from apt_assets import NothingLanded, Project, UsageError
from apt_assets.api import as_line
from apt_assets.engine.display import Display
from apt_assets.report.frames import around, share
from docs import notebook
from tests import tiny


@pytest.fixture
def project(make_experiment) -> Project:
    return Project(make_experiment())


def test_importing_the_package_loads_nothing_heavy():
    heavy = "{'torch', 'polars', 'dagster', 'transformers', 'pydantic'}"
    looked = f"import sys, apt_assets; print({heavy} & set(sys.modules))"
    code = f"{looked}; apt_assets.Project; print({{'torch', 'dagster', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.split() == ["set()", "set()"]


@pytest.mark.parametrize(
    "given",
    [
        lambda rows: rows,
        lambda rows: iter(rows),
        pl.DataFrame,
        lambda rows: pl.DataFrame(rows).lazy(),
        pd.DataFrame,
    ],
    ids=["dicts", "iterator", "polars", "lazy", "pandas"],
)
def test_rows_of_a_program_land_as_a_file_and_bad_ones_are_told_by_their_number(project, given):
    landed = project.land(given([*tiny.domain_rows(4), {"prompt": "no answer?", "answer": None}]), name="from/code")
    assert (landed.good, landed.files["bad"].to_list()) == (4, [1])
    assert landed.files["landed"][0].startswith("from_code-")
    assert landed.quarantined.select("line", "field").rows() == [(5, "answer")]
    assert (project.home / "landing" / landed.files["landed"][0]).is_file()


def test_odd_cell_of_a_frame_costs_its_row_and_what_is_no_json_is_told_by_its_row(project):
    rows = tiny.domain_rows(4)
    given = pd.DataFrame(
        {**{name: [row[name] for row in rows] for name in ("prompt", "answer")}, "n": [1, "x", 2.5, None]}
    )
    given["answer"] = [*given["answer"][:3], object()]
    landed = project.land(given, name="odd")
    assert landed.good == 4, "of an object there is a text"
    for series in (pl.Series(tiny.domain_rows(2)), pd.Series(tiny.domain_rows(2))):
        assert project.land(series, dry_run=True).good == 2, "a column of rows"
    with pytest.raises(UsageError, match="rows: the column 'answer' is there twice"):
        project.land(pd.DataFrame([["q", "a", "b"]], columns=["prompt", "answer", "answer"]))
    with pytest.raises(UsageError, match="row 2: keys must be str"):
        project.land([*tiny.domain_rows(1), {**tiny.domain_rows(2)[1], (1, 2): 3}])


def as_lines(rows):
    return [json.loads(as_line(1, row)) for row in rows]


def test_arrays_of_a_program_are_lists_and_a_set_is_refused(project):
    rows = [{"prompt": "A?", "answer": np.array(["x", "y"])}, {"prompt": "B?", "answer": pd.Series(["z"])}]
    landed = project.land(rows)
    text = (project.home / "landing" / landed.files["landed"][0]).read_text()
    assert [json.loads(line)["answer"] for line in text.splitlines()] == [["x", "y"], ["z"]]
    odd = {"number": np.int64(3), "day": np.datetime64("2024-01-01"), "days": np.array(["2024-01-01"], "M8[ns]")}
    (as_read,) = as_lines([odd | {"share": np.float32(36.6)}])
    assert as_read == {"number": "3", "day": "2024-01-01", "days": ["2024-01-01T00:00:00.000000000"], "share": "36.6"}
    with pytest.raises(UsageError, match="row 1: a set has no order"):
        project.land([{"prompt": "C?", "answer": {"red"}}])


def test_files_land_by_their_paths_and_a_dry_run_lands_none(project, tmp_path):
    files = [tiny.write_jsonl(tmp_path / f"{n}.jsonl", tiny.domain_rows(9)[n : n + 3]) for n in (0, 3)]
    assert project.land(files, dry_run=True).good == 6
    assert not (tmp_path / "landing").exists()
    assert project.land(str(files[0])).good == 3
    assert len(list((tmp_path / "landing").iterdir())) == 1


def test_bytes_are_no_text_and_a_number_that_is_no_iteration_is_a_usage_error(project):
    with pytest.raises(UsageError, match="row 2: b'red' is bytes and no text"):
        project.land([{"prompt": "What?", "answer": "red"}, {"prompt": "Which?", "answer": b"red"}])
    for odd in (None, 5):
        with pytest.raises(UsageError, match=f"rows: give dicts, a frame or files; got {odd}"):
            project.land(odd)
    for name in ("a\0b", "x" * 300, "", "\ud83d", 5):
        with pytest.raises(UsageError, match="cannot be the name of a file"):
            project.land(tiny.domain_rows(1), name=name)
    for call in (lambda: project.approve(0, by="a", reason="b"), lambda: project.export("out", iteration=0)):
        with pytest.raises(UsageError, match="give a number such as 1"):
            call()
    for count in (0, -1, 1.5, "1", True, 10_000):
        for call in (project.run, project.plan):
            with pytest.raises(UsageError, match="iterations: give a number from 1 to 9999"):
                call(count)
    with pytest.raises(UsageError, match="export: 'all' is none of"):
        project.export("out", "all")


def test_rows_of_which_none_is_good_raise_what_the_command_line_says_with_the_reasons(project):
    with pytest.raises(NothingLanded, match="no file had a good row: nothing was landed") as caught:
        project.land({"question": "and no answer"})
    assert isinstance(caught.value, UsageError)
    assert caught.value.landed.quarantined["reason"].to_list() == ["missing"]


def test_experiment_may_be_a_dict_and_a_wrong_key_names_the_nearest(tiny_folder, tmp_path):
    content = tiny.experiment(tiny_folder)
    project = Project(content, home=tmp_path)
    assert (project.experiment.mining.questions, project.home) == (12, tmp_path)
    assert Project({"name": "a"}, home=tmp_path).experiment.policy.model == "embedded"
    with pytest.raises(UsageError, match=r"experiment: trainin: .* nearest valid key is training"):
        Project({**content, "trainin": {}}, home=tmp_path)
    with pytest.raises(UsageError, match=r"home: .* is no folder"):
        Project(content, home=tiny.write_jsonl(tmp_path / "file", []))


def test_plan_before_anything_landed_names_what_is_missing_and_run_what_to_do(project):
    planned = project.plan(1)
    assert planned.filter(stage="domain_dataset").select("iteration", "status", "why").rows() == [
        ("0001", "missing", "never computed")
    ]
    assert planned["seconds"].null_count() == planned.height
    with pytest.raises(UsageError, match=r"no data in .*: land some with"):
        project.run(display=Display())


def test_loop_of_a_dict_runs_in_a_home_of_its_own_and_what_it_found_comes_as_frames(tiny_folder, looked_at, tmp_path):
    content = tiny.experiment(tiny_folder)
    project = Project(content, home=tmp_path / "home")
    project.land(tiny.domain_rows(60))
    result = project.run(1, display=Display())
    assert result.passed, result.reason
    assert "preference_pairs" in result.computed.filter(iteration="0001")["stage"].to_list()
    assert result.computed["seconds"].min() >= 0
    assert result.reused.is_empty()
    again = project.run(1, display=Display())
    assert (again.computed.height, again.reused.height) == (0, result.computed.height)

    scores = project.scores()
    assert scores["iteration"].unique(maintain_order=True).to_list() == ["base", "0001"]
    test = scores.filter(of="test", measure="lenient", iteration="0001").row(0, named=True)
    assert 0 <= test["low"] <= test["score"] <= test["high"] <= 1
    assert test["n"] == project.rows("test", 1).height
    assert scores.filter(of="general: all", measure="accuracy")["n"].to_list() == [5, 5]

    bad = project.bad_cases(1)
    assert bad["grade"].max() < 4
    assert set(project.pairs(1).columns) >= {"prompt", "chosen", "rejected"}
    assert project.explain("bad_cases", 1)["status"] == "fresh"

    other = project.with_settings(assessor={"bad_below": 3})
    stale = other.plan(1).filter(status="stale")
    assert stale.select("stage", "why").rows() == [("bad_cases", "assessor.bad_below: 4 -> 3")]
    assert (project.plan(1)["status"] == "fresh").all()
    assert other.plan(1).filter(stage="adapter_checkpoint")["steps"][0] > 0
    assert project.export(tmp_path / "adapter") == "0001"
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 2


def test_scores_of_no_item_are_null_and_not_zero():
    assert share({"mean": 0.0, "low": 0.0, "high": 1.0, "n": 0}) == (None, None, None, 0)
    assert around(0.0, None, 0) == (None, None, None, 0)
    assert around(2.0, 0.5, 9)[1:3] == pytest.approx((1.02, 2.98))


def test_asking_for_rows_that_are_not_there_names_those_that_are(ran):
    project = Project(ran(1))
    with pytest.raises(UsageError, match=r"did you mean bad_cases\?"):
        project.rows("bad_case", 1)
    with pytest.raises(UsageError, match="has nothing yet"):
        project.rows("bad_cases", 3)
    assert project.rows("promoted_adapter", 1).columns == ["key", "value"]


def test_cells_of_the_notebook_run_from_top_to_bottom_and_what_it_keeps_is_small(make_experiment, looked_at, tmp_path):
    made = json.loads(notebook.NOTEBOOK.read_text(encoding="utf-8"))
    assert all("".join(cell["outputs"][0]["text"]) for cell in notebook.code_cells(made))
    assert notebook.NOTEBOOK.stat().st_size < 40_000
    make_experiment().rename(tmp_path / "experiment.yaml")
    shutil.copytree(looked_at, tmp_path / "home" / ".apt")
    with contextlib.chdir(tmp_path):
        notebook.fill(made)
    shown = ["".join(cell["outputs"][0]["text"]) for cell in notebook.code_cells(made)]
    assert "messages-" in shown[1]
    assert any(text.startswith("True - ") for text in shown)
    assert "assessor.bad_below: 4 -> 3" in shown[-2]
    assert (tmp_path / "my-adapter" / "adapter_model.safetensors").is_file()
