"""What was promoted is what answers: on a real port, asked by OpenAI's own client, while adapters change."""

import os
import shutil
import subprocess
import sys
import threading
from itertools import count

import dagster as dg
import polars as pl
import pytest
import requests

from apt_assets.engine.display import Display
from apt_assets.orchestration.definitions import build_definitions
from apt_assets.serve import app, command, engine
from apt_assets.serve.live import share_of
from apt_assets.settings.experiment import UsageError
from resources.model.held import BaseModel, open_held
from resources.model.openai_server import Served, generate_served
from resources.model.policy import Reader, load_tokenizer
from resources.store.rows import collect
from tests import tiny, waiting
from tests.postgres import free_port
from tests.serving import committed, promote, serving

pytestmark = pytest.mark.slow("model")

QUESTIONS = [f"Colour of thing {n}?" for n in range(4)]


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch):
    monkeypatch.setattr(app, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(engine, "PATIENCE", 0.1)  # before a new adapter is tried under load


@pytest.fixture(scope="module")
def adapters(tiny_folder, tmp_path_factory):
    """A function (number) -> folder of an adapter that answers as no other does."""
    made, folder = {}, tmp_path_factory.mktemp("adapters")

    def adapter(number):
        if number not in made:
            made[number] = tiny.make_adapter(folder / str(number), tiny_folder / "policy", number, spread=1.0)
        return made[number]

    return adapter


@pytest.fixture
def project(tiny_folder, make_experiment, tmp_path):
    """Nothing has landed or was promoted; answers have up to 24 tokens."""
    make_experiment()
    return tiny.open_project(tmp_path, tiny_folder, policy={"max_new_tokens": 24})


def said_by(project, adapter, prompts=QUESTIONS):
    """The loop's own answers with this adapter."""
    base = BaseModel(project.models.base_model, "float32")
    policy = open_held("policy", base, True, adapter, adapter and str(adapter))
    policy.system_prompt = project.experiment.policy.system_prompt
    return tiny.answers(policy, prompts, max_new_tokens=24, batch_tokens=1024)


def text_of(reply):
    return reply.json()["choices"][0]["message"]["content"]


def test_answers_are_those_that_the_loop_was_scored_by(loops, tiny_folder, tmp_path):
    home = shutil.copytree(loops / "once", tmp_path / "home")
    project = tiny.open_project(home, tiny_folder, policy={"system_prompt": None})
    scored = project.artifact(project.planner().stage("0001", "benchmark_scores").manifest)
    rows = pl.read_parquet(scored / "domain_items.parquet").select("prompt", "prediction").rows()
    with serving(project) as served:
        assert [text_of(served.ask(prompt)) for prompt, _ in rows] == [answer for _, answer in rows]
    assert len(rows) > 10


def test_twenty_promotions_under_load_drop_no_request_and_each_answer_is_of_one_adapter(project, adapters):
    digests = {promote(project, 1, adapters(1)): 1}
    replies, asking = [], threading.Event()

    def ask(served, numbers):
        while not asking.is_set():
            prompt = QUESTIONS[next(numbers) % len(QUESTIONS)]
            replies.append((prompt, served.ask(prompt)))

    with serving(project) as served:
        clients = [threading.Thread(target=ask, args=(served, count(n))) for n in range(6)]
        for client in clients:
            client.start()
        try:
            for number in range(2, 22):
                newest = promote(project, number, adapters(number))
                digests[newest] = number
                waiting.until(lambda newest=newest: replies and of(replies[-1]) == newest, 30)
        finally:
            asking.set()
            for client in clients:
                client.join()
        metrics = served.metrics()
    assert [reply.status_code for _, reply in replies if reply.status_code != 200] == []
    assert {of(reply) for reply in replies} == digests.keys()
    expected = {digest: said_by(project, adapters(number)) for digest, number in digests.items()}
    assert len({tuple(answers) for answers in expected.values()}) == 21, "no two adapters answer alike"
    for prompt, reply in replies:
        assert text_of(reply) == expected[reply.headers["x-apt-adapter"]][QUESTIONS.index(prompt)]
    assert metrics["apt_promotions_total"] == 21
    assert metrics['apt_requests_total{path="/v1/chat/completions",status="200"}'] == len(replies)
    assert metrics["apt_requests_under_way"] == 0


def of(reply):
    return reply[1].headers["x-apt-adapter"]


def test_openais_own_client_asks_whole_and_token_by_token(project, adapters):
    openai = pytest.importorskip("openai", reason="the extra dev has it")
    digest = promote(project, 1, adapters(3))
    said = said_by(project, adapters(3))
    with serving(project) as served, openai.OpenAI(base_url=f"{served.url}/v1", api_key="any") as client:
        named = [model.id for model in client.models.list()]
        raw = client.chat.completions.with_raw_response.create(model="tiny", messages=user(QUESTIONS[0]))
        whole = raw.parse()
        pieces = list(
            client.chat.completions.create(
                model=named[1], messages=user(QUESTIONS[1]), stream=True, stream_options={"include_usage": True}
            )
        )
        text = client.completions.create(model="tiny", prompt="Colour of", max_tokens=5)
        with pytest.raises(openai.NotFoundError, match="there is no 'gpt-4' here"):
            client.chat.completions.create(model="gpt-4", messages=user(QUESTIONS[0]))
        with pytest.raises(openai.NotFoundError, match="there is no 'gpt-4' here"):
            client.models.retrieve("gpt-4")
        assert [client.models.retrieve(name).id for name in named] == named
        second_turn = [*user(QUESTIONS[0]), whole.choices[0].message.model_dump(), *user(QUESTIONS[1])]
        again = client.chat.completions.create(model="tiny", messages=second_turn)
    assert raw.headers["x-apt-adapter"] == digest
    assert whole.choices[0].message.content == said[0]
    assert (
        whole.usage.prompt_tokens == len(f'Say "one" | colour.{QUESTIONS[0]}') + 5
    )  # bytes, and marks of the template
    assert named == ["tiny", whole.model]
    assert pieces[0].choices[0].delta.role == "assistant"
    assert len([piece for piece in pieces if piece.choices and piece.choices[0].delta.content]) > 3
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == said[1]
    assert pieces[-1].usage.completion_tokens > 3
    assert pieces[-2].choices[0].finish_reason in ("stop", "length")
    assert text.usage.completion_tokens <= 5
    assert again.usage.prompt_tokens > 2 * len(QUESTIONS[0])


def user(text):
    return [{"role": "user", "content": text}]


def test_previous_answers_by_the_adapter_before_the_last_one_whatever_is_promoted_then(project, adapters):
    first = promote(project, 1, adapters(1))
    with serving(project, previous=True) as served:
        assert served.live() == "none"  # the base model: nothing was promoted before
    promote(project, 2, adapters(2))
    with serving(project, previous=True) as served:
        assert served.live() == first
        promote(project, 3, adapters(3))
        assert not waiting.within(0.2, lambda: served.live() != first)
        assert served.ask(QUESTIONS[0]).headers["x-apt-adapter"] == first


def test_gate_that_refuses_a_promoted_adapter_later_takes_it_back(project, adapters):
    first, second = promote(project, 1, adapters(1)), promote(project, 2, adapters(2))
    with serving(project) as served:
        assert served.live() == second
        promote(project, 2, adapters(2), passed=False)
        waiting.until(lambda: served.live() == first, 10)
        assert served.ask(QUESTIONS[0]).headers["x-apt-adapter"] == first


def test_where_all_that_was_promoted_is_refused_what_the_loop_starts_from_answers(project, adapters):
    promote(project, 1, adapters(1))
    with serving(project) as served:
        promote(project, 1, adapters(1), passed=False)
        waiting.until(lambda: served.live() == "none", 10)
        assert text_of(served.ask(QUESTIONS[0])) == said_by(project, None, QUESTIONS[:1])[0]
    with serving(project) as started_anew:
        assert started_anew.live() == "none"


def test_damaged_adapter_does_not_go_live_and_the_one_before_answers_on(project, adapters):
    first = promote(project, 1, adapters(1))
    with serving(project) as served:
        promote(project, 2, adapters(2), damaged=True)
        (problem,) = waiting.until(lambda: served.health()["problems"], 10)
        assert "what was promoted last is not live (CorruptArtifact)" in problem
        assert "adapter_model.safetensors" in served.server.live.problem.text
        assert served.ask(QUESTIONS[0]).headers["x-apt-adapter"] == served.live() == first


def test_adapter_that_cannot_be_put_on_does_not_go_live_and_no_request_fails_by_it(project, adapters, tmp_path):
    first = promote(project, 1, adapters(1))
    broken = shutil.copytree(adapters(2), tmp_path / "broken")
    (broken / "adapter_config.json").write_text('{"peft_type": "LORA", "r": "four"}')
    with serving(project) as served:
        promote(project, 2, broken)
        replies = []

        def told():
            replies.append(served.ask(QUESTIONS[0]))
            return served.health()["problems"]

        (problem,) = waiting.until(told, 10)
        assert "what was promoted last is not live" in problem
        third = promote(project, 3, adapters(3))
        waiting.until(lambda: served.live() == third, 10)
        assert served.health()["problems"] == []
        assert text_of(served.ask(QUESTIONS[0])) == said_by(project, adapters(3), QUESTIONS[:1])[0]
    assert [(reply.status_code, reply.headers["x-apt-adapter"]) for reply in replies] == [(200, first)] * len(replies)


def test_nothing_is_taken_once_the_settings_are_not_those_that_the_server_began_with(project, adapters):
    first = promote(project, 1, adapters(1))
    with serving(project) as served:
        path = project.experiment_file
        path.write_text(path.read_text().replace("colour", "shade"))
        promote(project, 2, adapters(2))
        assert waiting.until(lambda: served.health()["problems"], 10)
        assert "tiny.yaml changed since the server started: start it anew" in served.server.live.problem.text
        assert served.ask(QUESTIONS[0]).headers["x-apt-adapter"] == served.live() == first


def test_settings_that_change_while_the_server_looks_put_on_nothing_that_they_promoted(project, adapters, monkeypatch):
    first = promote(project, 1, adapters(1))
    live = command.live_of(project, Display(), previous=False, canary=None)
    compare = type(project).changed_since_start

    def edited_right_after(self):
        changed = compare(self)
        if changed is None:
            path = project.experiment_file
            path.write_text(path.read_text().replace("colour", "shade"))
            promote(project, 2, adapters(2))
        return changed

    monkeypatch.setattr(type(project), "changed_since_start", edited_right_after)
    for _ in range(2):
        live.look()
        assert [one.digest for one in live.specialists] == [first]
    assert "tiny.yaml changed since the server started" in live.problem.text


def test_adapter_of_another_base_model_is_not_put_on_this_one_also_while_its_iteration_is_computed_anew(
    project, adapters
):
    def start():
        return command.live_of(project, Display(), previous=False, canary=None).specialists[0].iteration

    promote(project, 1, adapters(1), base="of another model")
    with pytest.raises(UsageError, match="is not known to be of the base model that"):
        start()
    own = {"base_model": project.models.identity("base_model")}
    project.store.point("tiny", "0001", committed(project, "0001", "policy", {}, {"policy.json": b""}, identities=own))
    with pytest.raises(UsageError, match="not known to be of the base model"):
        start()  # of a run that has come as far as the policy
    promote(project, 1, adapters(1))
    before = project.store.pointed("tiny", "0001", "policy")
    project.store.journal("computed", stage="policy", fingerprint=before.fingerprint)
    assert start() == "0001"
    project.store.point("tiny", "0001", committed(project, "0001", "policy", {}, {"policy.json": b""}, identities=own))
    assert start() == "0001", "what its adapter was trained on is known yet"


def test_canary_answers_its_share_of_users_each_by_one_adapter(project, adapters):
    before, newest = promote(project, 1, adapters(1)), promote(project, 2, adapters(2))
    users = [f"user {n}" for n in range(6)]
    with serving(project, canary=0.5) as served:
        given = {
            user: {served.ask(QUESTIONS[0], user=user).headers["x-apt-adapter"] for _ in range(2)} for user in users
        }
        names = {one["adapter"]: one["model"] for one in served.health()["live"]}
        asked = served.ask(QUESTIONS[0], model=names[before]).headers["x-apt-adapter"]
    assert given == {user: {newest if share_of(user) < 0.5 else before} for user in users}
    assert {before} < set().union(*given.values()) == {before, newest}
    assert asked == before, "a model that is named answers, whoever asks"


def test_adapter_that_is_promoted_again_is_live_as_what_the_last_iteration_promoted(project, adapters):
    first, second = promote(project, 1, adapters(1)), promote(project, 2, adapters(2))
    with serving(project, canary=0.5) as served:
        promote(project, 3, adapters(1))
        waiting.until(lambda: served.live() == first, 10)
        live = served.health()["live"]
        assert served.ask(QUESTIONS[0], user="a").status_code == 200
    assert [(one["adapter"], one["iteration"]) for one in live] == [(first, "0003"), (second, "0002")]


def test_first_promotion_shares_with_what_the_loop_starts_from(project, adapters):
    newest = promote(project, 1, adapters(1))
    with serving(project, canary=0.0) as served:
        assert [one["adapter"] for one in served.health()["live"]] == [newest, "none"]
        reply = served.ask(QUESTIONS[0])
    assert reply.headers["x-apt-adapter"] == "none"
    assert text_of(reply) == said_by(project, None, QUESTIONS[:1])[0]


def test_loop_of_the_back_end_openai_gets_its_answers_from_this_server(project, adapters):
    promote(project, 1, adapters(2))
    with serving(project) as served:
        name = served.health()["live"][0]["model"]
        asked = Served(f"{served.url}/v1", name, name, project.models.base_model, None, concurrency=4, timeout=30)
        reader = Reader(load_tokenizer(project.models.base_model), project.experiment.policy.system_prompt)
        said = collect(len(QUESTIONS), generate_served(reader, asked, QUESTIONS, max_new_tokens=24))
    assert said == said_by(project, adapters(2))


def test_served_adapter_in_dagster_is_what_is_live_from_when_on(tiny_folder, make_experiment, adapters, tmp_path):
    make_experiment()
    without = tiny.open_project(tmp_path, tiny_folder)
    assert "served_adapter" not in assets_of(without)
    project = tiny.open_project(tmp_path, tiny_folder, serve={"dagster": True})
    assert assets_of(project)["served_adapter"] == ["promoted_adapter"]
    digests = [promote(project, 1, adapters(1))]
    with serving(project) as served:
        digests.append(promote(project, 2, adapters(2)))
        waiting.until(lambda: served.live() == digests[1], 30)
    with dg.DagsterInstance.from_config(str(project.dagster_home)) as instance:
        found = instance.fetch_materializations(dg.AssetKey("served_adapter"), limit=9).records
    told = [one.asset_materialization.metadata for one in reversed(found)]
    assert [one["adapter"].value for one in told] == digests
    assert [one["iteration"].value for one in told] == ["0001", "0002"]


def assets_of(project):
    """Asset -> the assets that it is below of."""
    graph = build_definitions(project).resolve_asset_graph()
    return {
        key.to_user_string(): [one.to_user_string() for one in graph.get(key).parent_keys]
        for key in graph.get_all_asset_keys()
    }


def test_command_serves_until_sigterm_lets_the_answer_under_way_end_and_leaves_no_copy(project, adapters, tmp_path):
    digest, port = promote(project, 1, adapters(1)), free_port()
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-m", "apt_assets.cli", "serve", "-e", project.experiment_file, "--port", port]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            waiting.until(lambda: is_up(url) or process.poll() is not None, 120, 0.1)
            body = {"model": "tiny", "messages": user(QUESTIONS[0]), "stream": True}
            with requests.post(f"{url}/v1/chat/completions", json=body, stream=True, timeout=30) as reply:
                process.terminate()
                assert "[DONE]" in reply.text
            assert reply.headers["x-apt-adapter"] == digest
            assert process.wait(30) == 0
            said = process.stderr.read()
        finally:
            process.kill()
    assert "live: adapter " in said
    assert f"tiny at {url}/v1" in said
    assert "Traceback" not in said
    assert list((tmp_path / "temporary").glob("apt-serve-*")) == []


def is_up(url):
    try:
        return requests.get(f"{url}/health", timeout=5).ok
    except requests.RequestException:
        return False
