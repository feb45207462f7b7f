"""A study file: what it says, what it refuses, and which runs it asks for in which order."""

from dataclasses import replace
from itertools import product

import pytest
import yaml

from apt_assets.settings.experiment import REPOSITORY, UsageError
from apt_assets.settings.reader import load_experiment
from apt_assets.study.file import Cell, Scoring, load_study
from apt_assets.study.wanted import Known, all_runs, best_candidate, final, wanted

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


def tuned(scores, arm="sft"):
    return {Cell("colours", arm, n, 1): outcome(score) for n, score in enumerate(scores)}


def labels(cells):
    return [cell.label.removeprefix("colours.") for cell in cells]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"control": "sfd"}, "control: 'sfd' is not an arm"),
        ({"seeds": [1, 1]}, "a seed stands there twice"),
        ({"seeds": [1]}, "seeds"),
        ({"seeds": [1, -1]}, r"seeds.1: .*greater than or equal to 0"),
        ({"arms": {**ARMS, "new": {"starts_from": "later"}}}, "'later' is not an arm that stands before it"),
        ({"arms": {**ARMS, "new": {"settings": {"training.seed": 3}}}}, "training.seed: is set by the study itself"),
        (
            {"arms": {**ARMS, "new": {"settings": {"training.betaa": 3}}}},
            "training.betaa: unknown key; .* training.beta",
        ),
        ({"arms": {**ARMS, "new": {"settings": {"policy.model.x": 1}}}}, "policy.model.x: unknown key"),
        ({"arms": {**ARMS, "new": {"settings": {"training.beta": -1.0}}}}, "arm new on colours: training.beta"),
        ({"arms": {**ARMS, "new": {"settings": {"training": {"beta": 0.2}}}}}, "training: is a section"),
        ({"arms": {**ARMS, "new": {"settings": {"gate": {"domain_tolerance": 0.0}}}}}, "gate: is a section"),
        ({"arms": {**ARMS, "new": {"settings": {"data.test": 0.0}}}}, "data.test: is the same for all arms"),
        ({"arms": {**ARMS, "new": {"settings": {"policy.max_new_tokens": 3}}}}, "is the same for all arms"),
        ({"arms": {**ARMS, "new": {"settings": {"policy.initial_adapter": "x"}}}}, "name an arm in starts_from"),
        ({"arms": {**ARMS, "new": {"settings": {"training.learning_rate": 0.1}}}}, "is what the sweep tries"),
        ({"arms": {**ARMS, "new": {"settings": {"loop.max_iterations": 4}}}}, "loop.max_iterations: say `iterations`"),
        ({"sweep": {"training.seed": [5, 6]}}, "sweep: training.seed: is set by the study itself"),
        ({"sweep": {"gate.domain_tolerance": [0.0]}}, "sweep: gate.domain_tolerance: is set by the study itself"),
        ({"sweep": {"training.learning_rate": [-1.0]}}, "training.learning_rate"),
        ({"domains": {"colours": "nowhere.yaml"}}, "nowhere.yaml"),
        ({"arms": {**ARMS, "../new": {}}}, "arms.../new"),
        ({"domains": {"a.b": "tiny.yaml"}}, "domains.a.b"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_mistake_in_the_file_is_named(write_study, changes, says):
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        load_study(write_study(**changes))


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "experiments" / "studies").glob("*.yaml")), ids=lambda path: path.name
)
def test_files_that_we_ship_load(file):
    if "arms" in yaml.safe_load(file.read_text()):
        assert load_study(file).candidates
    else:
        assert load_experiment(file).name


FIRST = ["scores.base", "sft.0.seed-1", "sft.1.seed-1", "apt.0.seed-1", "apt.1.seed-1"]


def test_tuning_comes_first_and_the_winner_alone_runs_with_the_other_seeds(write_study):
    study, known = load_study(write_study()), Known()
    assert labels(wanted(study, known)) == FIRST
    known.outcomes |= tuned([0.4, 0.6])
    assert best_candidate(study, known, "colours", "sft") == 1
    assert labels(wanted(study, known))[:5] == [FIRST[0], "scores.a", "sft.1.seed-2", *FIRST[3:]]


def test_of_equal_candidates_the_first_wins(write_study):
    study, known = load_study(write_study()), Known()
    known.outcomes |= tuned([0.5, 0.5])
    assert best_candidate(study, known, "colours", "sft") == 0


def test_without_a_sweep_all_seeds_run_at_once_the_first_has_ended(write_study):
    study, known = load_study(write_study(sweep={})), Known()
    known.outcomes |= tuned([0.5])
    assert labels(wanted(study, known))[:3] == ["scores.base", "scores.a", "sft.0.seed-2"]


def test_training_runs_score_few_general_items_and_results_all(write_study):
    study = load_study(write_study())
    training, scoring = study.content(Cell("colours", "apt", 0, 1)), study.content(Scoring("colours", "a"))
    assert training["benchmarks"]["tasks"] == {"colours": 1}
    assert scoring["benchmarks"]["tasks"] == {"colours": None}
    assert scoring["policy"]["initial_adapter"] == "a"


def test_an_arm_that_starts_from_another_waits_for_its_result_of_the_same_seed(write_study):
    study, known = load_study(write_study()), Known()
    known.outcomes |= tuned([0.5, 0.4])
    waiting = [run for run in wanted(study, known) if isinstance(run, Cell) and run.arm == "apt-on"]
    assert {(run.seed, run.adapter) for run in waiting} == {(1, "a")}
    known.outcomes |= {cell: outcome(0.7, "b") for cell in waiting}
    known.outcomes[Cell("colours", "sft", 0, 2)] = outcome(0.5, "second")
    others = [run for run in wanted(study, known) if isinstance(run, Cell) and run.arm == "apt-on"]
    assert {(run.seed, run.adapter) for run in others} == {(2, "second")}


def test_a_result_is_known_when_it_is_scored_in_full(write_study):
    study, known = load_study(write_study()), Known()
    known.outcomes |= tuned([0.5, 0.4])
    assert final(study, known, "colours", "sft", 1) is None
    known.outcomes[Scoring("colours", "a")] = {"general": 0.9}
    assert final(study, known, "colours", "sft", 1) == {**outcome(0.5), "general": 0.9}


def test_equal_settings_are_one_experiment_whatever_the_arm_is_called(write_study):
    study = load_study(write_study(arms={**ARMS, "same": {"about": "as apt"}}))
    names = {arm: study.experiment(Cell("colours", arm, 0, 1)).name for arm in study.file.arms}
    assert names["same"] == names["apt"]
    assert names["same"] != names["sft"]


def test_runs_of_a_study_are_not_tracked_and_are_the_same_without_trackers(write_study, tmp_path):
    cell = Cell("colours", "apt", 0, 1)
    without = load_study(write_study()).content(cell)
    domain = tmp_path / "tiny.yaml"
    domain.write_text(domain.read_text() + "tracking: [mlflow]\n")
    assert load_study(write_study()).content(cell) == without


def test_landed_data_that_changed_makes_other_runs(write_study):
    study = load_study(write_study())
    before, after = (replace(study, landed={"colours": names}) for names in ({"a.jsonl": "1"}, {"a.jsonl": "2"}))
    cell = Cell("colours", "apt", 0, 1)
    assert before.content(cell)["name"] != after.content(cell)["name"]
    assert "landed" not in after.content(cell)


def test_an_arm_whose_weights_are_held_in_another_way_is_scored_like_that(write_study):
    arms = {**ARMS, "held": {"settings": {"policy.dtype": "bfloat16"}}}
    study = load_study(write_study(arms=arms))
    scoring = study.scoring("colours", "held", "a")
    assert study.content(scoring)["policy"]["dtype"] == "bfloat16"
    assert scoring.label != study.scoring("colours", "apt", "a").label


def test_no_gate_stops_an_arm(write_study):
    study = load_study(write_study())
    assert study.experiment(Cell("colours", "apt", 0, 1)).gate.domain_tolerance == 1.0


def test_failed_and_refused_runs_are_not_asked_for_again(write_study):
    study, known = load_study(write_study()), Known()
    known.refused["colours", "apt"] = "no GPU"
    known.failed[Cell("colours", "sft", 0, 1)] = "killed"
    assert labels(wanted(study, known)) == ["scores.base", "sft.1.seed-1"]
    assert all_runs(study, known) == 1 + 2 * (3 + 2)


def test_adapter_of_two_arms_is_scored_once_and_counted_once(write_study):
    study, known = load_study(write_study(arms={**ARMS, "same": {"about": "as apt"}})), Known()
    whole = all_runs(study, known)
    for arm, adapter in {"sft": "a", "apt": "b", "same": "b"}.items():
        for candidate, seed in product(range(len(study.candidates)), study.file.seeds):
            known.outcomes[Cell("colours", arm, candidate, seed)] = {"validation": 0.5, "adapter": f"{adapter}{seed}"}
    assert all_runs(study, known) == whole - len(study.file.seeds)


def test_experiment_file_given_as_a_study_is_called_one_and_the_least_study_file_works_on_it(tmp_path):
    domain = tmp_path / "colours.yaml"
    domain.write_text("name: colours\n")
    with pytest.raises(UsageError, match=r"colours\.yaml: is an experiment file") as error:
        load_study(domain)
    least = tmp_path / "least.yaml"
    least.write_text(str(error.value).partition("\n")[2])
    assert load_study(least).domain_file("mine") == domain


def test_key_that_stands_twice_in_a_study_or_in_its_domain_names_the_file_and_the_lines(write_study, tmp_path):
    path = write_study()
    path.write_text(path.read_text() + "seeds: [3, 4]\n")
    with pytest.raises(UsageError, match=r"study.yaml: seeds stands there twice, on lines \d+ and \d+"):
        load_study(path)
    (tmp_path / "domain.yaml").write_text("name: a\ngate: {items: 1}\ngate: {}\n")
    with pytest.raises(UsageError, match=r"domain\.yaml: gate stands there twice, on lines 2 and 3"):
        load_study(write_study(domains={"colours": "domain.yaml"}))
