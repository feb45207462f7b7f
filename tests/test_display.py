"""Progress as a user sees it: bars in a terminal, JSON lines on demand, nothing in a file."""

import json
import os
import pty
import re
import subprocess
import sys

from apt_assets.engine.progress import Progress, throttled

SCRIPT = """
import sys
from apt_assets.engine.display import display
from apt_assets.engine.progress import Progress
shown = display(as_json=sys.argv[1:] == ["--json"])
shown.line("eval_predictions of 0001: computing [first time]")
for done in (10, 40):
    shown.progress(Progress("0001", "eval_predictions", "questions", "answers", done, 40, 2.0))
shown.line("done")
shown.close()
"""


def piped(*arguments):
    return subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True)


def in_terminal():
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=child, env=environment) as process:
        os.close(child)
        text = b""
        try:
            while part := os.read(parent, 4096):
                text += part
        except OSError:  # how Linux says that the other side is closed
            pass
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())


def test_terminal_has_a_bar_with_rate_and_time_left_and_whole_lines():
    text = in_terminal()
    assert "eval_predictions of 0001: computing [first time]" in text
    assert "questions: 40/40 answers, 20.0 answers/s, 0 s left" in text
    assert "━" in text


def test_without_a_terminal_only_lines_are_written():
    found = piped()
    assert found.stderr.splitlines() == ["eval_predictions of 0001: computing [first time]", "done"]
    assert found.stdout == ""


def test_json_events_are_one_object_a_line_with_rate_and_time_left():
    events = [json.loads(line) for line in piped("--json").stderr.splitlines()]
    assert [event["event"] for event in events] == ["line", "progress", "progress", "line"]
    assert events[1] == {
        "event": "progress", "iteration": "0001", "stage": "eval_predictions", "what": "questions",
        "unit": "answers", "done": 10, "total": 40, "seconds": 2.0, "rate": 5.0, "seconds_left": 6.0,
    }  # fmt: skip


def test_log_lines_are_few_but_the_end_of_a_part_is_among_them():
    lines = []
    show = throttled(lambda at: lines.append(str(at)), 60.0)
    for done in range(1, 101):
        show(Progress("0001", "policy", "questions", "answers", done, 100, float(done)))
    assert lines == ["questions: 100/100 answers, 1.0 answers/s, 0 s left"]
