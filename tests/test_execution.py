"""How a model is run is tried before anything is computed, remembered, and part of what decides a result."""

import json
from dataclasses import replace

import pytest

from apt_assets.engine.execute import run_stage
from apt_assets.engine.plan import stages_of
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.report.explain import as_text, explain
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import BASE
from apt_assets.world.execution import UNTRIED
from tests import tiny
from tests.architectures import make_architecture
from tests.test_loop import Recorded


@pytest.fixture
def of_model(make_experiment, tmp_path):
    """A function (architecture) -> project on a tiny model of it, with data landed."""
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(40))

    def make(name, **policy):
        folder = tmp_path / name
        if not folder.exists():
            make_architecture(name, folder)
        return Project.open(make_experiment(policy={"model": str(folder), **policy}))

    return make


@pytest.fixture
def trials(monkeypatch):
    """The models that were tried."""
    from resources.model import agreement

    tried, run_path = [], agreement.run_path

    def counted(load, *more):
        tried.append(load)
        return run_path(load, *more)

    monkeypatch.setattr(agreement, "run_path", counted)
    return tried


def run(project, iterations=1):
    shown = Recorded()
    return run_loop(project, iterations, shown), shown.lines


@pytest.mark.slow("loop")
@pytest.mark.parametrize(
    ("name", "path"), [("bloom", "plain"), ("mamba", "plain"), ("mixtral", "packed"), ("gemma2", "plain")]
)
def test_a_loop_on_any_causal_architecture_trains_and_promotes_and_tells_how_it_runs(of_model, name, path):
    project = of_model(name)
    result, lines = run(project)
    assert result.passed, result.reason
    assert ("0001", "promoted_adapter") in result.computed
    told = [line for line in lines if line.startswith("policy.model: ")]
    assert len(told) == 1
    assert ("sequence by sequence" in told[0]) == (path == "plain")
    planner = project.planner()
    for stage in ("policy", "base_scores"):
        manifest = planner.stage(BASE if stage == "base_scores" else "0001", stage).manifest
        assert manifest.identities["execution"].split(", ")[:1] == [path]
    assert f"identity execution {path}" in " ".join(as_text(explain(project, "policy", "0001")).split())
    again, lines = run(project)
    assert again.computed == []
    assert len(stages_of(BASE) + stages_of("0001")) == len(again.reused)


@pytest.mark.slow("loop")
def test_a_model_is_tried_once_for_its_content(of_model, trials, tmp_path):
    assert run(of_model("llama"))[0].passed
    assert len(trials) == 1
    assert run(of_model("llama"), 2)[0].passed
    assert len(trials) == 1, "a process after that one remembers"
    of_model("llama", dtype="bfloat16").find_out(["execution"])
    assert len(trials) == 2, "in another dtype it is another question"
    weights = next((tmp_path / "llama").glob("*.safetensors"))
    make_architecture("llama", tmp_path / "llama", num_hidden_layers=1)
    assert weights.exists()
    of_model("llama").find_out(["execution"])
    assert len(trials) == 3, "and other weights are another model"


def test_a_plan_begins_no_trial(of_model, trials):
    project = of_model("llama")
    plans = project.planner().plan(1)
    assert [plan.status for plan in plans if plan.stage == "policy"] == ["missing"]
    assert project.identity("execution") == UNTRIED
    assert not trials


@pytest.mark.slow("loop")
def test_what_was_computed_on_another_path_is_not_reused(of_model, monkeypatch):
    project = of_model("llama")
    assert run(project)[0].passed
    monkeypatch.setattr("resources.model.agreement.special", lambda config: "it was told so")
    (project.home / ".apt" / "executions.json").unlink()
    project = of_model("llama")
    project.find_out(["execution"])
    causes = project.planner().stage("0001", "policy").causes
    assert [cause.split(", exact")[0] for cause in causes[0].split(" -> ")] == ["execution: packed", "plain"]
    result, _ = run(project)
    assert ("0001", "eval_predictions") in result.computed
    work = project.planner().stage("0001", "eval_predictions").manifest.work
    assert work["answers"]["reused"] == 0


@pytest.mark.slow("loop")
def test_another_number_of_threads_makes_nothing_stale(of_model, trials):
    assert run(of_model("llama", threads=1))[0].passed
    other = of_model("llama", threads=2)
    assert {plan.status for plan in other.planner().plan(1)} == {"fresh"}
    result, _ = run(other)
    assert result.passed
    assert result.computed == []
    assert len(trials) == 1, "nothing is to be computed"
    other.find_out(["execution"])
    assert len(trials) == 2
    assert {plan.status for plan in of_model("llama", threads=2).planner().plan(1)} == {"fresh"}
    for known in (1, 2):
        assert of_model("llama", threads=known).find_out(["execution"]) == []


@pytest.mark.slow("loop")
def test_other_bits_with_another_number_of_threads_are_found_before_a_fresh_stage_is_reused(of_model, monkeypatch):
    from resources.model import exactness

    assert run(of_model("llama", threads=1))[0].passed
    found = exactness.exactness
    monkeypatch.setattr(exactness, "exactness", lambda *given: replace(found(*given), bits="0" * 12))
    other = of_model("llama", threads=2)
    assert other.planner().stage("0001", "policy").status == "fresh", "a look begins no trial"
    assert run_stage(other, "0001", "policy", run_id="r").status == "computed"
    assert other.identity("execution").endswith("bits 000000000000")
    assert not of_model("llama", threads=1).identity("execution").endswith("bits 000000000000")


def test_a_model_that_sees_what_is_behind_is_refused_before_anything_is_computed(of_model):
    project = of_model("bert")
    with pytest.raises(UsageError, match=r"policy.model: .*bert.* no causal language model"):
        run(project)
    assert not [event for event in project.store.events() if event["event"] == "computed"]


def test_the_memory_of_a_trial_that_was_damaged_is_made_anew(of_model, trials):
    project = of_model("gpt2")
    project.find_out(["execution"])
    memory = project.home / ".apt" / "executions.json"
    memory.write_text(json.dumps({"made up": {"path": "packed", "why": ""}}))
    again = of_model("gpt2")
    assert again.identity("execution") == UNTRIED
    again.find_out(["execution"])
    assert again.identity("execution").startswith("packed, ")
    assert len(trials) == 2
