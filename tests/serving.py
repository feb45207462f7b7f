"""A server of the tiny models on loopback, in this process, and promotions without a loop."""

import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from apt_assets.engine.display import Display
from apt_assets.serve import app, command
from apt_assets.settings.iterations import ADAPTER_PARTS, key_of
from tests import waiting


@dataclass
class Served:
    """url: up to the port. server: see apt_assets.serve.app."""

    url: str
    server: app.Server

    def ask(self, prompt, path="/v1/chat/completions", **fields):
        asked = {"messages": [{"role": "user", "content": prompt}]} if "chat" in path else {"prompt": prompt}
        return requests.post(self.url + path, json={"model": "tiny", **asked, **fields}, timeout=30)

    def health(self):
        return requests.get(f"{self.url}/health", timeout=30).json()

    def live(self):
        """The digest of the newest adapter that answers."""
        return self.health()["live"][0]["adapter"]

    def metrics(self):
        """Name with its labels -> value."""
        lines = requests.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return {name: float(value) for name, value in (it.rsplit(" ", 1) for it in lines if not it.startswith("#"))}


@contextmanager
def serving(project, *, previous=False, canary=None, key=None, requests=64, body=10_000, log=None, display=None):
    import uvicorn

    address, display = command.Address("127.0.0.1", 0, key), display or Display()
    live = command.live_of(project, display, previous=previous, canary=canary)
    with command.listening(address) as listener:
        server = command.prepared(project, address, live, command.Most(requests, body), log, display)
        config = uvicorn.Config(server.application(), lifespan="on", log_level="warning", timeout_graceful_shutdown=5)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        waiting.until(lambda: running.started, 30)
        try:
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", server)
        finally:
            running.should_exit = True
            thread.join()


def promote(project, number: int, adapter: Path, *, passed=True, damaged=False, base: str | None = None) -> str:
    """As if iteration `number` had promoted the adapter, or its gate had refused it; returns the digest of its
    weights. damaged: as if its file in the store had been written over since. base: digest of the base model that it
    was trained on; None: the project's."""
    store, name, key = project.store, project.experiment.name, key_of(number)
    if store.snapshot(name, key) is None:
        store.take_snapshot(name, key, [])
    files = {part: (adapter / part).read_bytes() for part in ADAPTER_PARTS}
    models = {"base_model": base or project.models.identity("base_model")}
    policy = committed(project, key, "policy", {}, {"policy.json": models["base_model"].encode()}, identities=models)
    trained = committed(project, key, "adapter_checkpoint", {}, files, inputs={"policy": policy.data_version})
    made_of = {f"adapter_checkpoint/{part}": trained.files[part] for part in ADAPTER_PARTS}
    promoted = committed(project, key, "promoted_adapter", {}, files, inputs=made_of)
    if damaged:
        weights = store.open(promoted) / ADAPTER_PARTS[1]
        weights.chmod(0o644)
        weights.write_bytes(b"something else")
    store.point(name, key, policy)
    store.point(name, key, trained)
    if passed:
        store.point(name, key, promoted)
    store.point(name, key, committed(project, key, "gate", {"passed": passed}, {"verdict.json": b"{}"}))
    return promoted.files[ADAPTER_PARTS[1]]


def committed(project, key, stage, facts, files, **known):
    nothing = {name: known.get(name, {}) for name in ("inputs", "settings", "identities", "libraries", "code", "work")}
    with project.store.workspace() as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return project.store.commit(
            folder, stage=stage, fingerprint=uuid.uuid4().hex, facts=facts, row_tables=[], iteration=key, seconds=0.0,
            run_id="", created="2026-01-01T00:00:00Z", **nothing,
        )  # fmt: skip
