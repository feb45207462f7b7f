"""Answers from a server: those of transformers here, to whatever server they are asked, or a clear error."""

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from apt_assets.engine.display import Display
from apt_assets.loop.turns import in_turn
from apt_assets.orchestration.run import run_loop
from apt_assets.project import Project
from resources.model import http
from resources.model import openai_server as served
from resources.model.openai_server import Served, ServerError, generate_served, served_name
from resources.model.policy import Reader, load_policy, load_tokenizer
from resources.store.rows import collect
from tests import tiny, waiting

pytestmark = pytest.mark.slow("model")

PROMPTS = [f"Colour of thing {n}?" for n in range(40)]


class Model:
    """A tiny model behind /v1 as vLLM serves one: plain transformers, one question at a time, adapters by name.

    before: called with the number of the completion; what it returns is sent as a status, without an answer.
    takes_adapters: whether it was started with VLLM_ALLOW_RUNTIME_LORA_UPDATING.
    """

    def __init__(self, folder, base):
        from transformers import AutoModelForCausalLM

        self.tokenizer, self.base = load_tokenizer(folder), base
        self.load = lambda: AutoModelForCausalLM.from_pretrained(folder)
        self.models = {base: self.load()}
        self.before = lambda number: None
        self.takes_adapters = True
        self.arrived, self.calls, self.keys, self.says = [], [], set(), None
        self.one_at_a_time = threading.Lock()

    def load_lora_adapter(self, body):
        """(status, reply), as vLLM 0.32 words them."""
        from peft import PeftModel

        name, folder = body["lora_name"], Path(body["lora_path"])
        if not self.takes_adapters:
            return 404, {"detail": "Not Found"}
        if not name:
            return 400, {"error": {"message": "Both 'lora_name' and 'lora_path' must be provided."}}
        if name in self.models:
            return 400, {"error": {"message": f"The lora adapter '{name}' has already been loaded."}}
        if not folder.is_dir():
            return 404, {"error": {"message": f"Loading lora {name} failed: No adapter found for {folder}"}}
        self.models[name] = PeftModel.from_pretrained(self.load(), folder)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def completions(self, body):
        import torch

        assert body["temperature"] == 0
        asked = torch.tensor([body["prompt"]])
        model = self.models[body["model"]]
        ids = model.generate(input_ids=asked, max_new_tokens=body["max_tokens"], do_sample=False)[0, asked.shape[1] :]
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return {"model": self.says or body["model"], "choices": [{"text": text}]}


@contextmanager
def serving(model):
    """The model's address while it is served."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self, status, content):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            assert self.path == "/v1/models"
            model.keys.add(self.headers["Authorization"])
            self.reply(200, {"data": [{"id": name} for name in model.models]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            model.arrived.append(self.path)
            with model.one_at_a_time:
                if self.path == "/v1/load_lora_adapter":
                    return self.reply(*model.load_lora_adapter(body))
                assert self.path == "/v1/completions"
                model.calls.append(body["model"])
                if status := model.before(len(model.calls)):
                    return self.reply(status, {"error": "not now"})
                return self.reply(200, model.completions(body))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.make_policy(tmp_path_factory.mktemp("lively") / "policy", spread=0.3)


@pytest.fixture
def model(folder, monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)
    return Model(folder, served_name("base", None))


@pytest.fixture
def reader(folder):
    return Reader(load_tokenizer(folder), "Be brief.")


def of(url, model, folder, **changes):
    known = {"base": model.base, "name": model.base, "base_folder": folder, "adapter_folder": None}
    return Served(**{"url": url, "concurrency": 4, "timeout": 20, **known, **changes})


@pytest.fixture(scope="module")
def expected(folder):
    policy = load_policy(folder, dtype="float32", system_prompt="Be brief.")
    return tiny.answers(policy, PROMPTS, max_new_tokens=5, batch_tokens=512)


def kept_of(batches, kept):
    """Put the answers into `kept` by position, as they come; returns how many were there after each batch."""
    counts = []
    for places, answers in batches:
        kept.update(zip(places, answers, strict=True))
        counts.append(len(kept))
    return counts


def test_served_answers_are_those_of_transformers_here_and_come_batch_by_batch(
    folder, model, reader, expected, monkeypatch
):
    monkeypatch.setenv("APT_SERVER_KEY", "secret")
    kept = {}
    with serving(model) as url:
        done = kept_of(generate_served(reader, of(url, model, folder), PROMPTS, max_new_tokens=5), kept)
    assert kept == dict(enumerate(expected))
    assert len(set(kept.values())) > 5
    assert done == [32, 40]
    assert model.keys == {"Bearer secret"}


def test_busy_failing_and_slow_servers_are_asked_again(folder, model, reader, expected):
    def before(number):
        if number == 7:
            # Four are asked at a time: with the next one, some question was given up and is asked again.
            assert waiting.until(lambda: len(model.arrived) > 6 + 4, 60)
        return {3: 429, 5: 500, 9: 503}.get(number)

    model.before = before
    with serving(model) as url:
        answers = generate_served(reader, of(url, model, folder, timeout=1), PROMPTS[:12], max_new_tokens=5)
        assert collect(12, answers) == expected[:12]
    assert len(model.calls) >= 12 + 4


def test_server_that_stops_answering_is_a_clear_error_and_what_it_said_is_kept(folder, model, reader, expected):
    model.before = lambda number: 503 if number > 10 else None
    kept = {}
    with serving(model) as url, pytest.raises(ServerError, match=rf"{url}/completions: 503 .*not now"):
        kept_of(generate_served(reader, of(url, model, folder), PROMPTS, max_new_tokens=5), kept)
    assert 6 <= len(kept) <= 10
    assert all(expected[place] == answer for place, answer in kept.items())
    # Those under way are asked five times each; had nobody stopped, the other thirty would be too.
    assert len(model.calls) < 80


def test_server_that_is_not_there_is_named(folder, model, reader):
    with serving(model) as url:
        pass
    with pytest.raises(ServerError, match=rf"{url}/models: no answer after 5 tries"):
        collect(40, generate_served(reader, of(url, model, folder), PROMPTS, max_new_tokens=5))


def test_server_without_the_model_is_told_what_to_serve_and_asked_nothing(folder, model, reader):
    other = served_name("another base", None)
    with (
        serving(model) as url,
        pytest.raises(ServerError, match=f"no model {other}, only {model.base}: serve {folder}"),
    ):
        collect(40, generate_served(reader, of(url, model, folder, base=other, name=other), PROMPTS, max_new_tokens=5))
    assert model.calls == []


ADAPTED = served_name("base", {"adapter_model.safetensors": "x"})


def test_server_that_takes_no_adapters_is_told_how_to_start_with_room_for_this_one(folder, model, reader, tmp_path):
    model.takes_adapters = False
    (tmp_path / "adapter_config.json").write_text('{"r": 24, "rank_pattern": {"q_proj": 40}}')
    with serving(model) as url:
        asked = of(url, model, folder, name=ADAPTED, adapter_folder=tmp_path)
        with pytest.raises(ServerError) as raised:
            collect(40, generate_served(reader, asked, PROMPTS, max_new_tokens=5))
    said = str(raised.value)
    assert f"did not load the adapter {tmp_path} as {ADAPTED}, since it takes none while it runs" in said
    assert f"vllm serve {folder} --served-model-name {model.base} --enable-lora --max-lora-rank 64" in said
    assert model.calls == []


def test_server_that_does_not_see_the_adapters_folder_is_told_the_path(folder, model, reader, tmp_path):
    there = tmp_path / "not there"
    with serving(model) as url:
        asked = of(url, model, folder, name=ADAPTED, adapter_folder=there)
        with pytest.raises(ServerError, match=f"{there} as {ADAPTED}, which it has to see under this very path"):
            collect(40, generate_served(reader, asked, PROMPTS, max_new_tokens=5))


def test_adapter_that_another_driver_loads_at_the_same_moment_is_used(folder, model, reader, tmp_path):
    adapter = tiny.make_adapter(tmp_path / "adapter", folder)
    load = model.load_lora_adapter

    def load_after_another(body):
        load(body)
        return load(body)

    model.load_lora_adapter = load_after_another
    with serving(model) as url:
        asked = of(url, model, folder, name=ADAPTED, adapter_folder=adapter)
        collect(3, generate_served(reader, asked, PROMPTS[:3], max_new_tokens=5))
    assert set(model.calls) == {ADAPTED}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("ready", None),
        ("away", r"/models: no answer after 1 tries: .*; serve .*/policy under the name apt-"),
        ("another model", r" has no model apt-\w+, only apt-\w+: serve .* --served-model-name apt-"),
        ("no adapters", r" takes no adapters while it runs: load each by hand, or serve .*--max-lora-rank 32"),
    ],
)
def test_run_tells_what_its_server_lacks_before_anything_is_computed(state, said, make_experiment, tmp_path, folder):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(20))
    policy, training = {"model": str(folder), "backend": "openai"}, {"lora_rank": 20}
    base = Project.open(make_experiment(policy={"model": str(folder)})).identity("base_model")
    model = Model(folder, served_name("another" if state == "another model" else base, None))
    model.takes_adapters, lines = state != "no adapters", []
    with serving(model) as url:
        project = Project.open(make_experiment(policy={**policy, "server": {"url": url}}, training=training))
        if state != "away":
            assert next(in_turn(project, 1, lines.append)).key == "base"
    if state == "away":
        assert next(in_turn(project, 1, lines.append)).key == "base"
    found = [line for line in lines if line.startswith(f"policy.backend: openai: {url}")]
    assert len(found) == (said is not None)
    assert all(re.search(said, line) for line in found)
    assert (model.calls, list(model.models)) == ([], [model.base])


def test_answer_of_another_model_is_refused(folder, model, reader):
    model.says, kept = "gpt-99", {}
    with serving(model) as url, pytest.raises(ServerError, match="answered with the model 'gpt-99'"):
        kept_of(generate_served(reader, of(url, model, folder), PROMPTS[:3], max_new_tokens=5), kept)
    assert kept == {}


def test_answers_that_nobody_takes_any_more_are_not_asked_for(folder, model, reader, monkeypatch):
    monkeypatch.setattr(served, "COMMIT_ROWS", 4)
    with serving(model) as url:
        answers = generate_served(reader, of(url, model, folder), PROMPTS, max_new_tokens=5)
        next(answers)
        # Those under way come to their end; afterwards there is no thread left that would ask.
        answers.close()
        asked = len(model.calls)
        assert asked < len(PROMPTS)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]
    assert len(model.calls) == asked


# -- in the loop -----------------------------------------------------------------------------------------


def predictions(project):
    manifests = [project.store.pointed("tiny", "0001", stage) for stage in ("eval_predictions", "benchmark_scores")]
    files = ("eval_predictions.parquet", "domain_items.parquet")
    return [pl.read_parquet(project.store.open(m) / file) for m, file in zip(manifests, files, strict=True)]


def test_loop_with_a_server_answers_as_without_one_and_asks_nothing_twice(make_experiment, tmp_path, folder):
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(40))
    policy = {"model": str(folder)}
    here = Project.open(make_experiment(policy=policy))
    run_loop(here, 1, Display())
    local = predictions(here)

    model = Model(folder, served_name(here.identity("base_model"), None))
    with serving(model) as url:
        path = make_experiment(policy={**policy, "backend": "openai", "server": {"url": url}})
        result = run_loop(Project.open(path), 1, Display())
        assert "benchmark_scores" in {name for key, name in result.computed if key == "0001"}, result.reason
        assert all(one.equals(other) for one, other in zip(local, predictions(Project.open(path)), strict=True))
        # The base model and one adapter, each under the digest of its content.
        assert len(set(model.calls)) == 2
        asked = len(model.calls)
        assert run_loop(Project.open(path), 1, Display()).computed == []
        assert len(model.calls) == asked
    # Everything is there: nobody needs the server any more.
    assert run_loop(Project.open(path), 1, Display()).computed == []
    moved = {**policy, "backend": "openai", "server": {"url": url, "engine": "another one"}}
    planner = Project.open(make_experiment(policy=moved)).planner()
    assert planner.stage("base", "base_scores").causes == ["policy.server.engine: null -> another one"]


@pytest.mark.parametrize(
    ("choice", "usage", "says"),
    [
        ({"finish_reason": "abort"}, {}, "finish_reason is 'abort'"),
        ({"finish_reason": "length"}, {"completion_tokens": 2}, "a limit of its own, 2 tokens here, where 5 were"),
        ({"finish_reason": "length"}, {"completion_tokens": 5}, None),
        ({"finish_reason": "stop"}, {"completion_tokens": 2}, None),
        ({"finish_reason": None}, None, None),
    ],
)
def test_answer_that_a_server_cut_short_is_none(folder, model, reader, choice, usage, says):
    model.completions = lambda body: {
        "model": body["model"], "choices": [{"text": " sunny \ud83c", **choice}], "usage": usage,
    }  # fmt: skip
    with serving(model) as url:
        answers = generate_served(reader, of(url, model, folder), PROMPTS[:1], max_new_tokens=5)
        if says:
            with pytest.raises(ServerError, match=f"did not answer to the end: .*{says}"):
                collect(1, answers)
        else:
            assert collect(1, answers) == ["sunny \ufffd"], "half of a character is none, and could stand in no file"


def test_run_that_its_server_left_goes_on_with_what_was_answered(make_experiment, tmp_path, folder, monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(served, "COMMIT_ROWS", 4)
    tiny.write_jsonl(tmp_path / "landing" / "colours.jsonl", tiny.domain_rows(60))
    base = Project.open(make_experiment(policy={"model": str(folder)})).identity("base_model")
    model = Model(folder, served_name(base, None))
    # Six of the base model's answers to held-out rows come.
    model.before = lambda number: 503 if number > 6 else None
    with serving(model) as url:
        server = {"url": url, "concurrency": 1}
        path = make_experiment(policy={"model": str(folder), "backend": "openai", "server": server})
        failed = run_loop(Project.open(path), 1, Display())
        assert not failed.passed
        assert failed.reason.startswith("iteration base: base_scores: ")
        assert f"ServerError: {url}/completions: 503" in failed.reason
        model.before = lambda number: None
        run_loop(Project.open(path), 1, Display())
    answers = Project.open(path).store.pointed("tiny", "base", "base_scores").work["answers"]
    assert answers["reused"] == 6
    assert answers["computed"] > 6
