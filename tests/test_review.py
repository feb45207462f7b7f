"""`apt-assets review`: what its page shows and keeps, whom it refuses, and what passes to and from other tools."""

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from urllib.parse import urlencode

import polars as pl
import pytest
import requests
import uvicorn

from apt_assets.assets.domain_dataset import domain_of
from apt_assets.engine.execute import run_stage
from apt_assets.landing.corrections import is_corrections
from apt_assets.landing.human_grades import read_human_grades
from apt_assets.loop.next_run import next_run, unused
from apt_assets.method.corrections import taken_on
from apt_assets.method.judge import one_grade_each
from apt_assets.method.splits import row_id
from apt_assets.project import Project
from apt_assets.review import journal as journals
from apt_assets.review.desk import Desk
from apt_assets.review.exchange import decisions_of, write_tasks
from apt_assets.review.journal import Journal, decisions_in
from apt_assets.review.queue import Answer, Asked, Case, Queue, asked_of, drawn, queue_of, ranked
from apt_assets.review.server import listening, make_app
from apt_assets.settings.experiment import REPOSITORY, UsageError
from apt_assets.settings.iterations import BASE
from apt_assets.settings.reader import load_experiment
from schemas.tables import BadCases, DoubtfulGolds, Predictions
from tests import browsing, tiny
from tests.waiting import until

TOKEN = "t0ken"
DATA = Path(__file__).parent / "data" / "review"


def case(prompt, gold="red", prediction="blue", *, doubt=0.5, grade=2, also=()):
    further = json.dumps(list(also)) if also else None
    identity = row_id(prompt)
    return Case(identity, taken_on(prompt, gold, further), prompt, (gold, *also), prediction, grade, doubt, None)


def asked(prompt, answer, at="2026-11-28T10:00:00+00:00"):
    return Asked(row_id(prompt), prompt, answer, "colours-0001", at, 1)


def answer(prompt, gold, prediction, *, also=()):
    return Answer(row_id(prompt), prompt, (gold, *also), prediction)


def queue(cases, questions=(), similar=None, answers=()):
    return Queue("0001", list(cases), similar or {}, list(questions), list(answers), 0, [])


@pytest.fixture
def project(tmp_path):
    return Project(load_experiment(REPOSITORY / "experiments" / "embedded.yaml"), tmp_path)


@pytest.fixture
def desk_of(project):
    return lambda *content, **more: Desk(queue(*content, **more), Journal(project, "Anna"))


class Page:
    """A server of a desk on loopback."""

    def __init__(self, desk):
        self.desk, self.listener = desk, listening(0)
        self.port = self.listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/{TOKEN}/"
        config = uvicorn.Config(make_app(desk, TOKEN), log_level="warning", access_log=False, lifespan="off", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()

    def close(self):
        self.server.should_exit = True
        self.thread.join()
        self.listener.close()

    def ask(self, path, form=None, **headers):
        """(status, headers, text) of a request as a browser on this page makes it, but for these headers; None: without
        that header."""
        own = f"127.0.0.1:{self.port}"
        usual = {"Host": own, **({} if form is None else {"Origin": f"http://{own}"})}
        sent = {name: value for name, value in {**usual, **headers}.items() if value is not None}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest("GET" if form is None else "POST", path, skip_host=True)
        body = b"" if form is None else urlencode(form).encode()
        for name, value in {**sent, "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read().decode()
        connection.close()
        return found

    def post(self, path, **form):
        status, headers, text = self.ask(f"/{TOKEN}/{path}", form)
        assert status == 303, text
        return headers["location"].removeprefix(f"/{TOKEN}/")


@pytest.fixture
def page_of():
    made = []

    def make(desk):
        made.append(Page(desk))
        return made[-1]

    yield make
    for page in made:
        page.close()


def kept(project):
    names = ("prompt", "decision", "answer", "row", "by")
    return [tuple(line[name] for name in names) for line in decisions_in(project.landing)]


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


# -- other tools -----------------------------------------------------------------------------------------


# What Label Studio 1.23.2 exported, of a server on this machine into which the tasks below were imported: decided by
# its API, and one in its own page. And what the SDK of Argilla 2.8.0 wrote (Dataset.records.to_json), without a server.
EXPORTED = ("label-studio-1.23.2.json", "argilla-2.8.0.json")


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


# -- in a browser ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    if reason := browsing.lacking():
        pytest.skip(reason)
    with browsing.chromium() as started:
        yield started


def test_whole_review_with_a_keyboard_alone(browser, desk_of, page_of, project):
    desk = desk_of([case("A?"), case("B?"), case("C?"), case("D?")], [asked("Moon?", "white")])
    shown = browser.new_page()
    errors = []
    shown.on("console", lambda message: errors.append(message.text))
    shown.on("pageerror", lambda error: errors.append(str(error)))
    shown.goto(page_of(desk).address)

    def press(*keys, to):
        for key in keys:
            shown.keyboard.press(key)
        shown.wait_for_url(f"**/{to}")

    press("Enter", to="cases/1")
    press("g", to="cases/2")
    press("w", *"xgu", "Enter", to="cases/3")
    press("a", to="cases/4")
    press("u", to="cases/3")
    assert shown.query_selector("#decided") is None
    press("x", to="cases/4")
    press("p", to="cases/3")
    assert "left out" in shown.inner_text("#decided")
    press("n", to="cases/4")
    press("w", "Escape", "l", to="cases?page=1")
    press("Enter", to="cases/4")
    press("Tab", "Tab", "Tab", "Enter", to="cases")  # past both tabs to "gold is right"
    assert "All are decided" in shown.inner_text("main")
    assert [line[:3] for line in kept(project)] == [
        ("A?", "gold_is_right", None),
        ("B?", "both_wrong", "xgu"),
        ("C?", "answer_is_right_too", "blue"),
        ("C?", "undo", None),
        ("C?", "leave_out", None),
        ("D?", "gold_is_right", None),
    ]
    assert errors == []
    shown.close()


def test_phone_shows_all_of_a_case_within_its_width_with_buttons_for_a_finger(browser, desk_of, page_of, project):
    long = "Acetylaminofluorenedehydrogenase" * 8
    similar = {row_id(long): [{"prompt": long, "answer": "red", "prediction": long, "grade": 2, "similarity": 0.5}]}
    desk = desk_of([case(long, "red", long), case("B?")], [asked(long, long)], similar=similar)
    address = page_of(desk).address
    shown = browser.new_page(viewport={"width": 360, "height": 700}, has_touch=True, is_mobile=True)
    for path in ("cases", "cases/1", "asked", "asked/1"):
        shown.goto(address + path)
        assert shown.evaluate("document.documentElement.scrollWidth") == 360, path
    shown.goto(address + "cases/1")
    sizes = [button.bounding_box() for button in shown.query_selector_all("button, .button")]
    assert min(min(box["width"], box["height"]) for box in sizes) >= 44
    shown.tap("text=leave this row out")
    shown.wait_for_url("**/cases/2")
    assert [line[1] for line in kept(project)] == ["leave_out"]
    shown.close()


def test_hostile_text_runs_nothing_in_a_browser(browser, desk_of, page_of):
    similar = {row_id(tiny.HOSTILE): [{"prompt": tiny.HOSTILE, "answer": "red", "similarity": 0.5}]}
    address = page_of(desk_of([case(tiny.HOSTILE, tiny.HOSTILE, tiny.HOSTILE)], similar=similar)).address
    shown = browser.new_page()
    dialogs = []
    shown.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for path in ("cases", "cases/1"):
        shown.goto(address + path)
        assert shown.query_selector("img") is None
    assert shown.inner_text("#prompt") == tiny.HOSTILE
    assert dialogs == []
    shown.close()


def test_page_of_another_origin_cannot_decide_even_with_the_right_address(browser, desk_of, page_of, project):
    address = page_of(desk_of([case("A?"), case("B?")])).address
    form = f"<form method=post action={address}cases/1><input name=decision value=leave_out></form>"
    shown = browser.new_page()
    shown.route("http://elsewhere.example/", lambda route: route.fulfill(content_type="text/html", body=form))
    shown.goto("http://elsewhere.example/")
    with shown.expect_navigation(wait_until="load"):
        shown.evaluate("document.forms[0].submit()")
    assert shown.inner_text("body").startswith("refused: ")
    assert kept(project) == []
    shown.close()
