"""`apt-assets review`: what its page shows and keeps, and whom it refuses."""

import json
import os
import signal
import subprocess
import sys

import polars as pl
import pytest
import requests

from apt_assets.assets.domain_dataset import domain_of
from apt_assets.engine.execute import run_stage
from apt_assets.landing.human_grades import read_human_grades
from apt_assets.landing.names import is_corrections
from apt_assets.loop.next_run import next_run, unused
from apt_assets.method.corrections import taken_on
from apt_assets.method.judge import one_grade_each
from apt_assets.method.splits import row_id
from apt_assets.project import Project
from apt_assets.review import command
from apt_assets.review import journal as journals
from apt_assets.review.desk import Desk
from apt_assets.review.exchange import write_tasks
from apt_assets.review.journal import Journal
from apt_assets.review.queue import asked_of, drawn, queue_of, ranked
from apt_assets.settings.experiment import REPOSITORY, UsageError
from apt_assets.settings.iterations import BASE
from schemas.tables import BadCases, DoubtfulGolds, Predictions
from tests import tiny
from tests.reviewing import TOKEN, answer, asked, case, kept, queue, without_data
from tests.waiting import until


@pytest.fixture
def project(tmp_path):
    return without_data(tmp_path)


# -- who is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/wrong/cases/1", {}),
        ("/", {}),
        ("/t%30ke/cases/1", {}),
        ("/cases/1", {}),
        (f"/{TOKEN}/cases/1", {"Host": "evil.example:80"}),
        (f"/{TOKEN}/cases/1", {"Host": "127.0.0.1.evil.example"}),
        (f"/{TOKEN}/cases/1", {"Host": "[broken"}),
        (f"/{TOKEN}/cases/1", {"Origin": "https://evil.example"}),
        (f"/{TOKEN}/cases/1", {"Origin": "null"}),
        (f"/{TOKEN}/cases/1", {"Origin": "http://127.0.0.1:1"}),
        (f"/{TOKEN}/cases/1", {"Host": "localhost:1", "Origin": "http://127.0.0.1:1"}),
    ],
)
def test_request_with_a_wrong_token_or_from_elsewhere_is_refused_and_changes_nothing(
    desk_of, page_of, project, path, headers
):
    page = page_of(desk_of([case("SECRET?")]))
    for form in (None, {"decision": "leave_out"}):
        status, _, text = page.ask(path, form, **headers)
        assert status == 403
        assert "SECRET" not in text
    assert kept(project) == []


def test_change_that_does_not_say_where_it_comes_from_is_refused(desk_of, page_of, project):
    page = page_of(desk_of([case("Sky?")]))
    for path in ("cases/1", "undo"):
        status, _, _ = page.ask(f"/{TOKEN}/{path}", {"decision": "leave_out"}, Origin=None)
        assert status == 403
    assert kept(project) == []


def test_page_behind_a_tunnel_has_another_port_and_is_served(desk_of, page_of):
    page = page_of(desk_of([case("Sky?")]))
    own = {"Host": "localhost:8080", "Origin": "http://localhost:8080"}
    assert page.ask(f"/{TOKEN}/cases/1", {"decision": "gold_is_right"}, **own)[0] == 303


def test_text_of_a_row_or_a_model_is_never_markup(desk_of, page_of):
    hostile = tiny.HOSTILE
    similar = {row_id(hostile): [{"prompt": hostile, "answer": hostile, "similarity": 0.5}]}
    answers = [answer(hostile, hostile, hostile, also=[hostile + "!"])]
    cases = [case(hostile, hostile, hostile, also=[hostile + "!"])]
    desk = desk_of(cases, [asked(hostile, hostile)], similar=similar, answers=answers)
    page = page_of(desk)
    for path in ("cases", "cases/1", "asked", "asked/1", "grades", "grades/1"):
        status, headers, text = page.ask(f"/{TOKEN}/{path}")
        assert status == 200
        assert "&lt;script&gt;alert(" in text
        assert "<script>alert(" not in text
        assert "<img" not in text
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"].split("script-src")[1]
        assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("cases/0", {"decision": "leave_out"}, 404),
        ("cases/2", {"decision": "leave_out"}, 404),
        ("others/1", {"decision": "leave_out"}, 404),
        ("cases/1", {"decision": "drop_table"}, 400),
        ("cases/1", {}, 400),
        ("cases/1", {"decision": "both_wrong", "answer": "  "}, 400),
        ("grades/1", {"grade": "6"}, 400),
        ("grades/1", {"decision": "leave_out"}, 400),
        ("cases/1", {"decision": "both_wrong", "answer": "x" * (5 << 20)}, 413),
    ],
)
def test_form_that_says_nothing_we_know_is_refused_in_a_line(desk_of, page_of, project, path, form, status):
    found, _, text = page_of(desk_of([case("Sky?")], answers=[answer("Sea?", "blue", "red")])).ask(
        f"/{TOKEN}/{path}", form
    )
    assert found == status
    assert "Traceback" not in text
    assert kept(project) == []


# -- what is kept ----------------------------------------------------------------------------------------


def test_each_decision_is_a_line_on_the_disk_and_leads_to_the_next_open_case(desk_of, page_of, project):
    cases = [case("A?"), case("B?"), case("C?", also=["rose"]), case("D?")]
    page = page_of(desk_of(cases))
    assert page.post("cases/2", decision="gold_is_right") == "cases/3"
    assert page.post("cases/3", decision="answer_is_right_too") == "cases/4"
    assert page.post("cases/4", decision="both_wrong", answer=" two\r\nlines ") == "cases/1"
    assert page.post("cases/1", decision="leave_out") == "cases"
    assert kept(project) == [
        ("B?", "gold_is_right", None, cases[1].row, "Anna"),
        ("C?", "answer_is_right_too", "blue", cases[2].row, "Anna"),
        ("D?", "both_wrong", "two\nlines", cases[3].row, "Anna"),
        ("A?", "leave_out", None, cases[0].row, "Anna"),
    ]
    assert [path.name for path in project.landing.iterdir()] == project.landed()
    assert "both wrong: two\nlines (Anna, " in page.ask(f"/{TOKEN}/cases/4")[2]
    again = Desk(page.desk.queue, Journal(project, "Ben"))
    assert again.following("cases", 0) is None, "whoever comes next sees what was decided"


def test_undo_takes_back_what_this_person_decided_last_and_goes_there(desk_of, page_of, project):
    page = page_of(desk_of([case("A?"), case("B?")], [asked("Moon?", "white"), asked("Spam", "white")]))
    for path, kind in (("cases/1", "leave_out"), ("asked/1", "new_row"), ("asked/2", "no_row")):
        page.post(path, decision=kind)
    assert [page.post("undo") for _ in range(4)] == ["asked/2", "asked/1", "cases/1", ""]
    assert all(page.desk.open_items(kind) == 2 for kind in ("cases", "asked"))
    assert [line[1] for line in kept(project)] == ["leave_out", "new_row", "no_row", "undo", "undo", "undo"]
    assert Desk(page.desk.queue, Journal(project, "Ben")).open_items("asked") == 2
    assert [project.usable_rows(name) for name in project.landed()] == [0], "nothing is left to open an iteration for"


def test_last_decision_holds_although_the_clock_was_set_back_and_so_does_its_undo(desk_of, project, monkeypatch):
    desk = desk_of([case("A?")])

    def decided():
        return Desk(desk.queue, Journal(project, "Ben")).decision(desk.item("cases", 1))["decision"]

    monkeypatch.setattr(journals, "now", lambda: "2026-11-29T12:00:00.000000+00:00")
    desk.act("cases", 1, {"decision": "leave_out"})
    monkeypatch.setattr(journals, "now", lambda: "2026-11-29T11:00:00.000000+00:00")
    desk.act("cases", 1, {"decision": "both_wrong", "answer": "green"})
    assert desk.decision(desk.item("cases", 1))["decision"] == decided() == "both_wrong"
    desk.undo()
    assert decided() == "leave_out"


def test_last_decision_and_grade_hold_beside_a_page_whose_clock_is_ahead(desk_of, project, monkeypatch):
    mine, theirs = desk_of([case("A?")]), Desk(desk_of([case("A?")]).queue, Journal(project, "Ben"))
    monkeypatch.setattr(journals, "now", lambda: "2026-11-29T12:05:00.000000+00:00")
    theirs.act("cases", 1, {"decision": "leave_out"})
    theirs.journal.grade("A?", "red", ["blue"], 2)
    monkeypatch.setattr(journals, "now", lambda: "2026-11-29T12:01:00.000000+00:00")
    mine.act("cases", 1, {"decision": "both_wrong", "answer": "green"})
    theirs.journal.grade("A?", "red", ["blue"], 5)
    later = Journal(project, "Ben")
    assert Desk(mine.queue, later).decision(mine.item("cases", 1))["decision"] == "both_wrong"
    assert later.graded("A?", "red") == 5


def test_asked_question_lands_as_a_row_with_the_answer_that_people_gave(desk_of, page_of, project):
    questions = [asked("Moon?", "white"), asked("Night?", "white"), asked("Spam", "white")]
    page = page_of(desk_of([], questions))
    assert page.post("asked/1", decision="new_row") == "asked/2"
    assert page.post("asked/2", decision="both_wrong", answer="black") == "asked/3"
    assert page.post("asked/3", decision="no_row") == "asked"
    (name,) = project.landed()
    tables, _ = domain_of(project.experiment, [project.landing / name])
    rows = pl.concat([tables[split] for split in ("train", "validation", "test")])
    assert sorted(rows.select("prompt", "answer").rows()) == [("Moon?", "white"), ("Night?", "black")]
    assert tables["quarantine"].is_empty()


def test_asked_question_that_landed_and_then_is_not_to_land_leaves_the_data(desk_of, project):
    tiny.write_jsonl(project.landing / "colours.jsonl", tiny.domain_rows(5))
    desk = desk_of([], [asked("Moon?", "white"), asked("Night?", "white")])
    desk.act("asked", 1, {"decision": "new_row"})
    desk.act("asked", 2, {"decision": "both_wrong", "answer": "black"})
    project.open_iteration("0001")
    desk.act("asked", 1, {"decision": "no_row"})
    desk.act("asked", 2, {"decision": "no_row"})
    assert desk.open_items("asked") == 0
    made = [name for name in project.landed() if is_corrections(name)]
    assert [project.usable_rows(name) for name in made] == [2, 2], "an iteration is opened to take them out"
    tables, _ = domain_of(project.experiment, [project.landing / name for name in project.landed()])
    rows = pl.concat([tables[split] for split in ("train", "validation", "test")])
    assert not {"Moon?", "Night?"} & set(rows["prompt"])
    assert desk.undo() == ("asked", 2)
    tables, _ = domain_of(project.experiment, [project.landing / name for name in project.landed()])
    rows = pl.concat([tables[split] for split in ("train", "validation", "test")])
    assert rows.filter(prompt="Night?")["answer"].to_list() == ["black"], "what held before holds again"
    assert "Moon?" not in set(rows["prompt"])


def test_undo_gives_back_the_earlier_decision_of_another_person_and_of_ones_own(desk_of, page_of, project):
    items = queue([case("A?"), case("B?")])
    Desk(items, Journal(project, "Ben")).act("cases", 1, {"decision": "both_wrong", "answer": "green"})
    page = page_of(Desk(items, Journal(project, "Anna")))
    page.post("cases/1", decision="leave_out")
    page.post("cases/2", decision="gold_is_right")
    page.post("cases/2", decision="answer_is_right_too")
    assert [page.post("undo") for _ in range(2)] == ["cases/2", "cases/2"]
    assert page.post("undo") == "cases/1"
    for desk in (page.desk, Desk(items, Journal(project, "Carl"))):
        held = desk.decision(items.cases[0])
        assert (held["decision"], held["answer"], held["by"]) == ("both_wrong", "green", "Ben")
        assert desk.open_items("cases") == 1


def test_question_that_was_answered_with_nothing_is_shown_and_can_only_be_typed(desk_of, page_of, project, tmp_path):
    line = {"prompt": "Moon?", "answer": " ", "adapter": "a", "asked_at": "2026-11-28T10:00:00Z"}
    tiny.write_jsonl(tmp_path / "log" / "asked.jsonl", [line, {**line, "prompt": "Sea?", "answer": None}])
    found, unreadable = asked_of(tmp_path / "log")
    assert ([one.prompt for one in found], unreadable) == (["Moon?"], 1)
    desk = desk_of([], found)
    page = page_of(desk)
    assert 'data-key="a"' not in page.ask(f"/{TOKEN}/asked/1")[2]
    assert page.ask(f"/{TOKEN}/asked/1", {"decision": "new_row"})[0] == 400
    (tasks, _) = write_tasks(desk, tmp_path / "tasks.json", "label-studio")
    assert json.loads(tasks.read_text()) == []
    page.post("asked/1", decision="both_wrong", answer="white")
    assert kept(project) == [("Moon?", "new_row", "white", taken_on("Moon?", "white", None), "Anna")]


def test_file_that_another_experiment_on_the_same_landing_folder_took_up_is_left_as_it_is(desk_of, project):
    tiny.write_jsonl(project.landing / "colours.jsonl", tiny.domain_rows(5))
    desk = desk_of([case("A?"), case("B?")])
    desk.act("cases", 1, {"decision": "gold_is_right"})
    other = Project(project.experiment.model_copy(update={"name": "other"}), project.home)
    assert other.landing == project.landing
    other.open_iteration("0001")
    desk.act("cases", 2, {"decision": "gold_is_right"})
    assert sum(map(is_corrections, project.landed())) == 2


def test_grades_of_drawn_answers_are_kept_with_all_golds_and_lead_to_the_next_open_one(desk_of, page_of, project):
    answers = [answer("Sky?", "blue", "azure", also=["cyan"]), answer("Coal?", "black", "")]
    page = page_of(desk_of([case("Plum?", grade=2)], answers=answers))
    shown = page.ask(f"/{TOKEN}/grades/1")[2]
    assert all(text in shown for text in ("Sky?", "blue", "cyan", "azure", 'data-key="5"'))
    assert 'name="decision"' not in shown
    assert page.post("grades/1", grade="4") == "grades/2"
    assert page.post("grades/2", grade="1") == "grades"
    assert page.post("grades/1", grade="5") == "grades"
    assert 'data-key="5" aria-pressed="true"' in page.ask(f"/{TOKEN}/grades/1")[2]
    (path,) = (project.home / "human-grades" / "icd10").glob("*.jsonl")
    rows, rejects = read_human_grades([path])
    assert rejects == []
    graded = one_grade_each(rows).select("prompt", "answer", "gold", "also", "grade", "by").rows()
    assert graded == [("Sky?", "azure", "blue", '["cyan"]', 5, "Anna"), ("Coal?", "", "black", None, 1, "Anna")]
    assert Desk(page.desk.queue, Journal(project, "Anna")).open_items("grades") == 0, "Anna goes on where she ended"
    assert Desk(page.desk.queue, Journal(project, "Ben")).open_items("grades") == 2, "each person grades alone"
    assert kept(project) == []


def test_bad_case_takes_no_grade_since_grades_of_bad_cases_alone_say_nothing_of_a_judge(desk_of, page_of, project):
    page = page_of(desk_of([case("Sky?")]))
    assert 'name="grade"' not in page.ask(f"/{TOKEN}/cases/1")[2]
    assert page.ask(f"/{TOKEN}/cases/1", {"grade": "4"})[0] == 400
    assert not (project.home / "human-grades").exists()


def test_answers_to_grade_are_drawn_among_right_and_wrong_ones_and_the_same_again():
    rows = [(row_id(f"q {n}"), f"q {n}", "red", None, "blue", 1 + n % 5, False) for n in range(1000)]
    answered = pl.DataFrame(rows, schema=Predictions.empty().schema, orient="row")
    found = drawn(answered)
    assert len({one.row_id for one in found}) == 200
    grades = dict(answered.select("row_id", "grade").rows())
    right = sum(grades[one.row_id] >= 4 for one in found)
    assert 50 < right < 110, "400 of 1000 are right"
    assert drawn(answered.reverse()) == found
    assert drawn(None) == []


def test_decision_that_the_disk_does_not_take_is_not_shown_as_taken(desk_of, page_of, project, monkeypatch):
    page = page_of(desk_of([case("A?"), case("B?")]))
    page.post("cases/1", decision="gold_is_right")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journals.os, "fsync", full)
        status, _, text = page.ask(f"/{TOKEN}/cases/2", {"decision": "leave_out"})
    assert (status, "No space left" in text) == (507, True)
    assert len(kept(project)) == 1
    assert page.desk.following("cases", 0) == 2
    assert page.post("cases/2", decision="leave_out") == "cases"
    assert len(kept(project)) == 2


def test_iteration_that_took_a_file_up_stays_as_it_is_whatever_is_decided_after(desk_of, project):
    tiny.write_jsonl(project.landing / "colours.jsonl", tiny.domain_rows(5))
    desk = desk_of([case("A?"), case("B?"), case("C?")])
    desk.act("cases", 1, {"decision": "gold_is_right"})
    project.open_iteration("0001")
    (first,) = [name for name in project.landed() if is_corrections(name)]
    before = project.landing_files("0001")
    assert first in before
    desk.act("cases", 2, {"decision": "gold_is_right"})
    desk.act("cases", 3, {"decision": "gold_is_right"})
    assert project.landing_files("0001") == before
    (second,) = set(project.landed()) - set(before)
    assert [project.usable_rows(name) for name in (first, second)] == [1, 2]


# -- the queue -------------------------------------------------------------------------------------------


def test_ten_thousand_cases_are_ranked_by_doubt_and_shown_page_by_page(desk_of, page_of):
    rows = [(row_id(f"q {n}"), f"q {n}", "red", None, "blue", 1 + n % 3, False) for n in range(10_000)]
    bad = pl.DataFrame(rows, schema=BadCases.empty().schema, orient="row")
    doubts = bad.head(9000).with_columns(
        kind=pl.lit("bad_case"),
        other=pl.lit("green"),
        votes=pl.lit(0.0),
        votes_other=pl.lit(1.0),
        log_prob_gold=pl.lit(None, pl.Float64),
        log_prob_prediction=pl.lit(None, pl.Float64),
        doubt=pl.Series([n / 9000 for n in range(9000)]),
    )
    cases = ranked(bad, doubts.select(list(DoubtfulGolds.empty().schema)))
    assert [one.prompt for one in cases[:2]] == ["q 8999", "q 8998"]
    assert {one.doubt for one in cases[9000:]} == {None}
    page = page_of(desk_of(cases))
    listed = page.ask(f"/{TOKEN}/cases?page=3")[2]
    assert listed.count("<tr>") == 51
    assert 'href="cases/101"' in listed
    assert 'href="cases/10000"' in page.ask(f"/{TOKEN}/cases?page=99999")[2]
    assert len(listed) < 60_000
    assert "10000 of 10000" in page.ask(f"/{TOKEN}/cases/10000")[2]
    assert page.post("cases/10000", decision="leave_out") == "cases/1"


def test_asked_questions_are_shown_once_the_last_asked_first_and_broken_lines_are_counted(tmp_path):
    lines = [
        {"prompt": "Moon?", "answer": "white", "adapter": "a", "asked_at": "2026-11-28T10:00:00Z"},
        {"prompt": "Night?", "answer": "black", "adapter": "a", "asked_at": "2026-11-28T11:00:00Z"},
        {"prompt": "moon", "answer": "grey", "adapter": "b", "asked_at": "2026-11-28T14:00:00+02:00"},
        {"prompt": "No time?", "answer": "grey", "adapter": "b"},
    ]
    path = tiny.write_jsonl(tmp_path / "log.jsonl", lines)
    path.write_text(path.read_text() + '{"prompt": "half')
    found, unreadable = asked_of(tmp_path)
    assert [(one.prompt, one.prediction, one.times) for one in found] == [("moon", "grey", 2), ("Night?", "black", 1)]
    assert unreadable == 2
    assert asked_of(tmp_path / "none") == ([], 0)


def test_queue_is_of_the_last_iteration_that_has_bad_cases_with_their_similar_ones(ran):
    project = Project.open(ran(1))
    found = queue_of(project, None)
    assert found.iteration == "0001"
    doubts = [one.doubt for one in found.cases]
    assert doubts == sorted(doubts, reverse=True)
    near = [row for rows in found.similar.values() for row in rows]
    assert near
    assert set(found.similar) <= {one.row_id for one in found.cases}
    assert all({"prompt", "answer", "prediction", "grade"} <= row.keys() for row in near)
    assert {one.prompt for one in found.answers} >= {one.prompt for one in found.cases}
    with pytest.raises(UsageError, match="iteration 0007 has no bad cases"):
        queue_of(project, "0007")


def test_decision_is_new_data_for_the_next_iteration_and_leaves_the_last_one_and_the_base_scores_fresh(ran):
    project = Project.open(ran(1))
    assert unused(project, ["0001"]) == []
    desk = Desk(queue_of(project, None), Journal(project, "Anna"))
    desk.act("cases", 1, {"decision": "leave_out"})
    assert project.planner().out_of_date(BASE)[0].stage == "heldout_rows", "it looks at all that has landed"
    run_stage(project, BASE, "heldout_rows", run_id="r", log=lambda line: None)
    planner = project.planner()
    assert planner.out_of_date(BASE) + planner.out_of_date("0001") == [], "a training row is none of the held-out ones"
    assert [is_corrections(name) for name in unused(project, ["0001"])] == [True]
    assert next_run(project, project.planner()).key == "0002"


# -- the command -----------------------------------------------------------------------------------------


@pytest.mark.slow("processes")
def test_command_serves_asked_questions_before_any_iteration_until_ctrl_c(tmp_path):
    line = {"prompt": "Moon?", "answer": "white", "adapter": "a", "asked_at": "2026-11-28T10:00:00Z"}
    tiny.write_jsonl(tmp_path / "review" / "queue" / "icd10" / "log.jsonl", [line])
    command = [sys.executable, "-m", "apt_assets.cli", "review", "--port", "0", "--by", "Ben"]
    environment = {**os.environ, "APT_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    environment.pop("APT_EXPERIMENT", None)
    said = tmp_path / "said"
    with said.open("w") as stderr, subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=stderr) as process:
        try:
            until(lambda: "/ (Ctrl-C" in said.read_text() or process.poll() is not None, 120)
            address = next(word for word in said.read_text().split() if word.startswith("http://"))
            answer = requests.get(address, timeout=30)
            assert (answer.status_code, "Moon?" in answer.text) == (200, True)
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0, said.read_text()
    assert "0 decisions are kept" in said.read_text()


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_user_without_a_name_can_review(tmp_path, monkeypatch, error):
    def no_name():
        raise error("no such user")

    monkeypatch.setattr(command.getpass, "getuser", no_name)
    line = {"prompt": "Moon?", "answer": "white", "adapter": "a", "asked_at": "2026-11-28T10:00:00Z"}
    tiny.write_jsonl(tmp_path / "review" / "queue" / "icd10" / "log.jsonl", [line])
    tasks = tmp_path / "tasks.json"
    project = without_data(tmp_path)
    command.review(project, None, by=None, port=0, export_to=(tasks, "argilla"), imported=None)
    assert "Moon?" in tasks.read_text()


def test_name_that_a_terminal_of_another_encoding_sent_is_refused(project):
    with pytest.raises(UsageError, match="--by: is not UTF-8"):
        command.review(project, None, by="J\udcf6rg", port=0, export_to=None, imported=None)


def test_undo_leaves_what_another_person_decided_since(desk_of, page_of, project):
    items = queue([case("A?"), case("B?")])
    anna, ben = (Desk(items, Journal(project, name)) for name in ("Anna", "Ben"))
    anna.act("cases", 1, {"decision": "leave_out"})
    ben.act("cases", 1, {"decision": "both_wrong", "answer": "blue"})
    assert [anna.undo() for _ in range(2)] == [("cases", 1), None]
    held = Desk(items, Journal(project, "Carl")).decision(items.cases[0])
    assert (held["decision"], held["by"]) == ("both_wrong", "Ben")


def test_undo_leaves_another_answer_of_somebody_of_the_same_name_and_takes_back_a_form_that_was_sent_twice(project):
    items = queue([case("A?"), case("B?")])
    one, other = (Desk(items, Journal(project, "root")) for _ in range(2))
    one.act("cases", 1, {"decision": "both_wrong", "answer": "green"})
    other.act("cases", 1, {"decision": "both_wrong", "answer": "violet"})
    one.undo()
    assert Desk(items, Journal(project, "x")).decision(items.cases[0])["answer"] == "violet"
    for _ in range(2):
        one.act("cases", 2, {"decision": "leave_out"})
    one.undo()
    assert Desk(items, Journal(project, "x")).decision(items.cases[1]) is None


def test_decision_without_an_answer_names_none_and_own_file_that_was_taken_away_takes_all_back(project):
    items = queue([case("A?"), case("B?")])
    desk = Desk(items, Journal(project, "Anna"))
    desk.act("cases", 1, {"decision": "gold_is_right"})
    assert desk.decision(items.cases[0])["answer"] is None
    (file,) = project.landing.glob("corrections-*.jsonl")
    file.unlink()
    desk.journal.look()
    assert desk.decision(items.cases[0]) is None
    desk.act("cases", 2, {"decision": "leave_out"})
    assert [line[0] for line in kept(project)] == ["B?"]


def test_long_text_is_shown_from_both_ends_with_what_is_left_out(desk_of, page_of):
    page = page_of(desk_of([case(f"Context {'x' * 30_000} and so: which colour?")]))
    status, _, shown = page.ask(f"/{TOKEN}/cases/1")
    assert status == 200
    assert "and so: which colour?" in shown
    assert "characters are not shown" in shown
    assert page.ask(f"/{TOKEN}/cases?page={'9' * 5000}")[0] == 200


@pytest.mark.parametrize("decision", ["gold_is_right", "leave_out", "answer_is_right_too"])
def test_undo_takes_back_ones_own_decision_although_somebody_decided_about_another_item(project, decision):
    items = queue([case("A?"), case("B?"), case("C?")])
    anna, ben = (Desk(items, Journal(project, name)) for name in ("Anna", "Ben"))
    anna.act("cases", 1, {"decision": decision})
    ben.act("cases", 2, {"decision": "leave_out"})
    anna.act("cases", 3, {"decision": "leave_out"})
    assert [anna.undo() for _ in range(2)] == [("cases", 3), ("cases", 1)]
    desk = Desk(items, Journal(project, "Carl"))
    assert [desk.decision(item) is None for item in items.cases] == [True, False, True]
