"""`serve --vllm`: what vLLM is told, by a command that listens as vLLM does. The real one: tests/test_vllm.py."""

import json
import sys
import threading
from pathlib import Path

import pytest
import requests

from apt_assets.engine.display import Display
from apt_assets.serve import by_vllm, command
from apt_assets.settings.experiment import UsageError
from tests import tiny, waiting
from tests.postgres import free_port
from tests.serving import promote

STAND_IN = """#!{python}
import json, os, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

words = sys.argv[1:]
option = lambda name: words[words.index(name) + 1]
names, told = [option("--served-model-name")], Path({told!r})
worker = subprocess.Popen(["sleep", "600"]).pid
told.write_text(json.dumps({{"words": words, "environment": dict(os.environ), "loaded": [], "worker": worker}}))

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply({{"data": [{{"id": name}} for name in names]}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/quit":
            os._exit(3)
        if Path({told!r} + ".full").exists():
            return self.reply({{"error": "no room"}}, 400)
        names.append(body["lora_name"])
        found = json.loads(told.read_text())
        found["loaded"].append([body["lora_name"], sorted(os.listdir(body["lora_path"]))])
        told.write_text(json.dumps(found))
        self.reply({{}})

    def reply(self, content, status=200):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass

HTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()
"""


def test_vllm_gets_the_base_model_and_each_promoted_adapter_under_its_digest(
    tiny_folder, make_experiment, tmp_path, monkeypatch
):
    monkeypatch.setattr(by_vllm, "LOOK_SECONDS", 0.05)
    monkeypatch.setenv("APT_SERVER_KEY", "secret-key-1")
    make_experiment()
    project = tiny.open_project(tmp_path, tiny_folder)
    adapters = [tiny.make_adapter(tmp_path / f"a{r}", tiny_folder / "policy", r, r=r) for r in (2, 20)]
    promote(project, 1, adapters[1])
    told, program, port = tmp_path / "told.json", tmp_path / "vllm", free_port()
    program.write_text(STAND_IN.format(python=sys.executable, told=str(told)))
    program.chmod(0o755)
    live = command.live_of(project, Display(), previous=False, canary=None)
    codes, said, full = [], Said(), tmp_path / "told.json.full"
    thread = threading.Thread(
        target=lambda: codes.append(
            by_vllm.serve_by_vllm(project, f"{program} --max-model-len 256", "127.0.0.1", port, live, said)
        )
    )
    thread.start()
    try:
        waiting.until(lambda: told.exists() and loaded(told), 30)
        full.touch()
        promote(project, 2, adapters[0])
        waiting.until(lambda: said.lines[1:], 30)
        full.unlink()
        waiting.until(lambda: len(loaded(told)) == 2, 30)
    finally:
        with pytest.raises(requests.ConnectionError):
            requests.post(f"http://127.0.0.1:{port}/quit", json={}, timeout=5)
        thread.join()
    found = json.loads(told.read_text())
    words = found["words"]
    assert words[:2] == ["serve", str(project.models.base_model)]
    assert words[words.index("--max-lora-rank") + 1] == "32", "room for rank 20, in a step that vLLM has"
    assert words[-2:] == ["--max-model-len", "256"]
    assert "secret-key-1" not in " ".join(words)
    assert found["environment"]["VLLM_API_KEY"] == "secret-key-1"
    assert [name for name, _ in loaded(told)][1] == live.specialists[0].name
    assert loaded(told)[0][1] == ["adapter_config.json", "adapter_model.safetensors"]
    assert codes == [3], "its own exit code"
    assert "vLLM did not take what was promoted" in said.lines[1]
    assert "no room" in said.lines[1]
    assert "vLLM has adapter" in said.lines[2], "tried again, and the failure told once"
    assert waiting.within(10, lambda: not runs(found["worker"])), "what it left behind ends with it"


class Said(Display):
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def runs(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def loaded(told):
    try:
        return json.loads(told.read_text())["loaded"]
    except ValueError:
        return []  # it is being written


def test_vllm_that_others_reach_is_refused_since_it_loads_any_folder(
    tiny_folder, make_experiment, tmp_path, monkeypatch
):
    monkeypatch.setenv("APT_SERVER_KEY", "secret-key-1")
    make_experiment()
    project = tiny.open_project(tmp_path, tiny_folder)
    promote(project, 1, tiny.make_adapter(tmp_path / "adapter", tiny_folder / "policy"))
    live = command.live_of(project, Display(), previous=False, canary=None)
    logging = command.Logging(None, None, 1, 1)
    with pytest.raises(UsageError, match="can have it load a folder"):
        command.serve_by_vllm(project, "vllm", command.address_of("0.0.0.0", 8000), live, logging, Display())
