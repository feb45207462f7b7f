"""How an experiment chooses, combines and caches its assessors."""

import dataclasses
import shutil

import pytest

import apt_assets.assets.order  # noqa: F401 - declares the stages
from apt_assets.engine.execute import run_stage
from apt_assets.project import Project
from apt_assets.rows.grades import combine
from apt_assets.settings.experiment import Experiment, UsageError
from apt_assets.settings.reader import load_experiment
from resources.assessors import in_parts
from tests import tiny
from tests.fake_endpoint import always, naive, serve

# -- combined ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grades", "weights", "expected"),
    [
        ((5, 1), (1, 1), 3),
        ((5, 1), (3, 1), 4),
        ((4, 3), (1, 1), 3),  # a half is rounded down
        ((4, 3), (0.1, 0.1), 3),
        ((4, 3), (2, 1), 4),
        ((2,), (0.3,), 2),
    ],
)
def test_combined_grade_is_the_weighted_mean(grades, weights, expected):
    assert combine([[[one, False]] for one in grades], list(weights)) == [(expected, False)]


def test_combined_row_is_exact_if_one_kind_says_so():
    assert combine([[[2, False]], [[5, True]]], [1, 1]) == [(3, True)]


# -- in the loop ---------------------------------------------------------------------------------


@pytest.fixture
def mine(make_experiment, tmp_path):
    """A function (**settings of the assessor) -> (project, manifest of eval_predictions)."""
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(40))

    def run(**assessor):
        project = Project.open(make_experiment(assessor=assessor))
        project.open_iteration("0001")
        for name in ("domain_dataset", "policy", "eval_predictions"):
            outcome = run_stage(project, "0001", name, run_id="r", log=lambda line: None)
        return project, outcome.manifest

    return run


def grades_of(project, manifest):
    from resources.store.tables import read_table

    return read_table(project.store.open(manifest) / "eval_predictions.parquet")["grade"].to_list()


def rubric(server, **more):
    return {"kind": "rubric", "rubric": {"endpoint": server.url, "model": "m", "requests_per_minute": None, **more}}


def test_grades_of_one_kind_are_none_of_another(mine):
    """One store, the same rows: each kind grades all of them once, and finds its own again."""
    kinds = [{"kind": "labels"}, {"kind": "exact"}, {"kind": "set_f1"}, {"kind": "overlap"}]
    kinds += [{"kind": "overlap", "overlap": {"metric": "chrf"}}, {"kind": "set_f1", "set_f1": {"separator": "-"}}]
    for settings in kinds:
        assert mine(**settings)[1].work["grades"] == {"reused": 0, "computed": 12}, settings


def test_numeric_assessor_on_text_leaves_no_row_and_says_why(mine):
    with pytest.raises(UsageError, match=r"no training rows .*; 40 rows left out: an answer"):
        mine(kind="numeric")


def test_new_weights_combine_the_grades_that_are_there(mine):
    _, first = mine(kind="combined", combined={"weights": {"labels": 1.0, "overlap": 1.0}})
    assert first.work["grades"] == {"reused": 0, "computed": 24}
    _, second = mine(kind="combined", combined={"weights": {"labels": 3.0, "overlap": 1.0}})
    assert second.work["grades"] == {"reused": 24, "computed": 0}
    _, alone = mine(kind="overlap")
    assert alone.work["grades"] == {"reused": 12, "computed": 0}


def test_plan_counts_a_grade_of_each_kind(mine, make_experiment):
    from apt_assets.loop.work import work_of

    mine(kind="labels")
    weights = {"weights": {"labels": 1, "exact": 1}}
    both = Project.open(make_experiment(assessor={"kind": "combined", "combined": weights}))
    planner = both.planner()
    work = work_of(both, planner, planner.stage("0001", "eval_predictions"))
    assert (work.amounts, work.exact) == ({"answers": 0, "grades": 12}, True), "those by labels are there"


def test_rubric_grades_a_row_once_whatever_the_way_to_reach_the_endpoint(mine, monkeypatch):
    with serve(naive) as server:
        project, first = mine(**rubric(server))
        assert grades_of(project, first) == [1] * 12
        assert len(server.requests) == 12
        for changes in ({"in_flight": 2}, {"timeout": 9.0}, {"max_attempts": 2}, {"key_variable": "MY_KEY"}):
            assert mine(**rubric(server, **changes))[1] == first, changes
        assert len(server.requests) == 12
        for changes in ({"text": "Be kind."}, {"model": "n"}, {"samples": 5}, {"temperature": 1.0}):
            assert mine(**rubric(server, **changes))[1].work["grades"] == {"reused": 0, "computed": 12}, changes
        assert mine(**rubric(server), bad_below=3)[1].work["grades"]["computed"] == 12, "other grades are near it"
    with serve(naive) as server:
        assert mine(**rubric(server))[1].work["grades"]["computed"] == 12, "another endpoint is another grader"


def test_api_key_is_sent_and_written_nowhere(mine, monkeypatch, tmp_path):
    key = "sk-a-secret-that-must-not-appear"
    monkeypatch.setenv("MY_KEY", key)
    with serve(naive) as server:
        mine(**rubric(server, key_variable="MY_KEY"))
        assert {sent["Authorization"] for sent in server.headers} == {f"Bearer {key}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if key.encode() in path.read_bytes()] == []


def test_what_was_graded_before_an_endpoint_failed_is_not_asked_for_again(mine, monkeypatch):
    from apt_assets.rows import grades as grading

    def in_fours(assessor, rows):
        return in_parts(dataclasses.replace(assessor, at_once=4), rows)

    monkeypatch.setattr(grading, "in_parts", in_fours)

    def answer(body):
        return (400, {}, "no more credit") if len(server.requests) == 10 else naive(body)

    with serve(answer) as server:
        with pytest.raises(UsageError, match="400: 'no more credit'"):
            mine(**rubric(server, in_flight=1))
        assert mine(**rubric(server, in_flight=1))[1].work["grades"] == {"reused": 8, "computed": 4}


def test_local_grader_that_is_overwritten_in_place_grades_anew(mine, tiny_folder, tmp_path):
    folder = tiny.make_policy(tmp_path / "grader", positions=2048)  # the rubric takes a thousand tokens
    settings = {"kind": "rubric", "rubric": {"model": "grader"}}
    project, first = mine(**settings)
    assert first.work["grades"] == {"reused": 0, "computed": 12}
    tiny.make_policy(folder, seed=1, positions=2048)
    causes = project.planner().stage("0001", "eval_predictions").causes
    assert [cause.partition(":")[0] for cause in causes] == ["grader", "grader_execution"]
    assert mine(**settings)[1].work["grades"] == {"reused": 0, "computed": 12}
    shutil.copyfile(tiny_folder / "policy" / "model.safetensors", folder / "model.safetensors")
    assert project.planner().stage("0001", "eval_predictions").manifest == first, "the first model is back"


def test_share_of_rows_near_the_threshold_is_a_fact_of_the_bad_cases(mine):
    with serve(naive) as server:
        for grade, expected in ((5, 0.0), (4, 1.0), (3, 1.0), (2, 0.0)):
            server.answer = always(grade)
            project, _ = mine(**rubric(server, samples=1, text=f"Rubric {grade}"))
            outcome = run_stage(project, "0001", "bad_cases", run_id="r", log=lambda line: None)
            assert outcome.manifest.facts["near_threshold"] == expected, grade


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{kind: rouge}", "assessor.kind: Input should be .*'labels'.*'combined'"),
        ("{kind: rubric}", "assessor: .*kind rubric needs assessor.rubric.model"),
        ("{kind: combined}", "assessor: .*kind combined needs assessor.combined.weights"),
        ("{kind: combined, combined: {weights: {rubric: 1}}}", "needs assessor.rubric.model"),
        ("{kind: combined, combined: {weights: {combined: 1}}}", "assessor.combined.weights"),
        ("{kind: combined, combined: {weights: {labels: 0}}}", "greater than 0"),
        ("{rubric: {endpoint: 'https://me:secret@host/v1'}}", "without a user, a password"),
        ("{rubric: {endpoint: 'https://host/v1?key=secret'}}", "or a query"),
        ("{rubric: {samples: 2}}", "assessor.rubric.samples"),
        ("{rubric: {api_key: x}}", "unknown key; the nearest valid key is assessor.rubric"),
        ("{set_f1: {thresholds: [0.5, 0.4, 0.8, 1]}}", "thresholds must ascend"),
        ("{overlap: {thresholds: [0.5]}}", "assessor.overlap.thresholds: .*at least 4"),
        ("{set_f1: {separator: '('}}", "not a regular expression"),
        ("{set_f1: {separator: ',*'}}", "every character would be an item"),
    ],
)
def test_wrong_assessor_setting_names_the_key_and_what_to_change(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: x\nassessor: {text}")
    with pytest.raises(UsageError, match=f"(?s)mine.yaml: .*{message}"):
        load_experiment(path)


def test_threshold_counts_for_the_grades_of_a_rubric_alone(tmp_path):
    def unsure(**assessor):
        return Experiment.model_validate({"name": "x", "assessor": assessor}).leaves("assessor.rubric")[
            "assessor.rubric.unsure"
        ]

    assert unsure(kind="rubric", rubric={"model": "m"}) == [3, 4]
    assert unsure(kind="rubric", rubric={"model": "m"}, bad_below=3) == [2, 3]
    assert unsure(kind="rubric", rubric={"model": "m", "unsure": [4]}, bad_below=3) == [4]
    assert unsure(kind="labels", bad_below=3) == "auto"
