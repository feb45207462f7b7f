"""A study from its file to its page, on the tiny models."""

import json
import shutil
import subprocess
from collections import Counter
from types import SimpleNamespace

import pytest
import yaml

from apt_assets.engine.display import Display
from apt_assets.project import Project
from apt_assets.settings.experiment import UsageError
from apt_assets.study.cell import bring_up_to_date
from apt_assets.study.command import open_study, run_study
from apt_assets.study.file import Cell, Scoring
from apt_assets.study.measure import measure
from apt_assets.study.run import Runner
from apt_assets.study.summary import summary
from tests import tiny
from tests.conftest import BOTH_TASKS

pytestmark = pytest.mark.slow("loop")

ARMS = {
    "sft": {"settings": {"training.objective": "sft", "pairs.replay": "pool", "pairs.replay_share": None}},
    "apt": {"about": "as the <experiment> says"},
    "apt-on": {"starts_from": "sft"},
    "qlora": {"settings": {"policy.device": "cuda", "policy.quantization": "nf4", "policy.dtype": "bfloat16"}},
    "qlora-on": {"starts_from": "qlora"},
}


def write_study(home, models, arms, **changes):
    """A study file in `home`, of one domain with one iteration, whose data has landed."""
    content = tiny.experiment(models)
    content["training"]["learning_rate"] = 0.02
    content |= {"benchmarks": {**content["benchmarks"], **BOTH_TASKS["benchmarks"]}}
    (home / "tiny.yaml").write_text(yaml.safe_dump(content))
    tiny.write_jsonl(home / "landing" / "colours.jsonl", tiny.domain_rows(60))
    study = {
        "name": "tiny",
        "domains": {"colours": "tiny.yaml"},
        "arms": arms,
        "control": "sft",
        "seeds": [1, 2],
        "iterations": 1,
        **changes,
    }
    (home / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return home / "study.yaml"


def run_here(runner, run):
    """In place of a process: the same run in this one."""
    bring_up_to_date(runner.project(run), runner.study.iterations(run), lambda line: None)
    return SimpleNamespace(poll=lambda: 0, returncode=0)


def journal(home):
    lines = (home / ".apt" / "store" / "journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def done(tiny_folder, tmp_path_factory):
    """(home, study file, summary) of a study that ran to its end."""
    home = tmp_path_factory.mktemp("study")
    file = write_study(home, tiny_folder, ARMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APT_HOME", str(home))
        patch.setattr(Runner, "launch", run_here)
        found = run_study(file, None, 1, Display(), only_estimate=False)
    return home, file, found


@pytest.fixture
def again(done, monkeypatch):
    monkeypatch.setenv("APT_HOME", str(done[0]))
    monkeypatch.setattr(Runner, "launch", run_here)
    return done


def test_every_arm_has_scores_costs_and_a_comparison_with_the_control(done):
    _, _, found = done
    arms = found["domains"]["colours"]["arms"]
    assert list(arms) == ["sft", "apt", "apt-on"]
    assert found["runs"] == {"done": 13, "of": 13, "failed": 0}
    for name, arm in arms.items():
        assert len(arm["scores"]["test"]["values"]) == 2
        assert arm["costs"]["cpu_seconds"]["mean"] > 0
        assert arm["costs"]["tokens"]["mean"] > 0
        assert ("against_control" in arm) == (name != "sft")
    assert arms["sft"]["costs"]["labels_trained"]["mean"] > arms["apt"]["costs"]["labels_trained"]["mean"]


def test_scores_are_those_that_the_run_itself_reports(again):
    home, _, found = again
    start = found["domains"]["colours"]["start"]
    run = Project.open(home / "studies" / "tiny" / "runs" / "colours.scores.base.yaml")
    reported = run.planner().stage("base", "base_scores").manifest.facts
    assert start["perplexity"] == pytest.approx(reported["passages"]["sayings"]["word_perplexity"])
    assert start["general"] == reported["general"]["colours"]["accuracy"]["mean"]
    assert start["gold"] == reported["general"]["colours"]["gold"]
    assert start["test"] == reported["domain"]["test"]["lenient"]["mean"]


def test_an_arm_that_this_machine_cannot_run_is_refused_with_the_reason_and_so_is_what_starts_from_it(done):
    refused = {one["arm"]: one["reason"] for one in done[2]["refused"]}
    assert "cuda" in refused["qlora"]
    assert refused["qlora-on"] == "it starts from qlora, which does not run here"


def test_what_arms_share_is_computed_once(done):
    home = done[0]
    computed = Counter(line["stage"] for line in journal(home) if line["event"] == "computed")
    assert computed["domain_dataset"] == computed["retrieval_index"] == 1
    # The base model and the two specialists with few items and with all, and the four other results with all.
    assert computed["base_scores"] == 2 * 3 + 4
    # Both arms that start from the base model ask the same questions with the same seed.
    assert computed["eval_predictions"] == 4


def test_an_arm_that_starts_from_another_starts_at_its_scores(done):
    arms = done[2]["domains"]["colours"]["arms"]
    for name in ("test", "general", "gold"):
        steps = zip(arms["sft"]["scores"][name]["values"], arms["apt-on"]["own_changes"][name]["values"], strict=True)
        assert [a + b for a, b in steps] == pytest.approx(arms["apt-on"]["scores"][name]["values"])


def test_an_arm_whose_start_could_not_be_scored_is_unfinished(again):
    home, file, _ = again
    study, _ = open_study(file)
    runner = Runner(study, home, home / "studies" / "tiny", 1, Display(), lambda known: None)
    runner.refuse()
    runner.read()
    sft = runner.known.outcomes[Cell("colours", "sft", 0, 2)]
    del runner.known.outcomes[Scoring("colours", sft["adapter"])]
    found = summary(study, runner.known, home, {})["domains"]["colours"]
    assert list(found["arms"]) == ["apt"]
    assert found["unfinished"] == ["sft", "apt-on"]
    assert found["advice"] is None


def test_an_arm_that_starts_from_another_carries_its_costs(done):
    arms = done[2]["domains"]["colours"]["arms"]
    own, whole, start = arms["apt-on"]["own_costs"], arms["apt-on"]["costs"], arms["sft"]["costs"]
    # Data set and retrieval index are the same, and count once.
    assert start["cpu_seconds"]["mean"] < whole["cpu_seconds"]["mean"]
    assert whole["cpu_seconds"]["mean"] < own["cpu_seconds"]["mean"] + start["cpu_seconds"]["mean"]
    assert whole["tokens"]["mean"] == own["tokens"]["mean"] + start["tokens"]["mean"]
    assert arms["sft"]["own_costs"] == start


def test_a_second_call_computes_nothing_and_says_the_same(again):
    home, file, found = again
    before = len([line for line in journal(home) if line["event"] in ("computed", "miss")])
    repeated = run_study(file, None, 1, Display(), only_estimate=False)
    assert repeated["domains"] == found["domains"]
    assert len([line for line in journal(home) if line["event"] in ("computed", "miss")]) == before


def test_a_new_arm_computes_only_what_is_its_own(again):
    home, file, _ = again
    content = yaml.safe_load(file.read_text())
    other = file.with_name("more.yaml")
    arms = {**content["arms"], "stiff": {"settings": {"training.beta": 0.5}}}
    other.write_text(yaml.safe_dump({**content, "arms": arms}, sort_keys=False))
    before = len(journal(home))
    run_study(other, home / "more", 1, Display(), only_estimate=False)
    computed = {line["stage"] for line in journal(home)[before:] if line["event"] == "computed"}
    own = {"adapter_checkpoint", "benchmark_scores", "gate", "promoted_adapter", "base_scores"}
    assert computed <= own | {"anchor_texts"}, "of the run that scores the new adapter, in which there are none"
    assert "adapter_checkpoint" in computed


def test_an_estimate_runs_nothing(again, tmp_path):
    home, file, _ = again
    lines = []
    display = SimpleNamespace(line=lines.append, progress=lambda at: None, close=lambda: None)
    before = len(journal(home))
    assert run_study(file, tmp_path, 2, display, only_estimate=True) is None
    assert len(journal(home)) == before
    assert any(line.startswith("sft on colours: 4 runs; at most") for line in lines)
    assert any(line.startswith("the start on colours: 1 runs; at most") for line in lines)
    assert lines[-1].startswith("in all 13 runs")


@pytest.fixture(scope="module")
def looped(tiny_folder, tmp_path_factory):
    """(home, summary): one and two iterations of equal settings, after the domain's own base scores."""
    home = tmp_path_factory.mktemp("looped")
    file = write_study(home, tiny_folder, {"two": {"iterations": 2}, "one": {}}, control="one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APT_HOME", str(home))
        patch.setattr(Runner, "launch", run_here)
        bring_up_to_date(Project.open(home / "tiny.yaml"), 0, lambda line: None)
        run_study(file, None, 1, Display(), only_estimate=False)
        return home, run_study(file, None, 1, Display(), only_estimate=False)


def test_a_domain_that_was_scored_under_its_own_name_is_scored(looped):
    assert not looped[1]["domains"]["colours"]["unfinished"]


def test_arms_that_differ_in_iterations_alone_come_to_what_they_say(looped):
    arms = looped[1]["domains"]["colours"]["arms"]
    one, two = arms["one"], arms["two"]
    for seed in ("1", "2"):
        assert list(one["by_iteration"][seed]) == ["0001"]
        assert list(two["by_iteration"][seed]) == ["0001", "0002"]
        assert two["by_iteration"][seed]["0001"] == one["by_iteration"][seed]["0001"]
    for cost in ("rows", "steps", "tokens", "cpu_seconds"):
        assert two["costs"][cost]["mean"] > one["costs"][cost]["mean"]


def test_what_was_spent_is_told_for_each_iteration_with_those_before(looped):
    arms = looped[1]["domains"]["colours"]["arms"]
    one, two = arms["one"]["by_iteration"], arms["two"]
    for seed, iterations in two["by_iteration"].items():
        first, second = iterations["0001"], iterations["0002"]
        assert first["rows"] == one[seed]["0001"]["rows"] < second["rows"]
        assert first["cpu_seconds"] < second["cpu_seconds"]
        assert first["labels"] <= second["labels"]
    last = [iterations["0002"]["cpu_seconds"] for iterations in two["by_iteration"].values()]
    assert sum(last) / len(last) == pytest.approx(two["costs"]["cpu_seconds"]["mean"])


def test_the_page_draws_test_accuracy_over_what_iterations_spent(looped):
    html = (looped[0] / "studies" / "tiny" / "study.html").read_text()
    for spent in ("rows trained", "labels read", "processor seconds"):
        assert f"Test accuracy by {spent}" in html
    assert "two, iteration 2: rows trained" in html


def test_the_iteration_that_is_best_on_validation_counts_the_earlier_of_equal_ones(looped):
    arm = looped[1]["domains"]["colours"]["arms"]["two"]
    for best, scores in zip(arm["best_iterations"], arm["by_iteration"].values(), strict=True):
        highest = max(score["validation"] for score in scores.values())
        assert best == next(key for key, score in scores.items() if score["validation"] == highest)


def test_what_iterations_share_costs_once(looped, monkeypatch):
    home, _ = looped
    monkeypatch.setenv("APT_HOME", str(home))
    project = Project.open(home / "studies" / "tiny" / "runs" / "colours.two.0.seed-1.yaml")
    stages = Counter(part["stage"] for part in measure(project, None, 2)["parts"])
    assert (stages["domain_dataset"], stages["eval_predictions"]) == (1, 2)


def test_data_that_lands_in_the_middle_ends_the_study_with_a_message(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    file = write_study(tmp_path, tiny_folder, {"sft": ARMS["sft"], "apt": {}})

    def launch(runner, run):
        tiny.write_jsonl(tmp_path / "landing" / "more.jsonl", tiny.domain_rows(80)[60:])
        return run_here(runner, run)

    monkeypatch.setattr(Runner, "launch", launch)
    with pytest.raises(UsageError, match="colours: the landed data changed since the study began"):
        run_study(file, None, 1, Display(), only_estimate=False)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"data": {"validation": 0.0, "test": 0.3}}, "no validation rows have landed"),
        ({"benchmarks": {"tasks": {}}}, "a study needs one task of choices"),
    ],
)
def test_a_domain_in_which_nothing_could_be_compared_is_refused_at_once(
    tiny_folder, tmp_path, monkeypatch, settings, says
):
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    file = write_study(tmp_path, tiny_folder, {"sft": ARMS["sft"], "apt": {}})
    content = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    changed = {name: {**content.get(name, {}), **its} for name, its in settings.items()}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content | changed))
    with pytest.raises(UsageError, match=says):
        run_study(file, None, 1, Display(), only_estimate=True)


def test_a_control_that_this_machine_cannot_run_is_told_before_anything_runs(again):
    home, file, _ = again
    other = file.with_name("cuda.yaml")
    other.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "control": "qlora"}, sort_keys=False))
    with pytest.raises(UsageError, match="the control, qlora, does not run here on colours"):
        run_study(other, home / "cuda", 1, Display(), only_estimate=False)


def test_the_page_escapes_what_the_file_says_and_shows_all_plots(done):
    page = (done[0] / "studies" / "tiny" / "study.html").read_text()
    assert "as the &lt;experiment&gt; says" in page
    assert page.count("<svg") == 5
    assert "<script" not in page


def test_a_run_can_be_looked_at_like_any_experiment(done, monkeypatch):
    from apt_assets.report.results import results

    home = done[0]
    monkeypatch.setenv("APT_HOME", str(home))
    found = results(Project.open(home / "studies" / "tiny" / "runs" / "colours.apt.0.seed-1.yaml"))
    assert found["iterations"][-1]["stages"]["benchmark_scores"]["status"] == "fresh"


def test_a_run_that_fails_in_its_process_is_told_with_its_reason_and_the_others_go_on(
    tiny_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    arms = {"sft": ARMS["sft"], "short": {"settings": {"training.max_length": 8}}}
    file = write_study(tmp_path, tiny_folder, arms)
    in_process = Runner.launch
    monkeypatch.setattr(
        Runner,
        "launch",
        lambda runner, run: in_process(runner, run) if "short" in run.label else run_here(runner, run),
    )
    found = run_study(file, None, 2, Display(), only_estimate=False)
    assert [one["run"] for one in found["failed"]] == ["colours.short.0.seed-1"]
    assert "training.max_length" in found["failed"][0]["reason"]
    assert list(found["domains"]["colours"]["arms"]) == ["sft"]


def test_run_after_which_something_is_out_of_date_has_no_outcome_and_is_told(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    shutil.copytree(tiny_folder / "tasks", tmp_path / "tasks")
    file = write_study(tmp_path, tiny_folder, {"sft": ARMS["sft"], "apt": ARMS["apt"]})
    domain = tmp_path / "tiny.yaml"
    content = yaml.safe_load(domain.read_text())
    content["benchmarks"]["folder"] = str(tmp_path / "tasks")
    domain.write_text(yaml.safe_dump(content))

    def edited_meanwhile(runner, run):
        ended = run_here(runner, run)
        if "sft" in run.label:
            items = tmp_path / "tasks" / "sayings.jsonl"
            items.write_text(items.read_text().replace('"text": "', '"text": "So '))
        return ended

    monkeypatch.setattr(Runner, "launch", edited_meanwhile)
    found = run_study(file, None, 1, Display(), only_estimate=False)
    told = {one["run"]: one["reason"] for one in found["failed"]}
    assert "something that it reads changed while it ran: call the study" in told["colours.sft.0.seed-1"]
    assert "sft" not in found["domains"]["colours"]["arms"]


def test_wrong_usage_of_the_command_ends_with_2_and_says_what_to_do(tmp_path):
    from tests.test_cli import APT  # the installed command

    ended = subprocess.run([*APT, "study", str(tmp_path / "nowhere.yaml")], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no study file" in ended.stderr
