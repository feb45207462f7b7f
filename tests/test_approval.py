"""A person approves of what the gate passed, or does not, before it is promoted."""

import pytest
from typer.testing import CliRunner

from apt_assets.cli import app
from apt_assets.engine.display import Display
from apt_assets.loop.approval import decide
from apt_assets.loop.gc import may_count, needs
from apt_assets.loop.promotions import promotions
from apt_assets.orchestration.metadata import check_metadata
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from apt_assets.report.explain import as_text, explain
from apt_assets.report.export import last_promoted
from apt_assets.report.findings import findings
from apt_assets.report.model_card import Names, model_card
from apt_assets.report.tables import score_rows
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import BASE
from tests import tiny
from tests.made_up import asked

REQUIRED = {"approval": "required"}
OWNERS = ["ann@example.org"]


@pytest.fixture
def waiting(started):
    """Iteration 0001 passed its gate and nobody has approved of it."""
    started.set(gate=REQUIRED, owners=OWNERS)
    return started


def card(project):
    return model_card(project, project.planner(), "0001", Names.here(project), merged=False)


def status(bench, key="0001", stage="promoted_adapter"):
    return bench.project.planner().stage(key, stage).status


def approve(bench, by="ann", reason="good on all ten", *, approves=True):
    return decide(bench.project, "0001", by, reason, approves=approves)


def test_driver_waits_for_the_owners_and_goes_on_once_one_approves(waiting):
    assert status(waiting) == "held"
    assert "0001 passed its gate and waits for the approval of ann@example.org" in waiting.drive()
    assert list(waiting.opened()) == ["0001"]
    assert "apt-assets run" in approve(waiting)
    assert status(waiting) == "fresh", "it was promoted before the experiment asked for approval"
    assert asked(waiting.drive()) == ("iterate", "0002")


def test_spent_budget_does_not_keep_back_what_a_person_approved_of(bench):
    prices = {"costs": {"device_hour": 2.0}, "loop": {"max_iterations": 3, "budget": 3.0}}
    bench.set(gate=REQUIRED, **prices)
    bench.land("a.jsonl")
    bench.notice()
    bench.compute()
    name = bench.project.experiment.name
    bench.project.store.journal("computed", experiment=name, seconds=7200.0, fingerprint="of another stage")
    approve(bench)
    assert asked(bench.drive()) == ("iterate", "0001")


def test_approval_in_one_experiment_promotes_in_no_other(bench):
    bench.set(gate=REQUIRED)
    bench.land("a.jsonl")
    bench.notice()
    bench.compute()
    approve(bench)
    other = bench.project.experiment.model_copy(update={"name": "another"})
    project = Project(other, bench.project.home)
    assert project.planner()._approvals == {}


def test_what_people_of_another_experiment_say_of_the_same_adapter_counts_there(waiting):
    other = Project(waiting.project.experiment.model_copy(update={"name": "another"}), waiting.project.home)
    other.open_iteration("0001")

    def in_use():
        kept = {(manifest.iteration, manifest.stage) for manifest in needs(waiting.project, 1)[0]}
        return [key for key, _ in promotions(waiting.project)], ("0001", "preference_pairs") in kept

    approve(waiting)
    waiting.refused.add("0002")
    waiting.land("b.jsonl", (5, 9))
    waiting.notice()
    waiting.compute()
    decide(other, "0001", "sam", "not for this one", approves=False)
    assert in_use() == (["0001"], True)
    approve(waiting, "ann", "rude", approves=False)
    decide(other, "0001", "sam", "fine for this one", approves=True)
    assert in_use() == ([], False)


def test_what_was_never_promoted_runs_after_the_approval(bench):
    bench.set(gate=REQUIRED)
    bench.land("a.jsonl")
    bench.notice()
    bench.compute()
    assert status(bench) == "held"
    assert "waits for the approval of a person" in bench.drive()
    approve(bench)
    request = bench.drive()
    assert asked(request) == ("iterate", "0001")
    assert request.tags["apt/why"] == "promoted_adapter is missing: never computed"


def test_new_data_opens_an_iteration_that_waits_too(waiting):
    waiting.land("b.jsonl", (5, 9))
    assert waiting.notice() == "opened iteration 0002 with b.jsonl"
    waiting.compute(BASE, "0001")
    assert "waits for the approval" in waiting.drive()
    plan = waiting.project.planner().stage("0002", "policy")
    assert plan.status == "waiting"
    assert "iteration 0001 passed its gate and waits" in plan.note
    approve(waiting)
    assert asked(waiting.drive()) == ("iterate", "0002")


def test_refusal_by_a_person_is_one_by_the_gate_and_the_last_decision_counts(waiting):
    approve(waiting, approves=False, reason="rude to customers")
    assert status(waiting) == "refused"
    assert waiting.drive() == (
        "the loop is at its end: iteration 0001 is not promoted: ann disapproved of it: rude to customers"
    )
    approve(waiting, by="bob", reason="I asked them")
    assert asked(waiting.drive()) == ("iterate", "0002")


def test_gate_that_decides_anew_to_the_same_keeps_its_approval_and_another_verdict_loses_it(waiting):
    approve(waiting)
    waiting.set(gate={**REQUIRED, "domain_tolerance": 0.1}, owners=OWNERS)
    assert status(waiting, stage="gate") == "stale"
    waiting.compute("0001")
    assert status(waiting) == "fresh"
    waiting.gain["0001"] = 0.2
    waiting.set(gate={**REQUIRED, "domain_tolerance": 0.2}, owners=OWNERS)
    waiting.compute("0001")
    assert status(waiting) == "held"


def test_adapter_that_a_person_refused_is_served_only_once_one_approves_of_it_whatever_its_gate_says_anew(waiting):
    def served():
        return [key for key, _ in promotions(waiting.project)]

    assert served() == ["0001"]
    approve(waiting, approves=False)
    assert served() == []
    waiting.gain["0001"] = 0.2
    waiting.set(gate={**REQUIRED, "domain_tolerance": 0.2}, owners=OWNERS)
    waiting.compute("0001")
    assert status(waiting) == "held"
    assert served() == []
    approve(waiting, by="bob", reason="I asked them")
    assert served() == ["0001"]


def test_decisions_on_a_verdict_hold_when_a_setting_brings_it_back(waiting):
    def decided(tolerance, **decision):
        waiting.set(gate={**REQUIRED, "domain_tolerance": tolerance}, owners=OWNERS)
        waiting.gain["0001"] = 0.2 if tolerance else 0.1
        waiting.compute("0001")
        if decision:
            approve(waiting, **decision)
            waiting.compute("0001")
        return status(waiting), [key for key, _ in promotions(waiting.project)]

    assert decided(0.0, approves=False) == ("refused", [])
    assert decided(0.2, by="bob", reason="I asked them") == ("fresh", ["0001"])
    assert decided(0.0) == ("refused", []), "what the loop says is refused is not served"
    assert decided(0.0, by="bob", reason="them too") == ("fresh", ["0001"])
    assert decided(0.2, approves=False) == ("refused", [])
    assert decided(0.0) == ("fresh", ["0001"]), "and what it says is promoted is"


def test_adapter_that_people_have_yet_to_decide_on_or_may_think_better_of_is_kept(ended):
    def adapters():
        kept, _ = needs(ended.project, keep=1)
        return [manifest for manifest in kept if manifest.stage == "adapter_checkpoint"]

    ended.set(gate=REQUIRED)
    assert len(adapters()) == 2, "of the last iteration, and one that waits"
    decide(ended.project, "0001", "ann", "rude to customers", approves=False)
    assert len(adapters()) == 2


def test_adapter_of_an_iteration_that_has_no_bad_case_since_is_not_served(started):
    started.bad_cases["0001"] = 0
    started.set(assessor={"bad_below": 2})
    assert [key for key, _ in promotions(started.project)] == ["0001"], "until it is known"
    started.compute("0001")
    assert status(started) == "stopped"
    assert list(promotions(started.project)) == []


def test_scores_of_what_was_trained_since_are_not_told_of_what_is_served(started):
    (key, promoted), *_ = promotions(started.project)
    assert started.project.planner().tells_of(key, promoted)
    started.set(training={"epochs": 2})
    assert started.project.planner().tells_of(key, promoted), "out of date, and still of that adapter"
    started.compute(key, before="gate")
    assert [one for one, _ in promotions(started.project)] == [key]
    assert not started.project.planner().tells_of(key, promoted)


def test_what_was_made_of_a_refused_adapter_is_neither_served_nor_kept_in_its_place(ended):
    project = ended.project
    ended.set(gate=REQUIRED)
    decide(ended.project, "0001", "ann", "good", approves=True)
    decide(ended.project, "0002", "ann", "better", approves=True)
    assert [key for key, _ in promotions(ended.project)] == ["0002", "0001"]
    decide(ended.project, "0001", "ann", "rude to customers", approves=False)
    assert status(ended, "0002") == "stopped"
    assert list(promotions(ended.project)) == []
    decide(ended.project, "0001", "ann", "I asked them", approves=True)
    decide(ended.project, "0002", "ann", "rude to customers", approves=False)
    assert [key for key, _ in promotions(ended.project)] == ["0001"]
    assert last_promoted(ended.project, ended.project.planner()) == "0001"
    needed, _ = needs(ended.project, keep=1)
    assert project.store.pointed(project.experiment.name, "0001", "preference_pairs") in needed, "all of it is kept"


@pytest.mark.parametrize(
    ("refused", "kept"),
    [((), ["0003"]), (("0003",), ["0002", "0003"]), (("0002",), ["0001", "0003"]), (("0001",), ["0003"])],
)
def test_of_another_experiment_every_promotion_is_kept_that_may_count_there(refused, kept):
    assert may_count(["0001", "0002", "0003"], set(refused)) == kept


def test_last_decision_counts_whatever_the_clocks_of_two_machines_say(waiting, monkeypatch):
    approve(waiting)
    approve(waiting, approves=False, reason="rude to customers")
    store = waiting.project.store
    events = list(store.events("approved", "disapproved"))
    monkeypatch.setattr(type(store), "events", lambda self, *kinds: iter(events[::-1]))  # as other clocks order them
    assert status(waiting) == "refused"
    assert list(promotions(waiting.project)) == []


def test_other_adapter_with_the_same_verdict_needs_an_approval_of_its_own(waiting):
    approve(waiting)
    waiting.set(gate=REQUIRED, owners=OWNERS, training={"beta": 0.3})
    waiting.compute("0001")
    assert status(waiting) == "held"


def test_asking_for_approval_decides_no_gate_anew(started):
    before = started.project.planner().stage("0001", "gate").manifest
    started.set(gate=REQUIRED)
    assert started.project.planner().stage("0001", "gate").manifest == before
    assert status(started, stage="gate") == "fresh"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": " "}, "--by: is empty"),
        ({"reason": ""}, "--reason: is empty"),
        ({"by": "J\udcf6rg"}, "--by: is not UTF-8"),
        ({"reason": "sch\udcf6n"}, "--reason: is not UTF-8"),
        ({"iteration": "0007"}, "0007 has no verdict that is up to date"),
    ],
)
def test_decision_that_cannot_be_kept_says_why(waiting, arguments, message):
    given = {"iteration": "0001", "by": "ann", "reason": "good", **arguments}
    with pytest.raises(UsageError, match=message):
        decide(waiting.project, **given, approves=True)


def test_history_of_a_stage_is_that_of_its_own_experiment(waiting):
    approve(waiting, by="ann", reason="good")
    where = {"iteration": "0001", "stage": "gate"}
    waiting.project.store.journal("disapproved", experiment="another", by="eve", reason="not ours", **where)
    assert [event.get("by") for event in explain(waiting.project, "gate", "0001")["journal"] if "by" in event] == [
        "ann"
    ]


def test_reason_of_an_approval_sends_nothing_to_the_terminal(waiting):
    approve(waiting, by="ann\x1b[31m", reason="good\x1b[2J")
    text = as_text(explain(waiting.project, "gate", "0001"))
    assert r"approved    ann\x1b[31m: good\x1b[2J" in text
    assert "\x1b" not in text


def test_nothing_is_approved_that_the_gate_refused_or_that_nobody_has_to_approve(bench):
    bench.refused.add("0001")
    bench.set(gate=REQUIRED)
    bench.land("a.jsonl")
    bench.notice()
    bench.compute()
    with pytest.raises(UsageError, match="did not pass, so there is nothing to approve: said the test"):
        approve(bench)
    bench.set()
    with pytest.raises(UsageError, match="asks for no approval: set `gate:"):
        approve(bench)


def test_base_has_nothing_to_approve_and_is_refused_in_a_line(ended):
    result = CliRunner().invoke(app, ["approve", "base", "--by", "ann", "--reason", "good"])
    with pytest.raises(UsageError, match="base has no gate"):
        raise result.exception


def test_loop_ends_with_waiting_and_the_command_lets_it_go_on(ran):
    path = ran(1, gate={**tiny.OPEN_GATE, **REQUIRED})
    ended = run_loop(Project.open(path), 1, Display())
    assert not ended.passed
    assert "waits for the approval of a person: `apt-assets approve 1 --by NAME --reason TEXT`" in ended.reason
    found = findings(Project.open(path))
    assert found["verdict"].startswith("Serve the adapter of iteration 0001: "), (
        "it was promoted before anybody was asked"
    )
    assert "Iteration 0001 passed its gate and waits for the approval of a person" in found["verdict"]
    assert score_rows(found)[-1][-1] == "waits for approval"
    assert found["iterations"][-1]["stages"]["promoted_adapter"]["status"] == "held"
    project = Project.open(path)
    verdict = project.planner().verdict("0001")
    follows = check_metadata(verdict["checks"][0], "0001", verdict)["what_follows"].value
    assert "apt-assets approve 1" in follows
    assert "Nobody has approved" in card(project)
    called = ["approve", "1", "--by", "Ann", "--reason", "as good as ours", "-e", str(path)]
    result = CliRunner().invoke(app, called)
    assert result.exit_code == 0, result.output
    project = Project.open(path)
    assert run_loop(project, 1, Display()).passed
    assert "Ann approved of that on 2" in card(project)
    assert "approved    Ann: as good as ours" in as_text(explain(project, "gate", "0001"))
    assert findings(project)["verdict"].startswith("Serve the adapter of iteration 0001: ")
    decide(project, "0001", "Bo", "rude to customers", approves=False)
    project.experiment_file.write_text(path.read_text().replace("domain_tolerance: 1.0", "domain_tolerance: 0.9"))
    found = findings(Project.open(path))
    assert found["served"] is None, "its gate is out of date, and a person's last word is not"
