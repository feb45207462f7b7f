"""What all who ask a server have in common: what is asked again and when, and what an error may say."""

import json
import time
import traceback
from email.utils import formatdate
from pathlib import Path

import pytest

from resources.assessors import Row, Ungradable
from resources.assessors.endpoint import EndpointRubric
from resources.model import http
from resources.model.openai_server import Served, ServerError, complete, open_session
from tests.fake_endpoint import always, serve

KEY = "sk-PLANTED0123456789abcdefABCDEF"
RIGHT = {"grader": 4, "policy": "blue"}


def ask_grader(url):
    """A grade, by an endpoint's model."""
    grader = EndpointRubric(
        url, "m", "Grade from 1 to 5.", samples=1, unsure=[], temperature=0.7, reply_tokens=64,
        key=http.key_in("APT_KEY"), timeout=5.0, max_attempts=3, requests_per_minute=None, in_flight=4,
    )  # fmt: skip
    return grader.grade([Row("What colour is the sky?", "blue", "blue")])[0].grade


def ask_policy(url):
    """An answer, by a served policy."""
    served = Served(url, "base", "policy", Path("base"), None, concurrency=4, timeout=5.0)
    with open_session(served) as session:
        return complete(session, served, [1, 2, 3], 5)


ASK = {"grader": ask_grader, "policy": ask_policy}


@pytest.fixture(params=ASK)
def asker(request, monkeypatch):
    """Who asks: "grader" or "policy"."""
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)
    return request.param


@pytest.fixture
def key(monkeypatch):
    for variable in ("APT_KEY", "APT_SERVER_KEY"):
        monkeypatch.setenv(variable, KEY)
    return KEY


def first(*replies):
    """First these replies, then what is asked for."""
    left = list(replies)

    def answer(body):
        if left:
            return left.pop(0)
        if "messages" in body:
            return always(4)(body)
        return 200, {}, json.dumps({"model": body["model"], "choices": [{"text": " blue"}]})

    return answer


@pytest.mark.parametrize(
    "reply",
    [
        (408, {}, "too slow"),
        (429, {}, "slow down"),
        (500, {}, "oops"),
        (529, {}, "overloaded"),
        (200, {"Content-Length": "1000"}, "the connection ends here"),
    ],
    ids=str,
)
def test_failure_that_may_pass_is_asked_again(asker, reply):
    with serve(first(reply, reply)) as server:
        assert ASK[asker](server.url) == RIGHT[asker]
        assert len(server.requests) == 3


@pytest.mark.parametrize("after", ["1", "0.3"])
def test_server_that_says_in_seconds_when_to_come_back_is_asked_then(asker, after):
    with serve(first((429, {"Retry-After": after}, ""))) as server:
        assert ASK[asker](server.url) == RIGHT[asker]
        assert server.moments[1] - server.moments[0] >= float(after)


def test_server_that_says_by_a_date_when_to_come_back_is_asked_then(asker):
    came, moment = [], int(time.time() + 2)
    answers = first((503, {"Retry-After": formatdate(moment, usegmt=True)}, ""))

    def answer(body):
        came.append(time.time())
        return answers(body)

    with serve(answer) as server:
        assert ASK[asker](server.url) == RIGHT[asker]
    assert came[0] < moment <= came[1]


@pytest.mark.parametrize("after", ["86400", "9" * 400, "a date"])
def test_server_that_wants_a_day_is_asked_again_after_the_longest_wait(asker, after, monkeypatch):
    monkeypatch.setattr(http, "LONGEST_WAIT", 0.05)
    after = formatdate(time.time() + 86400, usegmt=True) if after == "a date" else after
    with serve(first((429, {"Retry-After": after}, ""))) as server:
        assert ASK[asker](server.url) == RIGHT[asker]


@pytest.mark.parametrize("after", ["soon", "", "-5", "nan", "٣", "Tue, 24 Nov 1998 18:00:00 GMT", "Mon, 99 Foo"])
def test_date_that_has_passed_or_is_none_is_not_waited_for(asker, after):
    header = after.encode().decode("latin-1")
    with serve(first((429, {"Retry-After": header}, ""))) as server:
        assert ASK[asker](server.url) == RIGHT[asker]


def test_waits_double_and_are_never_shorter_than_that(asker, monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT", 0.1)
    with serve(first((503, {}, ""), (503, {}, ""))) as server:
        ASK[asker](server.url)
        one, two, three = server.moments
    assert two - one >= 0.1
    assert three - two >= 0.2


def test_server_that_is_down_is_an_error_that_names_it_and_how_often_it_was_asked(asker):
    with serve(first()) as server:
        pass
    names = {"grader": rf"{server.url} .*after 3 attempts.*ConnectionError", "policy": rf"{server.url}/.*after 5 tries"}
    with pytest.raises((Ungradable, ServerError), match=names[asker]):
        ASK[asker](server.url)


@pytest.mark.parametrize("status", [307, 400, 401, 404])
def test_what_will_not_pass_is_asked_once_and_never_elsewhere(asker, status, key):
    with (
        serve(first()) as elsewhere,
        serve(lambda body: (status, {"Location": f"{elsewhere.url}/completions"}, "no")) as server,
    ):
        with pytest.raises((Ungradable, ServerError), match=str(status)):
            ASK[asker](server.url)
        assert [headers["Authorization"] for headers in server.headers] == [f"Bearer {key}"]
        assert elsewhere.requests == []


def test_without_a_key_none_is_sent_not_even_the_one_of_netrc(asker, tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    with serve(first()) as server:
        ASK[asker](server.url)
        assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 503])
@pytest.mark.parametrize(
    "said",
    [
        f"Your key {KEY} is wrong.",
        f"Keys that begin with {KEY[:12]} and end in {KEY[-8:]} were revoked.",
        "x" * 290 + KEY,
        json.dumps({"error": KEY, "model": KEY, "choices": KEY}),
        json.dumps({"model": "policy", "choices": [{"error": f"Bearer {KEY}"}]}),
        json.dumps({"choices": [{"message": {"content": f"No grade for {KEY}"}}]}),
    ],
    ids=range(6),
)
def test_no_eight_characters_of_the_key_are_in_any_error(asker, status, said, key):
    with serve(lambda body: (status, {}, said)) as server, pytest.raises((Ungradable, ServerError)) as error:
        ASK[asker](server.url)
    shown = "".join(traceback.format_exception(error.value))
    assert [key[n : n + 8] for n in range(len(key) - 7) if key[n : n + 8] in shown] == []
