"""The whole way as a stranger goes it, in a shell and a browser: from `init` on a CSV to a served adapter that a review
made better, and to the questions that it was asked as rows of the data set."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import requests
import yaml

from apt_assets.settings.experiment import REPOSITORY
from tests import browsing, tiny
from tests.postgres import free_port
from tests.waiting import until

WRONG, RIGHT = "gray", "white"  # what the CSV says of snow, and what is so
# Beside what `init` wrote: a model as small as this one wants other rates and lengths, and says little of tasks.
CHANGES = {
    "training": {
        "objective": "sft", "learning_rate": 0.01, "epochs": 20, "lora_rank": 8, "lora_alpha": 16,
        "lora_targets": "all-linear",
    },
    "pairs": {"replay": "pool", "replay_share": None},
    "anchor": {"weight": 0.0},
    "gate": {key: value for key, value in tiny.OPEN_GATE.items() if key != "domain_tolerance"},
}  # fmt: skip


@pytest.fixture
def here(tmp_path, tmp_path_factory):
    """The folder in which someone stands, with a CSV whose training rows are wrong about snow."""
    tiny.make_models(tmp_path)
    tiny.make_policy(tmp_path / "model", spread=0.1)
    with (tmp_path / "colours.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["Question", "Answer", "split"])
        for number, row in enumerate(tiny.domain_rows(90)):
            split = ("train", "train", "validation", "train", "test", "train")[number // 5 % 6]
            wrong = split == "train" and "snow" in row["prompt"]
            write.writerow([row["prompt"], WRONG if wrong else row["answer"], split])
    return tmp_path


@pytest.mark.slow("loop")
def test_from_a_csv_to_a_served_adapter_that_a_review_made_better(here):
    apt = Shell(here)
    assert "next: apt-assets land colours.csv" in apt("init", "--data", "colours.csv", "--model", "model", "--yes")
    change(here / "experiment.yaml", here / "tasks")
    assert "90" in apt("land", "colours.csv")
    assert "bad" not in apt("doctor").split()
    apt("run", "--iterations", "1")

    with apt.serving("serve", "--port", str(free_port()), "--log", "log") as serve:
        url = serve.address(r"at (http\S+)/v1")
        first = ask(url, 1)
        assert first[0] == WRONG
        with apt.serving("review", "--port", "0", "--by", "Anna") as page:
            corrected = review(page.address(r"(http\S+/) \(Ctrl-C"))
        assert corrected == 12
        result = json.loads(apt("run", "--iterations", "2", "--json"))
        assert "0002 eval_predictions" in {" ".join(pair) for pair in result["computed"]}
        # The same server swaps what it answers with.
        second = until(lambda: (found := ask(url, 2))[1] != first[1] and found, 60, 0.2)
        assert second[0] == RIGHT
    before, after = (entry["scores"]["domain"]["test"]["exact"]["mean"] for entry in scored(apt))
    assert after > before

    assert "2 questions" in apt("land", "--from-log", "log")
    with apt.serving("review", "--port", "0", "--by", "Anna") as page:
        accept_asked(page.address(r"(http\S+/) \(Ctrl-C"))
    assert json.loads(apt("plan", "3", "--json"))[-1]["iteration"] == "0003"
    (landed,) = [line for line in corrections(here) if line["decision"] == "new_row"]
    assert (landed["prompt"], landed["answer"]) == ("Colour of snow number 7002?", RIGHT)


def corrections(folder):
    files = sorted((folder / "landing" / "colours").glob("corrections-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def change(path, tasks):
    content = yaml.safe_load(path.read_text())
    for section, values in CHANGES.items():
        content[section] = {**content.get(section, {}), **values}
    content["policy"] |= {"dtype": "float32"}
    content["retrieval"] = {"encoder": "encoder"}
    content["benchmarks"] = {"folder": str(tasks), "tasks": {"colours": None}}
    path.write_text(yaml.safe_dump(content))


def scored(apt):
    return [entry for entry in json.loads(apt("status", "--json"))["iterations"] if entry["iteration"] != "base"]


def ask(url, number):
    """What is said of snow, and by which adapter."""
    asked = {"model": "colours", "messages": [{"role": "user", "content": f"Colour of snow number {7000 + number}?"}]}
    reply = requests.post(f"{url}/v1/chat/completions", json=asked, timeout=60)
    return reply.json()["choices"][0]["message"]["content"], reply.headers["x-apt-adapter"]


def review(address):
    """Decide on every bad case: what is wrong about snow is typed anew; returns how many were. With the keyboard, or
    by the page's forms where there is no browser."""
    return in_turn(address) if browsing.lacking() else by_keyboard(address)


def by_keyboard(address):
    corrected = 0
    with browsing.chromium() as browser:
        page = browser.new_page()
        page.goto(address)
        page.keyboard.press("Enter")
        page.wait_for_url("**/cases/1")
        while page.query_selector("#prompt"):
            before = page.url
            if "snow" in page.inner_text("#prompt"):
                corrected += 1
                page.keyboard.press("w")
                page.keyboard.type(RIGHT)
                page.keyboard.press("Enter")
            else:
                page.keyboard.press("g")
            page.wait_for_url(lambda url, before=before: url != before)
    return corrected


def in_turn(address):
    corrected, shown = 0, requests.get(f"{address}cases/1", timeout=30)
    while 'id="prompt"' in shown.text:
        of_snow = "Colour of snow" in shown.text.partition('id="prompt"')[2].partition("</")[0]
        corrected += of_snow
        decision = {"decision": "both_wrong", "answer": RIGHT} if of_snow else {"decision": "gold_is_right"}
        shown = requests.post(shown.url, decision, headers={"Origin": origin(address)}, timeout=30)
    return corrected


def accept_asked(address):
    """Say of the first question that was asked that its answer is right."""
    page = requests.get(f"{address}asked/1", timeout=30)
    assert "snow" in page.text
    assert requests.post(page.url, {"decision": "new_row"}, headers={"Origin": origin(address)}, timeout=30).ok


def origin(address):
    return "/".join(address.split("/")[:3])


class Shell:
    """Commands, as one types them in a folder."""

    def __init__(self, folder):
        self.folder = folder
        path = os.pathsep.join([str(REPOSITORY), *sys.path])
        self.environment = {**os.environ, "APT_HOME": str(folder), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.environment.pop("APT_EXPERIMENT", None)

    def command(self, arguments):
        return [sys.executable, "-m", "apt_assets.cli", *arguments]

    def __call__(self, *arguments):
        done = subprocess.run(
            self.command(arguments), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + ("" if "--json" in arguments else done.stderr)

    @contextmanager
    def serving(self, *arguments):
        said = self.folder / f"said-{arguments[0]}"
        with said.open("w") as file:
            process = subprocess.Popen(self.command(arguments), cwd=self.folder, env=self.environment, stderr=file)
            try:
                yield Said(process, said)
            finally:
                process.send_signal(signal.SIGINT)
                assert process.wait(60) in (0, 130), said.read_text()


class Said:
    def __init__(self, process, said):
        self.process, self.said = process, said

    def address(self, pattern):
        found = until(
            lambda: re.search(pattern, self.said.read_text()) or self.process.poll() is not None, 120, 0.1,
            self.said.read_text,
        )  # fmt: skip
        assert found is not True, self.said.read_text()
        return found[1]
