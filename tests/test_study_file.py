"""A study file: what it says, what it refuses, and which runs it asks for in which order."""

import pytest
import yaml

from apt_assets.experiment import UsageError
from apt_assets.study.file import Cell, load_study
from apt_assets.study.wanted import Known, all_cells, best_candidate, wanted

ARMS = {
    "sft": {"settings": {"training.objective": "sft"}, "iterations": 1},
    "apt": {},
    "apt-on": {"starts_from": "sft"},
}


@pytest.fixture
def write_study(make_experiment, tmp_path):
    """A function (**changes) -> path of a study file with one domain."""
    domain = make_experiment()

    def write(**changes):
        content = {
            "name": "tiny",
            "domains": {"colours": str(domain)},
            "arms": ARMS,
            "control": "sft",
            "seeds": [1, 2],
            "sweep": {"training.learning_rate": [0.01, 0.1]},
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
        return path

    return write


def outcome(validation, adapter="a"):
    return {"validation": validation, "adapter": adapter}


def labels(cells):
    return [cell.label.removeprefix("colours.") for cell in cells]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"control": "sfd"}, "control: 'sfd' is not an arm"),
        ({"seeds": [1, 1]}, "a seed stands there twice"),
        ({"seeds": [1]}, "seeds"),
        ({"arms": {**ARMS, "new": {"starts_from": "later"}}}, "'later' is not an arm that stands before it"),
        ({"arms": {**ARMS, "new": {"settings": {"training.seed": 3}}}}, "training.seed is set by the study itself"),
        ({"arms": {**ARMS, "new": {"settings": {"training.betaa": 3}}}}, "arm new on colours: training.betaa"),
        ({"sweep": {"training.learning_rate": [-1.0]}}, "training.learning_rate"),
        ({"domains": {"colours": "nowhere.yaml"}}, "nowhere.yaml"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_mistake_in_the_file_is_named(write_study, changes, says):
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        load_study(write_study(**changes))


def tuned(scores, arm="sft"):
    return {Cell("colours", arm, n, 1, tuning=True): outcome(score) for n, score in enumerate(scores)}


def test_tuning_comes_first_and_the_winner_alone_runs_with_all_seeds(write_study):
    study, known = load_study(write_study()), Known()
    first = ["sft.0.tuning-1", "sft.1.tuning-1", "apt.0.tuning-1", "apt.1.tuning-1"]
    assert labels(wanted(study, known)) == first
    known.outcomes |= tuned([0.4, 0.6])
    assert best_candidate(study, known, "colours", "sft") == 1
    assert labels(wanted(study, known)) == ["sft.1.seed-1", "sft.1.seed-2", *first[2:]]


def test_of_equal_candidates_the_first_wins(write_study):
    study, known = load_study(write_study()), Known()
    known.outcomes |= tuned([0.5, 0.5])
    assert best_candidate(study, known, "colours", "sft") == 0


def test_without_a_sweep_nothing_is_tuned(write_study):
    study = load_study(write_study(sweep={}))
    assert labels(wanted(study, Known()))[:2] == ["sft.0.seed-1", "sft.0.seed-2"]


def test_a_tuning_run_scores_few_general_items_and_trains_as_the_final_one(write_study):
    study = load_study(write_study())
    tuning, final = (study.content(Cell("colours", "apt", 0, 1, tuning=it)) for it in (True, False))
    assert tuning["benchmarks"]["tasks"] == {"colours": 5}
    assert final["benchmarks"]["tasks"] == {"colours": None}
    assert tuning["training"] == final["training"]


def test_an_arm_that_starts_from_another_waits_for_its_result_of_the_same_seed(write_study):
    study, known = load_study(write_study()), Known()
    known.outcomes |= tuned([0.5, 0.4])
    assert not any("apt-on" in label for label in labels(wanted(study, known)))
    known.outcomes[Cell("colours", "sft", 0, 1)] = outcome(0.5, "first")
    waiting = [cell for cell in wanted(study, known) if cell.arm == "apt-on"]
    assert {(cell.seed, cell.adapter) for cell in waiting} == {(1, "first")}
    experiment = study.content(waiting[0])
    assert experiment["policy"]["initial_adapter"] == "first"


def test_equal_settings_are_one_experiment_whatever_the_arm_is_called(write_study):
    study = load_study(write_study(arms={**ARMS, "same": {"about": "as apt"}}))
    names = {arm: study.experiment(Cell("colours", arm, 0, 1)).name for arm in study.file.arms}
    assert names["same"] == names["apt"]
    assert names["same"] != names["sft"]


def test_no_gate_stops_an_arm(write_study):
    study = load_study(write_study())
    assert study.experiment(Cell("colours", "apt", 0, 1)).gate.domain_tolerance == 1.0


def test_failed_and_refused_runs_are_not_asked_for_again(write_study):
    study, known = load_study(write_study()), Known()
    known.refused["colours", "apt"] = "no GPU"
    known.failed[Cell("colours", "sft", 0, 1, tuning=True)] = "killed"
    assert labels(wanted(study, known)) == ["sft.1.tuning-1"]
    assert all_cells(study, known.refused) == 8
