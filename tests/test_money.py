"""Costs in money: what `plan`, the report and Dagster say, and the budget that ends the loop."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from apt_assets.cli import app
from apt_assets.engine.execute import run_stage
from apt_assets.engine.plan import StagePlan, stages_of
from apt_assets.engine.stage import STAGES
from apt_assets.loop.money import Measured, Money, Use, in_words
from apt_assets.loop.next_run import End, Run, next_run
from apt_assets.loop.work import Work
from apt_assets.project import Project
from apt_assets.settings.around import Costs
from apt_assets.settings.experiment import Experiment
from resources.assessors.endpoint import USED
from resources.store.manifest import Manifest
from tests import tiny
from tests.fake_endpoint import always, completion, serve
from tests.made_up import asked

HOUR = Costs(device_hour=3600.0)  # a second is one
ENDPOINT = {"kind": "rubric", "rubric": {"endpoint": "http://host/v1", "model": "m"}}
BOTH = {"device_hour": 3.6, "grader_per_million_tokens": 1000.0, "currency": "EUR"}


def here(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


# -- what was measured --------------------------------------------------------------------------------


def computed(stage, seconds, work, row_seconds, tokens=0, iteration="0001"):
    nothing: dict = {name: {} for name in ("inputs", "settings", "identities", "libraries", "code", "files", "facts")}
    return Manifest(
        stage=stage, fingerprint=f"{stage} {seconds} {work}", data_version="v", **nothing, work=work, row_tables=[],
        iteration=iteration, seconds=seconds, run_id="r", created="now", row_seconds=row_seconds, tokens=tokens,
    )  # fmt: skip


def rows(computed, reused=0):
    return {"computed": computed, "reused": reused}


def measured(*manifests, **changes):
    return Measured(manifests, Experiment(**{"name": "m", "costs": BOTH, **changes}))


def missing(stage, status="missing"):
    return StagePlan("0002", stage, status)


def test_missing_rows_cost_what_rows_of_their_kind_took_wherever_they_were_computed():
    known = measured(
        computed("base_scores", 100.0, {"answers": rows(20), "scores": rows(100)}, {"answers": 40.0, "scores": 50.0}),
        computed("eval_predictions", 21.0, {"answers": rows(10)}, {"answers": 20.0}),
        computed("similar_predictions", 3.0, {"answers": rows(0, 10)}, {}),
    )
    # 30 answers took 60 s; the rest of eval_predictions takes 1 s, that of similar_predictions 3 s.
    assert known.of_plan(missing("eval_predictions"), Work({"answers": 5}, exact=True)) == Use(11.0)
    assert known.of_plan(missing("similar_predictions"), Work({"answers": 5}, exact=True)) == Use(13.0)
    assert known.of_plan(missing("eval_predictions", "fresh"), Work({}, exact=True)) == Use(0.0)


def test_steps_take_what_the_reference_model_leaves_of_a_training():
    training = computed(
        "adapter_checkpoint", 50.0, {"references": rows(10), "steps": 20, "pairs": 80}, {"references": 10.0}
    )
    known = measured(training).of_plan(missing("adapter_checkpoint"), Work({"steps": 5}, exact=True))
    assert known == Use(10.0), "20 steps took 40 s"


def test_what_waits_is_taken_for_all_the_rows_of_the_last_time():
    before = computed("similar_predictions", 12.0, {"answers": rows(10, 30)}, {"answers": 10.0})
    waiting = measured(before).of_plan(missing("similar_predictions", "waiting"), Work({}, exact=False))
    assert waiting == Use(42.0)


def test_what_was_never_computed_is_unknown_and_not_free():
    use = measured().of_plan(missing("eval_predictions"), Work({"answers": 5}, exact=True))
    assert not use.whole
    assert in_words(use, HOUR) == "not known yet"
    assert in_words(use + Use(2.0), HOUR, about=True) == "about 2.00 EUR and what is not known yet"


def test_tokens_of_missing_grades_are_the_mean_of_those_graded_by_an_endpoint_before():
    graded = computed("eval_predictions", 9.0, {"grades": rows(10)}, {"grades": 8.0}, tokens=5000)
    other = computed("eval_predictions", 2.0, {"grades": rows(90)}, {"grades": 1.0})  # by labels
    known = measured(graded, other, assessor=ENDPOINT)
    assert known.of_rows({"grades": 4}).tokens == 2000
    assert measured(graded, other).of_rows({"grades": 4}).tokens == 0, "labels take none"
    unknown = measured(other, assessor=ENDPOINT).of_rows({"grades": 4})
    assert (unknown.tokens, unknown.whole) == (0, False)
    only_time = measured(other, assessor=ENDPOINT, costs={"device_hour": 1.0}).of_rows({"grades": 4})
    assert only_time.whole, "tokens have no price"


def test_reused_rows_save_what_rows_of_their_kind_took():
    first = computed("eval_predictions", 10.0, {"answers": rows(10)}, {"answers": 10.0})
    second = computed("similar_predictions", 1.0, {"answers": rows(1, 7)}, {"answers": 1.0})
    assert measured(first, second).saved(second) == Use(7.0)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0.00 EUR"),
        (0.00002, "under 0.0001 EUR"),
        (0.0123, "0.0123 EUR"),
        (0.5, "0.50 EUR"),
        (1234.5, "1234.50 EUR"),
    ],
)
def test_small_amounts_keep_digits(amount, text):
    assert in_words(Use(seconds=amount), HOUR) == text


# -- in a loop ------------------------------------------------------------------------------------------


def test_without_prices_no_command_speaks_of_money(ran):
    path = ran(1)
    for command in (("plan", "-e", path), ("plan", "-e", path, "--json"), ("report", "-e", path, "--json")):
        said = here(*command)
        assert "money" not in said
        assert "that costs" not in said


def test_plan_tells_what_the_missing_rows_cost_and_nothing_of_what_is_fresh(ran):
    path = ran(1, costs=BOTH)
    plans = json.loads(here("plan", "2", "-e", path, "--json"))
    by_stage = {(one["iteration"], one["stage"]): one for one in plans}
    assert all(one["money"]["amount"] == 0 for one in plans if one["status"] == "fresh")
    waiting = by_stage["0002", "adapter_checkpoint"]
    took = Project.open(path).store.pointed("tiny", "0001", "adapter_checkpoint").seconds
    assert waiting["status"] == "waiting"
    assert waiting["money"]["whole"]
    assert waiting["money"]["amount"] == pytest.approx(took * 3.6 / 3600, rel=0.5)
    total = sum(one["money"]["amount"] for one in plans)
    last = [line for line in here("plan", "2", "-e", path).splitlines() if line.startswith("that costs")]
    assert last == [f"that costs {in_words(Use(seconds=1000 * total), Costs(device_hour=3.6), about=True)}"]


def test_budget_ends_the_loop_before_an_iteration_with_which_it_would_be_overspent(ran, make_experiment):
    project = Project.open(ran(1, costs=BOTH))
    spent = Money(project, project.planner()).spent().amount(project.experiment.costs)
    assert spent > 0

    def step(budget, iterations=None):
        project = Project.open(make_experiment(costs=BOTH, loop={"budget": budget}))
        return next_run(project, project.planner(), iterations)

    assert isinstance(step(100 * spent, 2), Run)
    for budget in (0.5 * spent, 1.01 * spent):
        end = step(budget, 2)
        assert isinstance(end, End)
        assert not end.passed, "two iterations were asked for"
        assert end.reason.startswith("loop.budget: ")
        assert "0002 would take about" in end.reason
        assert step(budget, 1) == End("all of the iterations up to 0001 are up to date", passed=True)


def test_loop_of_a_sensor_ends_at_its_budget_and_opens_nothing(started):
    def set_budget(budget):
        started.set(costs={"device_hour": 2.0, "currency": "USD"}, loop={"max_iterations": 3, "budget": budget})

    note = started.project.store.journal
    note("computed", experiment="made-up", iteration="0001", stage="policy", seconds=5400.0, tokens=0)
    note("computed", experiment="another", iteration="0001", stage="policy", seconds=5400.0, tokens=0)
    set_budget(3.0)
    end = "loop.budget: 3.00 USD of 3.00 USD are spent, and 0002 would take"
    assert started.drive().startswith(f"the loop is at its end: {end}")
    assert next_run(started.project, started.project.planner()).passed, "all that there is is up to date"
    assert list(started.opened()) == ["0001"]
    set_budget(3.1)
    assert asked(started.drive()) == ("iterate", "0002")


def test_reused_stage_is_not_spent_once_more_and_a_failed_one_is(ran, monkeypatch):
    project = Project.open(ran(1, costs=BOTH))
    spent = Money(project, project.planner()).spent
    before = spent()
    run_stage(project, "0001", "bad_cases", run_id="again")
    assert spent() == before

    def fails(step):
        USED.add({"usage": {"total_tokens": 7}})
        raise RuntimeError("half-way")

    monkeypatch.setitem(STAGES, "bad_cases", replace(STAGES["bad_cases"], compute=fails))
    project.forced.add(("0001", "bad_cases"))
    with pytest.raises(RuntimeError, match="half-way"):
        run_stage(project, "0001", "bad_cases", run_id="again")
    assert spent().tokens == before.tokens + 7


def test_tokens_are_those_that_the_endpoint_says_each_reply_took_unusable_ones_included(make_experiment, tmp_path):
    bodies = []

    def answer(body):
        bodies.append(body)
        reply = "no grade" if len(bodies) == 3 else always(5)(body)
        return 200, {}, json.dumps({"usage": {"total_tokens": 10}, **json.loads(completion(reply))})

    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(40))
    with serve(answer) as server:
        rubric = {"endpoint": server.url, "model": "m", "requests_per_minute": None, "in_flight": 1}
        project = Project.open(make_experiment(costs=BOTH, assessor={"kind": "rubric", "rubric": rubric}))
        project.open_iteration("0001")
        for name in ("domain_dataset", "policy", "eval_predictions"):
            manifest = run_stage(project, "0001", name, run_id="r").manifest
    assert len(bodies) == 13, "twelve rows, of which one was asked for twice"
    assert manifest.tokens == 130
    money = Money(project, project.planner())
    assert money.spent().tokens == 130
    assert money.measured.of_rows({"grades": 12}).tokens == pytest.approx(130)


def test_report_and_dagster_tell_what_results_cost_and_what_reuse_saved(ran, tmp_path):
    from apt_assets.orchestration.metadata import metadata

    path = ran(2, costs={**BOTH, "currency": "USD"})
    found = json.loads(here("report", "-e", path, "--json"))["money"]
    project = Project.open(path)
    planner = project.planner()
    cost = saved = 0.0
    for name in stages_of("0002"):
        manifest = planner.stage("0002", name).manifest
        mine = manifest.iteration == "0002"
        cost, saved = cost + manifest.seconds * mine / 1000, saved + manifest.seconds * (not mine) / 1000
        shown = metadata(project, planner, "0002", "computed", manifest, 1.0)
        assert shown["cost_USD"] == pytest.approx(manifest.seconds / 1000, abs=2e-6)
        again = metadata(project, planner, "0002", "hit", manifest, 0.0)
        assert (again["cost_USD"], again["saved_USD"]) == (0, shown["cost_USD"])
    assert found["iterations"]["0002"]["cost"] == pytest.approx(cost)
    assert found["iterations"]["0002"]["saved"] >= saved
    here("report", tmp_path / "r.html", "-e", path)
    page = (tmp_path / "r.html").read_text()
    assert "saved by reuse, USD" in page
    assert found["in_words"] in page


def test_run_tells_what_it_cost_and_one_that_reuses_all_costs_nothing(ran):
    path = ran(1, costs=BOTH, loop={"budget": 50.0})
    end = here("run", "1", "-e", path).splitlines()
    assert [line.partition(". ")[0] for line in end if line.startswith("this run cost")] == ["this run cost 0.00 EUR"]
    assert json.loads(here("run", "1", "-e", path, "--force", "bad_cases", "--json"))["money"]["seconds"] > 0


def test_budget_without_a_price_is_refused():
    with pytest.raises(ValueError, match=r"loop\.budget needs a price"):
        Experiment(name="m", loop={"budget": 3.0})
