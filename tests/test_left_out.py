"""Rows that landed and are not in the data set: which they are, and that `land` and `run` say so."""

import json

import pytest
from typer.testing import CliRunner

from apt_assets.assets.domain_dataset import domain_of
from apt_assets.cli import app
from apt_assets.engine.execute import run_stage
from apt_assets.method.left_out import AGAIN, BAD, REASONS, in_words
from apt_assets.project import Project
from apt_assets.report import left_out as telling
from apt_assets.settings.experiment import Experiment
from tests import tiny

DOSES = {17: "5 to 10 mg", 23: "none", 31: "10:30"}
CONTRADICT, UNGRADABLE = REASONS["contradicts "], REASONS["cannot be graded by "]


def experiment(**assessor):
    data = {"validation": 0.2, "test": 0.2, "near_duplicate_words": None}
    return Experiment.model_validate({"name": "x", "data": data, "assessor": assessor})


def domain(tmp_path, rows, **assessor):
    """(tables, counts) of the rows as one landed file."""
    return domain_of(experiment(**assessor), [tiny.write_jsonl(tmp_path / "landing" / "rows.jsonl", rows)])


def kept(tables):
    return sum(tables[split].height for split in ("train", "validation", "test"))


def doses():
    return [{"prompt": f"Dose for case {n}?", "answer": DOSES.get(n, f"{n} mg")} for n in range(40)]


@pytest.mark.parametrize(
    "assessor",
    [{"kind": "numeric"}, {"kind": "combined", "combined": {"weights": {"labels": 1, "numeric": 2}}}],
    ids=["numeric", "combined"],
)
def test_rows_that_the_assessor_cannot_grade_are_all_quarantined_with_the_reason_and_the_others_go_on(
    tmp_path, assessor
):
    tables, counts = domain(tmp_path, doses(), **assessor)
    assert kept(tables) == 37
    assert counts == {UNGRADABLE: 3}
    found = {raw.split(" -> ")[1]: (field, reason) for _, _, field, reason, raw in tables["quarantine"].rows()}
    assert set(found) == set(DOSES.values())
    assert {field for field, _ in found.values()} == {"answer"}
    assert all(reason.startswith("cannot be graded by numeric: must hold one number") for _, reason in found.values())
    assert list(in_words(counts)) == ["3 rows left out: an answer that the assessor cannot grade"]


def test_assessor_that_grades_any_gold_leaves_all_rows_in(tmp_path):
    for kind in ("labels", "exact", "overlap"):
        tables, counts = domain(tmp_path, doses(), kind=kind)
        assert (kept(tables), counts) == (40, {})


def test_list_without_items_is_quarantined_by_the_separator_that_is_set(tmp_path):
    rows = [{"prompt": "Which?", "answer": ", ;"}, {"prompt": "And now?", "answer": "red, blue"}]
    assert domain(tmp_path, rows, kind="set_f1")[1] == {UNGRADABLE: 1}
    assert domain(tmp_path, rows, kind="set_f1", set_f1={"separator": "-"})[1] == {}


def test_row_that_cannot_be_graded_takes_no_good_row_with_it(tmp_path):
    rows = [{"prompt": "Dose?", "answer": "none"}, {"prompt": "Dose?", "answer": "5 mg"}]
    tables, counts = domain(tmp_path, rows, kind="numeric")
    assert kept(tables) == 1
    assert counts == {UNGRADABLE: 1}


def test_every_row_that_landed_is_kept_or_counted_with_its_reason(tmp_path):
    rows = [
        {"prompt": "One?", "answer": "a"},
        {"prompt": "one", "answer": "a"},
        {"prompt": "Two?", "answer": "a"},
        {"prompt": "Two!", "answer": "b"},
        {"prompt": "Three?", "answer": "a", "split": "test"},
        {"prompt": "three", "answer": "a", "split": "train"},
        {"prompt": "Four?"},
    ]
    tables, counts = domain(tmp_path, rows)
    assert counts == {AGAIN: 1, CONTRADICT: 1, REASONS["held out by "]: 1, BAD: 1}
    assert kept(tables) + sum(counts.values()) == len(rows)


@pytest.mark.parametrize("field", ["input", "context", "passage"])
@pytest.mark.parametrize("answers", [["chien", "chat", "vache"], ["oui", "oui", "oui"]], ids=["other", "same"])
def test_rows_of_one_prompt_whose_other_text_differs_are_told_with_the_field(tmp_path, field, answers):
    rows = [
        {"prompt": "Is it so?", field: f"Rule {n}", "answer": answer, "source": "web"}
        for n, answer in enumerate(answers)
    ]
    tables, counts = domain(tmp_path, rows)
    assert kept(tables) == 1
    assert sum(counts.values()) == tables["quarantine"].height == 2
    assert all(f"{field} differs and is no part of the question: put it into `prompt`" in kind for kind in counts)


def test_repeated_row_with_another_note_or_source_is_a_plain_repetition(tmp_path):
    rows = [{"prompt": "Is it so?", "answer": "yes", "note": note, "id": n} for n, note in enumerate("ab")]
    tables, counts = domain(tmp_path, rows)
    assert counts == {AGAIN: 1}
    assert tables["quarantine"].is_empty()


# -- what people are told ------------------------------------------------------------------------


@pytest.fixture
def apt(make_experiment, tmp_path):
    """A function (command, *arguments) -> its output, with an experiment that grades by numbers."""
    path = make_experiment(assessor={"kind": "numeric"})
    rows = [*doses(), {"prompt": "Dose for case 1!", "answer": "7 mg"}]
    tiny.write_jsonl(tmp_path / "doses.jsonl", rows)

    def run(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments), "-e", str(path)])
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_land_names_the_rows_that_the_data_set_will_leave_out_and_says_why(apt, tmp_path, monkeypatch):
    said = apt("land", tmp_path / "doses.jsonl")
    assert "of all that has landed, 3 rows left out: an answer that the assessor cannot grade" in said
    assert "of all that has landed, 1 row left out: the same question as another row" in said
    for answer in DOSES.values():
        assert f"-> {answer}" in said
    (told,) = json.loads(apt("land", tmp_path / "doses.jsonl", "--json"))
    assert told["left_out"] == {UNGRADABLE: 3, CONTRADICT: 1}
    monkeypatch.setattr(telling, "MOST_BYTES", 100)
    assert "`run` says which rows the data set leaves out" in apt("land", tmp_path / "doses.jsonl")


def test_run_tells_what_the_data_set_left_out_by_what_the_stage_noted(apt, tmp_path, make_experiment):
    apt("land", tmp_path / "doses.jsonl")
    project = Project.open(make_experiment(assessor={"kind": "numeric"}))
    assert telling.lines_of_run(project) == []
    project.open_iteration("0001")
    manifest = run_stage(project, "0001", "domain_dataset", run_id="r").manifest
    assert manifest.facts["left_out"] == {UNGRADABLE: 3, CONTRADICT: 1}
    assert telling.lines_of_run(project) == [
        "iteration 0001: 3 rows left out: an answer that the assessor cannot grade",
        "iteration 0001: 1 row left out: the same question as another row, and another answer",
        "`apt-assets show quarantine 1` lists them",
    ]


def test_held_out_rows_are_gradable_too_and_another_assessor_makes_them_anew(make_experiment, tmp_path):
    tiny.write_jsonl(tmp_path / "landing" / "doses.jsonl", doses())
    project = Project.open(make_experiment(assessor={"kind": "numeric"}))
    run_stage(project, "base", "heldout_rows", run_id="r")
    assert project.planner().stage("base", "heldout_rows").status == "fresh"
    other = Project.open(make_experiment(assessor={"kind": "numeric", "numeric": {"relative_tolerance": 0.5}}))
    assert other.planner().stage("base", "heldout_rows").status == "fresh", "a tolerance decides no gold"
    exact = Project.open(make_experiment(assessor={"kind": "exact"}))
    (cause,) = exact.planner().stage("base", "heldout_rows").causes
    assert cause.startswith("assessor.gold_checks: ")


def test_another_assessor_that_grades_any_gold_leaves_the_data_set_as_it_is(make_experiment, tmp_path):
    tiny.write_jsonl(tmp_path / "landing" / "doses.jsonl", doses())
    run_stage(Project.open(make_experiment()), "base", "heldout_rows", run_id="r")
    for assessor in ({"kind": "exact"}, {"kind": "combined", "combined": {"weights": {"labels": 1, "overlap": 3}}}):
        other = Project.open(make_experiment(assessor=assessor))
        assert other.planner().stage("base", "heldout_rows").status == "fresh", assessor
