"""From what people ask back into the loop: the server's log, the queue to review, and rows that have landed."""

import json
import os
import stat
from datetime import date
from unittest.mock import ANY

import pytest
from typer.testing import CliRunner

from apt_assets.cli import app as cli
from apt_assets.review.queue import asked_of
from apt_assets.serve import asked_log
from apt_assets.serve.asked_log import AskedLog, function_named
from apt_assets.settings.experiment import UsageError
from tests import tiny
from tests.serving import promote, serving

DIGEST = "c0ffee"


def user(prompt):
    return [{"role": "user", "content": prompt}]


def logged(prompt, answer="Blue", at="2026-11-29T10:00:00Z"):
    return {"asked_at": at, "messages": user(prompt), "answer": answer, "adapter": DIGEST}


def lines_in(folder):
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


@pytest.fixture
def on(monkeypatch):
    """A function (day) that makes it today."""
    return lambda day: monkeypatch.setattr(asked_log, "today", lambda: date.fromisoformat(day))


def without_numbers(fields):
    """A redaction as a user writes one: numbers go, and questions that say secret are not kept at all."""
    text = fields["messages"][-1]["content"]
    if "secret" in text:
        return None
    return {**fields, "user": None, "messages": user("".join("#" if sign.isdigit() else sign for sign in text))}


@pytest.mark.slow("model")
def test_asked_logged_reviewed_and_landed_a_question_becomes_a_training_row(tiny_folder, make_experiment, tmp_path):
    experiment = make_experiment(policy={"system_prompt": 'Say "one" | colour.'})
    project = tiny.open_project(tmp_path, tiny_folder)
    digest = promote(project, 1, tiny.make_adapter(tmp_path / "adapter", tiny_folder / "policy", spread=1.0))
    log = AskedLog(tmp_path / "asked", None, 10**6, 30)
    with serving(project, log=log) as served:
        said = served.ask("Colour of the sea?", user="someone").json()["choices"][0]["message"]["content"]
        streamed = served.ask("Colour of the moon?", stream=True)
        served.ask("Colour of", path="/v1/completions")
        served.ask("Colour of", n=2)  # refused: not a question that was answered
        assert served.metrics()['apt_log_lines_total{written="yes"}'] == 3
    (first, second, _) = lines_in(tmp_path / "asked")
    assert (first["messages"], first["answer"], first["adapter"]) == (user("Colour of the sea?"), said, digest)
    assert first["user"] == "someone"
    pieces = [json.loads(line[6:]) for line in streamed.text.split("\n\n") if line.startswith("data: {")]
    assert second["answer"] == "".join(one["choices"][0]["delta"].get("content", "") for one in pieces)

    def land(*arguments):
        done = CliRunner().invoke(cli, ["land", *map(str, arguments), "-e", str(experiment), "--json"])
        assert done.exit_code == 0, done.exception
        return json.loads(done.stdout)

    told = land("--from-log", tmp_path / "asked")
    assert (told["queued"], told["known"], told["others"]) == (2, 0, 1)
    queue = lines_in(tmp_path / "review" / "queue" / "tiny")
    assert queue == [
        {
            "prompt": one["messages"][0]["content"],
            "answer": one["answer"],
            "adapter": digest,
            "asked_at": one["asked_at"],
            "times": 1,
        }
        for one in (first, second)
    ]
    reviewed = [{"prompt": queue[0]["prompt"], "answer": "blue"}]
    land(tiny.write_jsonl(tmp_path / "reviewed.jsonl", reviewed))
    (tmp_path / "review" / "queue").rename(tmp_path / "reviewed")
    told = land("--from-log", tmp_path / "asked")
    assert (told["queued"], told["known"]) == (1, 1), "the question that has landed is not asked for again"
    assert lines_in(tmp_path / "review" / "queue" / "tiny")[0]["prompt"] == "Colour of the moon?"


def test_queue_has_each_question_once_with_its_last_answer_and_passes_over_torn_lines(make_experiment, tmp_path):
    experiment, folder = make_experiment(), tmp_path / "asked"
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(3))
    asked = [
        logged("Colour of the sky number 0?", "Red"),
        logged("colour of THE sky, number 0", "Blue"),
        logged(tiny.domain_rows(1)[0]["prompt"]),
        {**logged("Two"), "messages": [*user("a"), {"role": "assistant", "content": "b"}, *user("c")]},
        {"asked_at": "", "text": "Colour of", "answer": "", "adapter": DIGEST},
        [],
    ]
    tiny.write_jsonl(folder / "asked-2026-11-28.jsonl", asked)
    (folder / "asked-2026-11-29.jsonl").write_text(json.dumps(logged("Is it new?")) + "\n" + '{"asked_at": "2026')
    tiny.write_jsonl(folder / "notes.jsonl", [logged("Not of the log")])

    def queue():
        done = CliRunner().invoke(cli, ["land", "--from-log", str(folder), "-e", str(experiment)])
        assert done.exit_code == 0, done.exception
        return done.stdout

    said = queue()
    assert "2 questions to review" in said
    assert "1 that are in the data or the queue already, 1 asked again, 4 that are not one question alone" in said
    found = {one["prompt"]: one["answer"] for one in lines_in(tmp_path / "review" / "queue" / "tiny")}
    assert found == {"colour of THE sky, number 0": "Blue", "Is it new?": "Blue"}
    assert "0 questions to review; left out: 3 that are in the data or the queue already, 1 asked again" in queue()


def test_question_that_no_review_can_show_is_counted_as_such_and_a_dry_run_queues_nothing(make_experiment, tmp_path):
    experiment, folder = make_experiment(), tmp_path / "asked"
    broken = [
        logged("NUL in the answer?", "a\x00b"),
        logged("NUL \x00 in the question?"),
        logged("An endless answer?", "x" * 1_000_001),
        logged("When?", at="yesterday"),
        logged("Half \ud83d of a sign?"),
    ]
    tiny.write_jsonl(folder / "asked-2026-11-28.jsonl", [])
    lines = [json.dumps(one) for one in [*broken, logged("Plain?")]]  # ASCII: half of a sign is escaped
    (folder / "asked-2026-11-28.jsonl").write_text("\n".join(lines))

    def queue(*options):
        done = CliRunner().invoke(cli, ["land", "--from-log", str(folder), "-e", str(experiment), "--json", *options])
        assert done.exit_code == 0, done.exception
        return json.loads(done.stdout)

    told = {"queued": 1, "known": 0, "repeated": 0, "others": 5, "file": None}
    assert queue("--dry-run") == told
    assert not (tmp_path / "review").exists()
    assert queue() == {**told, "file": ANY}
    found, unreadable = asked_of(tmp_path / "review" / "queue" / "tiny")
    assert ([one.prompt for one in found], unreadable) == (["Plain?"], 0)


def test_open_question_is_queued_again_with_another_answer_and_one_that_somebody_decided_on_is_not(
    make_experiment, tmp_path
):
    experiment, log, queue = make_experiment(), tmp_path / "asked", tmp_path / "review" / "queue" / "tiny"

    def asked(day, *lines):
        tiny.write_jsonl(log / f"asked-{day}.jsonl", list(lines))
        before = lines_in(queue)
        done = CliRunner().invoke(cli, ["land", "--from-log", str(log), "-e", str(experiment), "--json"])
        assert done.exit_code == 0, done.exception
        told = json.loads(done.stdout)
        after = lines_in(queue)
        assert told["queued"] == len(after) - len(before)
        return [(one["prompt"], one["answer"]) for one in after if one not in before]

    assert sorted(asked("2026-11-01", *(logged(name, at="2026-11-01T10:00:00Z") for name in "abc"))) == [
        ("a", "Blue"), ("b", "Blue"), ("c", "Blue"),
    ]  # fmt: skip
    decided = {"prompt": "b", "decision": "no_row", "row": None, "by": "ann", "at": "2026-11-01T11:00:00+00:00"}
    tiny.write_jsonl(tmp_path / "landing" / "corrections-20261101T110000Z.jsonl", [decided])
    later = "2026-11-02T10:00:00Z"
    assert asked("2026-11-02", logged("A", "", later), logged("b", "", later), logged("c", at=later)) == [("A", "")]
    again = {**logged("a", "", "2026-11-03T10:00:00Z"), "adapter": "another"}
    assert asked("2026-11-03", again, again) == [("a", "")]
    assert asked("2026-11-03", again, again) == []
    assert {one.prompt: one.times for one in asked_of(queue)[0]} == {"a": 4, "b": 1, "c": 1}
    taken_back = {**decided, "decision": "undo", "at": "2026-11-03T11:00:00+00:00"}
    tiny.write_jsonl(tmp_path / "landing" / "corrections-20261103T110000Z.jsonl", [taken_back])
    assert asked("2026-11-04", logged("b", "Red", "2026-11-04T10:00:00Z")) == [("b", "Red")]


def test_experiments_of_one_home_have_each_a_queue_of_its_own(make_experiment, tmp_path):
    experiment = make_experiment()
    experiment.write_text(experiment.read_text().replace("name: tiny", "name: dogs"))
    tiny.write_jsonl(tmp_path / "asked" / "asked-2026-11-01.jsonl", [logged("Colour of a dog?")])
    done = CliRunner().invoke(cli, ["land", "--from-log", str(tmp_path / "asked"), "-e", str(experiment)])
    assert done.exit_code == 0, done.exception
    (file,) = (tmp_path / "review" / "queue").rglob("*.jsonl")
    assert file.parent.name == "dogs"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from-log", "."], "no asked-YYYY-MM-DD.jsonl"),
        (["rows.jsonl", "--from-log", "."], "name no files beside it"),
        ([], "name the files to land, or --from-log"),
    ],
)
def test_land_from_a_log_that_is_none_is_refused(make_experiment, tmp_path, arguments, said, monkeypatch):
    experiment = make_experiment()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["land", *arguments, "-e", str(experiment)])
    assert said in str(result.exception)


def test_module_of_the_users_function_that_cannot_be_read_is_named_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "half_written.py").write_text("def redact(line:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"--log-redact: half_written:redact: .*half_written\.py, line 1"):
        function_named("half_written:redact")


def test_what_the_users_function_takes_out_is_in_no_line_and_no_line_is_written_that_it_fails_on(tmp_path):
    redact = function_named("tests.test_asked_log:without_numbers")
    log = AskedLog(tmp_path / "asked", redact, 10**6, 30)
    assert log.write({**logged("My number is 555-1234"), "user": "someone"})
    assert not log.write(logged("A secret"))
    assert log.problem.text is None
    assert not log.write({"text": "no messages: the function fails on it", "answer": "a"})
    assert "KeyError" in log.problem.text
    (line,) = lines_in(tmp_path / "asked")
    assert (line["messages"], line["user"]) == (user("My number is ###-####"), None)
    (file,) = (tmp_path / "asked").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_log_keeps_so_many_days_and_bytes_the_oldest_go_first_and_other_files_stay(tmp_path, on):
    folder = tmp_path / "asked"
    size = len(json.dumps(logged("Colour 0?"))) + 1

    def write(day, count, most_bytes=100 * size):
        on(day)
        log = AskedLog(folder, None, most_bytes, 3)
        return [log.write(logged(f"Colour {n}?")) for n in range(count)]

    (folder).mkdir()
    mine = ["asked-2026-13-45.jsonl", "mine.jsonl"]
    for name in mine:
        (folder / name).write_text("{}\n")
    for day in ("2026-11-26", "2026-11-27", "2026-11-28", "2026-11-29"):
        write(day, 2)
    days = sorted(path.name for path in folder.iterdir())
    assert days == ["asked-2026-11-27.jsonl", "asked-2026-11-28.jsonl", "asked-2026-11-29.jsonl", *mine]
    assert write("2026-11-29", 4, most_bytes=5 * size) == [True, True, True, False], "today's alone fill it up"
    assert sorted(path.name for path in folder.iterdir()) == ["asked-2026-11-29.jsonl", *mine]
    assert len((folder / "asked-2026-11-29.jsonl").read_text().splitlines()) == 5
    on("2026-11-29")
    log = AskedLog(folder, None, 5 * size, 3)
    assert not log.write(logged("Colour 9?"))
    assert "exceed the" in log.problem.text
    on("2026-11-30")
    assert log.write(logged("Colour 9?"))
    assert log.problem.text is None
    before = lines_in(folder)
    assert not log.write(logged("Colour?" * size)), "longer than all that the log may have"
    assert lines_in(folder) == before, "no day goes for a line that has no room then either"


def test_log_that_is_kept_for_ever_opens_again_and_goes_on_the_next_day(tmp_path, on):
    for day in ("2026-11-26", "2026-11-27"):
        on(day)
        log = AskedLog(tmp_path / "asked", None, 10**9, most_days=10**9)
        assert log.write(logged("Colour 0?"))
    on("2026-11-28")
    assert log.write(logged("Colour 1?"))
    assert len([*(tmp_path / "asked").iterdir()]) == 3


def test_two_servers_on_one_log_keep_no_more_bytes_than_one(tmp_path):
    size = len(json.dumps(logged("Colour 0?"))) + 1
    logs = [AskedLog(tmp_path, None, 5 * size, 30) for _ in range(2)]
    written = [log.write(logged(f"Colour {n}?")) for n in range(4) for log in logs]
    assert written == [True] * 5 + [False] * 3
    assert len(lines_in(tmp_path)) == 5


def test_line_that_a_full_disk_cut_off_is_told_and_costs_no_other_one(tmp_path, monkeypatch):
    log, whole = AskedLog(tmp_path, None, 10**6, 30), os.write
    said = [logged(f"Question {n}?") for n in range(3)]
    assert log.write(said[0])
    monkeypatch.setattr(os, "write", lambda file, line: whole(file, line[:40]))
    assert not log.write(said[1])
    monkeypatch.undo()
    assert log.write(said[2])
    lines = [line for file in tmp_path.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert [line[-1] for line in lines] == ["}", lines[1][-1], "}"]
    assert "Question 2?" in lines[2]
