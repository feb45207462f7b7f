"""The judge judged: statistics on made-up judges, human grades from files, and what the gate makes of both."""

import dataclasses
import json
import re

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score

from apt_assets.engine.execute import run_stage
from apt_assets.landing.human_grades import read_human_grades
from apt_assets.method.gate import Judge
from apt_assets.method.judge import (
    Confusion,
    calibration,
    confusion_of,
    corrected,
    corrected_difference,
    corrected_share,
    one_grade_each,
)
from apt_assets.method.scores import wilson
from apt_assets.project import Project
from apt_assets.report.findings import findings
from apt_assets.report.model_card import Names, model_card
from apt_assets.report.page import page
from apt_assets.report.terminal import print_results
from resources.assessors.golds import ungradable
from resources.assessors.numeric import no_one_number
from resources.store.tables import read_table
from tests import tiny
from tests.fake_endpoint import naive, serve
from tests.test_method import verdict

ONES = [True] * 400

# -- a made-up judge -----------------------------------------------------------------------------


@dataclasses.dataclass
class MadeUp:
    """A judge that calls a right answer right, and a wrong one wrong, with these chances."""

    sensitivity: float
    specificity: float
    random: np.random.Generator

    def says(self, truth):
        chance = self.random.random(len(truth))
        return np.where(truth, chance < self.sensitivity, chance >= self.specificity)

    def confusion(self, rows, right):
        truth = self.random.random(rows) < right
        return confusion_of(as_grades(truth), as_grades(self.says(truth)))


def card(project):
    return model_card(project, project.planner(), "0001", Names.here(project), merged=False)


def as_grades(right):
    return pl.Series(np.where(right, 5, 2))


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "human", "rows"),
    [(0.9, 0.85, 100, 200), (0.97, 0.9, 200, 400), (0.85, 0.8, 60, 250), (1.0, 0.95, 50, 100)],
)
def test_intervals_cover_the_truth_whatever_the_judge_gets_wrong(sensitivity, specificity, human, rows):
    """Of 200 made-up loops each: accuracy by people of 0.8 after and 0.65 before, two thirds of the items alike."""
    judge = MadeUp(sensitivity, specificity, np.random.default_rng(5))
    shares = lows = highs = 0
    for _ in range(200):
        known = judge.confusion(human, 0.7)
        after, other, alike = judge.random.random((3, rows))
        before = np.where(alike < 2 / 3, after, other)
        after, before = judge.says(after < 0.8), judge.says(before < 0.65)
        share = corrected_share(int(after.sum()), rows, known)
        shares += share["low"] <= 0.8 <= share["high"]
        _, low, high = corrected_difference(pl.Series(after.astype(float) - before), known, 0.95, 500)
        lows, highs = lows + (low <= 0.15), highs + (high >= 0.15)
    assert shares / 200 >= 0.91, "95 % is meant, and 91 % is three standard errors below"
    assert min(lows, highs) / 200 >= 0.91


@pytest.mark.parametrize("accuracy", [0.02, 0.98])
def test_interval_covers_a_share_that_the_errors_of_the_judge_could_explain_alone(accuracy):
    judge, covered = MadeUp(0.9, 0.85, np.random.default_rng(2)), 0
    for _ in range(200):
        known = judge.confusion(100, 0.5)
        if known.corrects:
            share = corrected_share(int(judge.says(judge.random.random(200) < accuracy).sum()), 200, known)
            covered += share["low"] <= accuracy <= share["high"]
    assert covered / 200 >= 0.91


def test_share_of_which_the_judge_found_nothing_has_a_width():
    known = Confusion(both=40, people_only=10, judge_only=8, neither=42)
    none, all_of_them = corrected_share(0, 100, known), corrected_share(100, 100, known)
    assert (none["mean"], none["low"], all_of_them["mean"], all_of_them["high"]) == (0, 0, 1, 1)
    assert 0.02 < none["high"] < 0.08
    assert 0.92 < all_of_them["low"] < 0.98


def test_interval_of_the_sample_alone_misses_the_truth_where_the_judge_errs():
    judge, covered = MadeUp(0.97, 0.8, np.random.default_rng(1)), 0
    for _ in range(200):
        said = judge.says(judge.random.random(400) < 0.7)
        covered += wilson(int(said.sum()), 400)["low"] <= 0.7 <= wilson(int(said.sum()), 400)["high"]
    assert covered / 200 < 0.8, "or there is nothing to correct"


def test_kappa_is_that_of_scikit_learn_and_its_interval_holds_it():
    random = np.random.default_rng(2)
    people = random.integers(1, 6, 80)
    judge = np.clip(people + random.integers(-1, 2, 80), 1, 5)
    found = calibration(pl.Series(people), pl.Series(judge))
    assert found["kappa"]["value"] == pytest.approx(cohen_kappa_score(people >= 4, judge >= 4))
    assert found["weighted_kappa"] == pytest.approx(cohen_kappa_score(people, judge, weights="quadratic"))
    assert found["kappa"]["low"] < found["kappa"]["value"] < found["kappa"]["high"]
    assert np.array(found["table"]).sum() == found["rows"] == 80
    assert found["table"][1][2] == sum((people == 2) & (judge == 3))


def test_grade_counts_where_any_of_the_golds_can_be_graded_against(tmp_path):
    line = {"prompt": "How many?", "answer": "5", "by": "Anna", "at": "2026-11-29T10:00:00Z", "grade": 5}
    golds = [{"gold": "five", "also": ["5"]}, {"gold": "five", "also": ["many"]}]
    path = tiny.write_jsonl(tmp_path / "grades.jsonl", [line | gold for gold in golds])
    rows, rejects = read_human_grades([path], no_one_number)
    assert (rows.height, [(bad.line, bad.field) for bad in rejects]) == (1, [(2, "gold")])


def test_few_rows_without_a_fault_do_not_show_a_judge_without_one():
    few, many = Confusion(both=5, neither=5), Confusion(both=50, neither=50)
    assert few.kappa == many.kappa == 1
    assert few.kappa_interval(0.95)[0] < 0.6 < many.kappa_interval(0.95)[0]


def test_judge_and_people_who_find_everything_right_show_no_agreement_beyond_chance():
    unanimous = Confusion(both=100)
    assert unanimous.kappa == 0
    assert unanimous.kappa_interval(0.95)[0] < 0.2
    assert not unanimous.corrects


def test_correction_divides_a_difference_and_keeps_its_sign():
    judge = Confusion(both=45, people_only=5, judge_only=10, neither=40)  # J = 0.9 + 0.8 - 1
    difference, low, high = corrected_difference(pl.Series([1.0] * 30 + [0.0] * 60 + [-1.0] * 10), judge, 0.95, 500)
    assert difference == pytest.approx(0.2 / 0.7)
    assert low < difference < high
    assert corrected(0.2 + 0.7 * 0.5, judge) == pytest.approx(0.5)
    assert corrected(0.1, judge) == 0, "fewer than a judge calls right by mistake"


def test_gate_compares_and_bounds_what_people_would_have_found():
    def domain_of(judge):
        return verdict([True] * 70 + [False] * 30, [True] * 50 + [False] * 50, ONES, ONES, judge=judge)["checks"][0]

    perfect, erring = Confusion(both=400, neither=400), Confusion(both=45, people_only=5, judge_only=10, neither=40)
    plain, same, wider = domain_of(None), domain_of(Judge(perfect, 0.6)), domain_of(Judge(erring, 0.1))
    assert same["difference"] == pytest.approx(plain["difference"]) == pytest.approx(0.2)
    assert wider["difference"] == pytest.approx(0.2 / 0.7)
    assert wider["candidate"] == pytest.approx((0.7 + 0.8 - 1) / 0.7)
    assert wider["high"] - wider["low"] > (plain["high"] - plain["low"]) / 0.7, "the judge's own chance is in it"
    assert "corrected for the judge" in wider["against"]
    assert "corrected" not in plain["against"]


def test_gate_does_not_correct_by_people_who_found_nothing_wrong():
    found = verdict([True] * 20, [False] * 20, ONES, ONES, judge=Judge(Confusion(both=60, people_only=4), 0.6))
    assert found["checks"][0]["difference"] == 1
    assert "corrected" not in found["checks"][0]["against"]
    assert not found["passed"]


# -- human grades --------------------------------------------------------------------------------


def human(prompt, answer, gold, grade, by="ann", at="2026-01-31T14:00:00Z", **more):
    return {"prompt": prompt, "answer": answer, "gold": gold, "grade": grade, "by": by, "at": at, **more}


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"grade": 6}, "grade", "from 1 to 5, got 6"),
        ({"grade": "4"}, "grade", "from 1 to 5, got '4'"),
        ({"grade": True}, "grade", "got True"),
        ({"at": "yesterday"}, "at", "as ISO 8601 has it"),
        ({"by": " "}, "by", "empty"),
        ({"gold": None}, "gold", "missing"),
        ({"prompt": ["a"]}, "prompt", "must be text"),
        ({"answer": "a\x00"}, "answer", "holds a NUL"),
    ],
)
def test_line_that_is_no_grade_is_put_aside_with_file_line_field_and_reason(tmp_path, change, field, reason):
    good = human("Sky?", "blue", "blue", 5)
    path = tiny.write_jsonl(tmp_path / "ann.jsonl", [good, {**good, **change}, good])
    rows, (reject,) = read_human_grades([path])
    assert rows.height == 2
    assert (reject.file, reject.line, reject.field) == ("ann.jsonl", 2, field)
    assert reason in reject.reason


def test_gold_that_the_assessor_cannot_grade_against_is_put_aside(tmp_path):
    path = tiny.write_jsonl(
        tmp_path / "ann.jsonl", [human("Dose?", "5 mg", "none", 1), human("Dose?", "5 mg", "5 mg", 5)]
    )
    rows, (reject,) = read_human_grades([path], ungradable({"numeric": None}))
    assert rows["gold"].to_list() == ["5 mg"]
    assert (reject.line, reject.field) == (1, "gold")
    assert "cannot be graded by numeric" in reject.reason


def test_broken_json_costs_its_line_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(human("Sky?", "", "blue", 1)) + '\n{"prompt": \n[1]\n\n')
    rows, rejects = read_human_grades([path])
    assert rows["answer"].to_list() == [""], "a policy may say nothing"
    assert [reject.line for reject in rejects] == [2, 3]


def test_latest_grade_of_a_person_counts_and_the_lower_median_of_several(tmp_path):
    asked = ("Sky?", "bluish", "blue")
    rows = [
        human(*asked, 1, at="2026-02-01T09:30:00+02:00"),
        human(*asked, 5, at="2026-02-01T08:00:00Z"),
        human(*asked, 4, by="bob"),
        human("Coal?", "black", "black", 5),
        human(*asked, 2, by="eve"),
        human(*asked, 2, by="joe"),
    ]
    found = one_grade_each(read_human_grades([tiny.write_jsonl(tmp_path / "all.jsonl", rows)])[0])
    assert found.select("prompt", "grade", "by").rows() == [("Sky?", 2, "ann, bob, eve, joe"), ("Coal?", 5, "ann")]


# -- in the loop ---------------------------------------------------------------------------------

CALIBRATED = {"calibration": {"folder": "human-grades"}}


def graded(count, *, wrong_about=0, rows_right=0.5):
    """Grades of as many answers: of `wrong_about` of them people say the contrary of what the labels say."""
    rows = []
    for n, row in enumerate(tiny.domain_rows(count)):
        right = n % 10 < 10 * rows_right
        answer = row["answer"] if right else "pink"
        grade = 5 if right != (n < wrong_about) else 1
        rows.append(human(row["prompt"], answer, row["answer"], grade))
    return rows


def bring(project, *stages):
    """Run these stages, of the first iteration or of base; the last one's manifest."""
    for name in stages:
        key = "base" if name == "judge_calibration" else "0001"
        manifest = run_stage(project, key, name, run_id="r", log=lambda line: None).manifest
    return manifest


def write_grades(project, rows):
    tiny.write_jsonl(project.home / "human-grades" / "ann.jsonl", rows)


def test_experiment_without_calibration_has_no_check_of_its_judge(ran):
    project = Project.open(ran(1))
    write_grades(project, graded(20, wrong_about=10))
    planner = project.planner()
    assert planner.stage("base", "judge_calibration").status == "fresh", "files that nobody names count for nothing"
    verdict = planner.verdict("0001")
    assert "judge" not in {check["name"] for check in verdict["checks"]}
    assert "corrected" not in verdict["reason"]


def test_judge_that_agrees_may_gate_and_the_domain_is_told_as_people_would_have_found_it(ran):
    project = Project.open(ran(1, assessor=CALIBRATED))
    write_grades(project, graded(100, wrong_about=4))
    bring(project, "judge_calibration", "gate")
    verdict = project.planner().verdict("0001")
    domain, judge = verdict["checks"][0], verdict["checks"][-1]
    assert verdict["passed"]
    assert (judge["name"], judge["items"], judge["passed"]) == ("judge", 100, True)
    assert judge["candidate"] == pytest.approx(0.92)
    assert "corrected for the judge" in domain["against"]


def test_report_status_and_card_show_the_confusion_and_scores_that_cover_the_judge(ran, capsys):
    project = Project.open(ran(1, assessor=CALIBRATED))
    write_grades(project, graded(100, wrong_about=4))
    bring(project, "judge_calibration", "gate", "promoted_adapter")
    found = findings(project)
    last = found["iterations"][-1]
    measured, corrected = last["scores"]["domain"]["test"]["lenient"], last["by_people"]["test"]
    assert corrected["n"] == measured["n"]
    assert corrected["high"] - corrected["low"] != measured["high"] - measured["low"]
    html = page(found)
    assert "agree on 96.0 [" in html
    assert found["judge"]["table"][0][4] == 4, "those that people call wrong and it calls right"
    assert re.search(r'<td>people: 1</td>(\s*<td class="n">\d+</td>){4}\s*<td class="n">4</td>', html)
    print_results(found)
    assert "kappa 0.92 [" in capsys.readouterr().out
    assert "domain, test, corrected for the judge %" in card(project)


def test_judge_below_the_floor_may_mine_and_may_not_gate(ran):
    project = Project.open(ran(1, assessor=CALIBRATED))
    write_grades(project, graded(60, wrong_about=14))
    bring(project, "judge_calibration", "gate")
    planner = project.planner()
    assert not planner.verdict("0001")["passed"]
    assert "judge refused: 0.53 against 0.60 of the floor of kappa" in planner.verdict("0001")["reason"]
    assert planner.verdict("0001")["scales"] == [], "at another scale the judge is the same"
    assert planner.stage("0001", "promoted_adapter").status == "refused"
    mined = ("eval_predictions", "bad_cases", "similar_predictions", "preference_pairs", "adapter_checkpoint")
    assert {planner.stage("0001", name).status for name in mined} == {"fresh"}


def test_lower_floor_lets_the_same_judge_gate_and_nothing_is_graded_again(ran, make_experiment):
    project = Project.open(ran(1, assessor=CALIBRATED))
    write_grades(project, graded(60, wrong_about=14))
    bring(project, "judge_calibration", "gate")
    lower = Project.open(make_experiment(assessor={"calibration": {"folder": "human-grades", "floor": 0.2}}))
    assert lower.planner().stage("base", "judge_calibration").status == "fresh"
    assert lower.planner().stage("0001", "gate").causes == ["assessor.calibration.floor: 0.6 -> 0.2"]
    bring(lower, "gate")
    assert lower.planner().verdict("0001")["passed"]


def test_calibration_without_a_grade_refuses_and_says_what_to_bring(ran):
    project = Project.open(ran(1, assessor=CALIBRATED))
    bring(project, "judge_calibration", "gate")
    assert (
        "judge refused: there is no item to compare on (put grades into" in project.planner().verdict("0001")["reason"]
    )


def test_bad_lines_are_listed_and_the_others_count(ran):
    project = Project.open(ran(1, assessor=CALIBRATED))
    write_grades(project, [*graded(10), human("Sky?", "blue", "blue", 9)])
    manifest = bring(project, "judge_calibration")
    refused = read_table(project.store.open(manifest) / "refused_grades.parquet")
    assert refused.select("file", "line", "field").rows() == [("ann.jsonl", 11, "grade")]
    assert manifest.facts["rows"] == 10
    assert manifest.facts["refused"] == 1


def test_answer_that_says_a_further_gold_is_graded_against_all_golds_of_its_line(ran):
    project = Project.open(ran(1, assessor=CALIBRATED))
    row = human("Colour of salmon?", "pink", "red", 5)
    write_grades(project, [*graded(10), row, {**row, "prompt": "Colour of trout?", "also": ["pink"]}])
    manifest = bring(project, "judge_calibration")
    judged = read_table(project.store.open(manifest) / "judged_answers.parquet")
    assert dict(judged.filter(prediction="pink", human=5).select("prompt", "judge").rows())["Colour of trout?"] == 5
    assert dict(judged.select("prompt", "judge").rows())["Colour of salmon?"] < 4


@pytest.mark.parametrize("also", ["pink", [1, {}], [""]])
def test_further_golds_that_are_no_list_of_texts_are_named(tmp_path, also):
    line = {**human("Sky?", "blue", "blue", 5), "also": also}
    _, (reject,) = read_human_grades([tiny.write_jsonl(tmp_path / "all.jsonl", [line])])
    assert reject.field == "also"


def test_calibration_is_stale_by_another_rubric_or_grade_and_grades_only_what_is_new(ran, make_experiment):
    ran(1)
    with serve(naive) as server:

        def calibrated(**rubric):
            settings = {"endpoint": server.url, "model": "m", "requests_per_minute": None, "samples": 1, **rubric}
            return Project.open(make_experiment(assessor={"kind": "rubric", "rubric": settings, **CALIBRATED}))

        project = calibrated()
        write_grades(project, graded(20))
        first = bring(project, "judge_calibration")
        assert first.work["grades"] == {"reused": 0, "computed": 20}
        assert first.facts["kappa"]["value"] == 1, "this model calls right what is the gold"
        write_grades(project, graded(24))
        assert project.planner().stage("base", "judge_calibration").causes[0].startswith("human_grades: ")
        assert bring(project, "judge_calibration").work["grades"] == {"reused": 20, "computed": 4}
        other = calibrated(text="Grade it from 1 to 5.")
        assert other.planner().stage("base", "judge_calibration").status == "stale"
        assert bring(other, "judge_calibration").work["grades"] == {"reused": 0, "computed": 24}
