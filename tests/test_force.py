"""`run --force`: a fresh stage is computed once more on purpose, and whoever reads the journal sees that it was."""

import shutil

import pytest

from apt_assets.engine.display import Display
from apt_assets.orchestration.run import run_loop, run_project
from apt_assets.report.show import stage_at
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import BASE
from tests import tiny
from tests.conftest import BOTH_TASKS

pytestmark = pytest.mark.slow("loop")


@pytest.fixture
def project(finished, tiny_folder, tmp_path):
    """Two promoted iterations, to be changed."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tiny.open_project(tmp_path, tiny_folder, **BOTH_TASKS)


def test_forced_stage_is_computed_once_more_its_rows_too_and_the_journal_says_that_it_was_asked_for(project):
    before = project.store.pointed("tiny", "0001", "eval_predictions")
    project.forced.add(stage_at(project, "eval_predictions@1"))
    plan = project.planner().stage("0001", "eval_predictions")
    assert (plan.status, plan.causes) == ("stale", ["it was asked for (run --force)"])
    assert project.planner().stage("0001", "bad_cases").status == "waiting"
    result = run_loop(project, 2, Display())
    assert result.passed
    assert result.computed == [("0001", "eval_predictions")], "it came out the same, so nothing below ran"
    after = project.store.pointed("tiny", "0001", "eval_predictions")
    asked = before.work["answers"]["reused"] + before.work["answers"]["computed"]
    assert after.work["answers"] == {"reused": 0, "computed": asked}
    assert after.data_version == before.data_version
    misses = [event for event in project.store.events("miss") if event["run_id"] == after.run_id]
    assert [(event["stage"], event["reason"]) for event in misses] == [
        ("eval_predictions", ["it was asked for (run --force)"])
    ]
    assert project.forced == set()
    assert run_loop(project, 2, Display()).computed == [], "once"


def test_forced_stage_that_the_run_does_not_come_to_is_told_and_is_no_success(project):
    result = run_project(project, 1, ["bad_cases@2"], Display())
    assert not result.passed
    assert result.reason.startswith("bad_cases of 0002 was asked for and did not run: ")
    assert project.planner().stage("0002", "bad_cases").status == "fresh", "it was asked for of that run alone"


def test_forced_stage_without_an_iteration_is_that_of_the_last_one_or_of_base(project):
    assert stage_at(project, "bad_cases") == ("0002", "bad_cases")
    assert stage_at(project, "base_scores") == (BASE, "base_scores")
    assert stage_at(project, "base_scores@base") == (BASE, "base_scores")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("bad_case", r"'bad_case' is not a stage of 0002 \(did you mean bad_cases\?\); there are: domain_dataset, "),
        ("base_scores@1", "'base_scores' is not a stage of 0001"),
        ("bad_cases@7", r"iteration 0007 was not opened yet \(opened: 0001, 0002\)"),
        ("bad_cases@x", "iteration: give a number such as 1, or base; got 'x'"),
    ],
)
def test_forced_stage_that_is_not_there_is_an_error_that_names_those_there_are(project, named, said):
    with pytest.raises(UsageError, match=said):
        stage_at(project, named)
