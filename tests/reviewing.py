"""The page of `apt-assets review` on loopback, and what it shows, for tests."""

import http.client
import json
from threading import Thread
from urllib.parse import urlencode

import uvicorn

from apt_assets.method.corrections import taken_on
from apt_assets.method.splits import row_id
from apt_assets.project import Project
from apt_assets.review.journal import decisions_in
from apt_assets.review.queue import Answer, Asked, Case, Queue
from apt_assets.review.server import listening, make_app
from apt_assets.settings.experiment import REPOSITORY
from apt_assets.settings.reader import load_experiment

TOKEN = "t0ken"


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


def without_data(folder):
    return Project(load_experiment(REPOSITORY / "experiments" / "embedded.yaml"), folder)


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


def kept(project):
    names = ("prompt", "decision", "answer", "row", "by")
    return [tuple(line[name] for name in names) for line in decisions_in(project.landing)]
