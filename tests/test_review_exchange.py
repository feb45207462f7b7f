"""What passes between `apt-assets review` and other tools of annotation."""

import json
from pathlib import Path

import pytest

from apt_assets.method.corrections import taken_on
from apt_assets.project import Project
from apt_assets.review.exchange import decisions_of, write_tasks
from apt_assets.review.journal import Journal, decisions_in, now
from apt_assets.settings.experiment import UsageError
from tests import tiny
from tests.reviewing import asked, case, kept, without_data

DATA = Path(__file__).parent / "data" / "review"
# What Label Studio 1.23.2 exported, of a server on this machine into which the tasks below were imported: decided by
# its API, and one in its own page. And what the SDK of Argilla 2.8.0 wrote (Dataset.records.to_json), without a server.
EXPORTED = ("label-studio-1.23.2.json", "argilla-2.8.0.json")


@pytest.fixture
def project(tmp_path):
    return without_data(tmp_path)


@pytest.fixture
def exchanged(desk_of):
    cases = [case("Sky?"), case("Plum? <b>&\"'"), case("Coal?", also=["crimson"]), case("Snow?")]
    return desk_of(cases, [asked("Moon?", "white"), asked("Spam", "spam"), asked("Night?", "white")])


@pytest.mark.parametrize("name", EXPORTED)
def test_what_was_decided_in_another_tool_is_decided_here_once(exchanged, project, name):
    journal = exchanged.journal
    taken = decisions_of(DATA / name, journal)
    assert taken.notes == []
    journal.add(taken.lines)
    by = "label-studio:1" if "label" in name else "argilla:00000000-0000-0000-0000-000000000001"
    sky, plum, coal, _ = exchanged.queue.cases
    assert {line["by"] for line in journal.decided.values()} == {by}
    assert {line[:4] for line in kept(project)} - {("Sky?", "both_wrong", "azure", sky.row)} == {
        ("Sky?", "both_wrong", "blue", sky.row),
        (plum.prompt, "answer_is_right_too", "blue", plum.row),
        ("Coal?", "leave_out", None, coal.row),
        ("Moon?", "new_row", "white", taken_on("Moon?", "white", None)),
        ("Night?", "new_row", "black", taken_on("Night?", "black", None)),
        ("Spam", "no_row", None, None),
    }
    assert journal.decided[sky.row]["answer"] == "blue", "of two decisions the later one"
    assert [exchanged.open_items(kind) for kind in ("cases", "asked")] == [1, 0], "the skipped case is open"
    again = decisions_of(DATA / name, Journal(project, "Ben"))
    assert (again.lines, again.known) == ([], len(taken.lines))


@pytest.mark.parametrize(("tool", "name"), list(zip(("label-studio", "argilla"), EXPORTED, strict=True)))
def test_open_items_are_written_as_the_tool_took_them_and_decided_ones_are_not(exchanged, tmp_path, tool, name):
    (tasks, settings) = write_tasks(exchanged, tmp_path / "tasks.json", tool)
    known = json.loads((DATA / name).read_text())
    written = json.loads(tasks.read_text())
    part = "data" if tool == "label-studio" else "fields"
    took = {json.dumps(task[part], sort_keys=True) for task in known}
    assert {json.dumps(task[part], sort_keys=True) for task in written} == took
    assert settings.read_text().count("both_wrong") == 1
    exchanged.act("cases", 1, {"decision": "leave_out"})
    write_tasks(exchanged, tmp_path / "tasks.json", tool)
    assert len(json.loads(tasks.read_text())) == len(written) - 1


def test_same_file_of_argilla_again_overrides_no_decision_that_is_newer(exchanged, project):
    journal = exchanged.journal
    journal.add(decisions_of(DATA / EXPORTED[1], journal).lines)
    exchanged.act("cases", 3, {"decision": "gold_is_right"})
    exchanged.act("asked", 2, {"decision": "new_row"})
    for other in (journal, Journal(project, "Ben")):
        again = decisions_of(DATA / EXPORTED[1], other)
        assert again.lines == []
        assert again.known > 0


def test_decision_of_another_tool_that_lacks_something_is_told_and_the_others_are_taken_over(exchanged, tmp_path):
    tasks = json.loads((DATA / EXPORTED[0]).read_text())
    tasks[0]["annotations"][0]["result"].pop()  # the typed answer
    del tasks[3]["data"]["row"]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    taken = decisions_of(path, exchanged.journal)
    assert [note.split("not taken over: ")[1] for note in taken.notes] == [
        "answer: missing",
        "row: must be 16 hex digits",
    ]
    assert len(taken.lines) == 6


@pytest.mark.parametrize(
    ("field", "task"),
    [
        *(("annotations", {"annotations": its, "data": {}}) for its in (5, {"a": 1}, [5])),
        ("result", {"annotations": [{"result": "leave_out"}], "data": {}}),
        ("result", {"annotations": [{"result": [{"from_name": "decision", "value": None}]}], "data": {}}),
        ("result", {"annotations": [{"result": [{"from_name": "decision", "value": ["leave_out"]}]}], "data": {}}),
        ("decision", {"annotations": [{"result": [{"value": {"choices": [["leave_out"]]}}]}], "data": {}}),
        ("responses", {"responses": ["leave_out"], "fields": {}}),
        ("responses", {"responses": {"decision": {"value": "leave_out"}}, "fields": {}}),
        ("decision", {"responses": {"decision": [{"value": ["leave_out"]}]}, "fields": {}}),
        ("prompt", {"responses": {"decision": [{"value": "leave_out"}]}, "fields": None}),
    ],
)
def test_decision_of_another_form_is_told_with_its_field(exchanged, tmp_path, field, task):
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task]))
    taken = decisions_of(path, exchanged.journal)
    assert taken.lines == []
    assert taken.notes[0].startswith(f"{path}: decision 1 is not taken over: {field}: ")


def test_decision_of_the_future_is_not_taken_over_and_the_next_one_is_dated_now(exchanged, project, tmp_path):
    row = exchanged.queue.cases[0].row
    line = {"prompt": "Sky?", "decision": "leave_out", "row": row, "by": "ann"}
    path = tmp_path / "corrections-20261130T100000Z.jsonl"
    path.write_text(json.dumps({**line, "at": "9999-12-31T23:59:59.999999+00:00"}))
    taken = decisions_of(path, exchanged.journal)
    assert (taken.lines, [note.split("over: ")[1] for note in taken.notes]) == ([], ["at: is in the future"])
    exchanged.act("cases", 1, {"decision": "leave_out"})
    (kept_line,) = decisions_in(project.landing)
    assert kept_line["at"] <= now()


def test_of_the_decisions_of_a_file_the_last_one_holds_although_it_says_what_held_here_before(project, tmp_path):
    row, journal = case("Sky?").row, Journal(project, "Ben")

    def line(decision, by, day):
        return {"prompt": "Sky?", "decision": decision, "row": row, "by": by, "at": f"2026-11-{day}T10:00:00+00:00"}

    journal.add([{**line("gold_is_right", "Anna", 20), "answer": None}])
    path = tiny.write_jsonl(
        tmp_path / "corrections-20261122T100000Z.jsonl",
        [line("leave_out", "Carl", 21), line("gold_is_right", "Bob", 22)],
    )
    journal.add(decisions_of(path, journal).lines)
    held = Journal(project, "Dora").decided[row]
    assert (held["decision"], held["by"]) == ("gold_is_right", "Bob")
    assert decisions_of(path, journal).lines == []


def test_decision_that_does_not_hold_as_a_later_one_is_here_is_taken_over_and_told(exchanged, tmp_path):
    exchanged.act("cases", 1, {"decision": "leave_out"})
    row = exchanged.queue.cases[0].row
    path = tmp_path / "corrections-20261130T100000Z.jsonl"
    line = {
        "prompt": "Sky?",
        "decision": "gold_is_right",
        "row": row,
        "by": "ann",
        "at": "2026-01-01T00:00:00.000000+00:00",
    }
    path.write_text(json.dumps(line))
    taken = decisions_of(path, exchanged.journal)
    (holds,) = exchanged.journal.decided.values()
    assert len(taken.lines) == 1
    assert taken.notes == [f"{path}: decision 1 is older than that of {holds['by']}, which holds: {holds['at']}"]


@pytest.mark.parametrize("content", ["[]", "{}", "[1]", '[{"prompt": "Sky?"}]', "[", "[" * 100_000])
def test_file_of_no_tool_is_refused(exchanged, tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(UsageError):
        decisions_of(path, exchanged.journal)


def test_corrections_of_another_machine_are_taken_over_with_who_and_when(exchanged, project, tmp_path):
    exchanged.act("cases", 1, {"decision": "leave_out"})
    (line,) = decisions_in(project.landing)
    (path,) = project.landing.iterdir()
    other = Journal(Project(project.experiment, tmp_path / "other"), "Ben")
    taken = decisions_of(path, other)
    other.add(taken.lines)
    assert [(line["by"], line["at"])] == [(it["by"], it["at"]) for it in other.decided.values()]
    assert decisions_of(path, other).known == 1
