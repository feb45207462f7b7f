"""A person approves of what the gate passed at the page of `apt-assets review`, and in Dagster."""

import re

import dagster as dg
import pytest

from apt_assets.orchestration.definitions import build_definitions
from apt_assets.project import Project
from apt_assets.promotion import APPROVED, DISAPPROVED
from apt_assets.review.desk import Desk
from apt_assets.review.journal import Journal
from tests import browsing, tiny
from tests.reviewing import TOKEN, case, queue


@pytest.fixture
def project(ran):
    """Iteration 0001 passed its gate and waits."""
    return Project.open(ran(1, gate={**tiny.OPEN_GATE, "approval": "required"}))


def seen(page):
    status, _, text = page.ask(f"/{TOKEN}/approval")
    assert status == 200, text
    return text


def of(text):
    return re.search(r'name="of" value="(\w+)"', text)[1]


def decisions(project):
    return [(event["event"], event["by"], event["reason"]) for event in project.store.events(APPROVED, DISAPPROVED)]


def promoted(project):
    return project.planner().stage("0001", "promoted_adapter").status


def test_page_shows_the_verdict_and_takes_the_decision_of_a_named_person_with_a_reason(desk_of, page_of, project):
    page = page_of(desk_of([case("A?")]))
    text = seen(page)
    assert "Nobody has decided" in text
    assert "domain passed: " in text
    assert promoted(project) == "held"
    page.post("approval", of=of(text), decision="approve", reason="read <b>40</b> of its answers")
    assert decisions(project) == [("approved", "Anna", "read <b>40</b> of its answers")]
    assert "Approved: read &lt;b&gt;40&lt;/b&gt; of its answers (Anna, " in seen(page)
    assert promoted(project) == "fresh"
    page.post("approval", of=of(text), decision="refuse", reason="rude to customers")
    assert promoted(project) == "refused"


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"decision": "approve", "reason": " "}, "--reason: is empty"),
        ({"decision": "approve", "reason": "good", "of": "0" * 64}, "computed anew since"),
        ({"reason": "good"}, "a decision is approve or refuse"),
    ],
)
def test_decision_without_a_reason_on_another_verdict_or_on_nothing_is_refused(desk_of, page_of, project, form, told):
    page = page_of(desk_of([]))
    status, _, text = page.ask(f"/{TOKEN}/approval", {"of": of(seen(page)), **form})
    assert (status, told in text) == (400, True), text
    assert decisions(project) == []


def test_experiment_that_asks_for_no_approval_has_no_page_of_it(page_of, ran):
    project = Project.open(ran(1))
    page = page_of(Desk(queue([case("A?")]), Journal(project, "Anna")))
    assert page.ask(f"/{TOKEN}/approval")[0] == 404
    assert "approval" not in page.ask(f"/{TOKEN}/cases")[2]


def test_job_in_dagster_decides_with_who_and_why_and_says_why_it_cannot(project):
    job = build_definitions(project).get_job_def("approve")

    def launch(**config):
        return job.execute_in_process({"ops": {"decide": {"config": config}}}, raise_on_error=False)

    assert launch(iteration="1", by="Ann", reason="good on all ten").success
    assert decisions(project) == [("approved", "Ann", "good on all ten")]
    assert launch(iteration="0001", by="Bob", reason="rude", refuse=True).success
    assert decisions(project)[-1] == ("disapproved", "Bob", "rude")
    failed = launch(iteration="2", by="Ann", reason="good")
    (event,) = [event for event in failed.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert "iteration 0002 has no verdict that is up to date" in event.step_failure_data.error_display_string


@pytest.mark.skipif(bool(browsing.lacking()), reason=browsing.lacking() or "")
def test_approval_with_a_keyboard_alone(desk_of, page_of, project):
    with browsing.chromium() as browser:
        shown = browser.new_page()
        shown.goto(page_of(desk_of([case("A?")])).address)
        for key in ("v", "w", *"good", "Enter"):
            shown.keyboard.press(key)
            if key == "v":
                shown.wait_for_url("**/approval")
        shown.wait_for_selector("#decided:has-text('Approved: good')")
    assert decisions(project) == [("approved", "Anna", "good")]
