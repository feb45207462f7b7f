"""vLLM as the server: it is started with the base model, and each promoted adapter is loaded into it as it comes.

An adapter has a name of its own there, the digest of its content; nothing is replaced under a name, so no answer can
begin with one adapter and end with another (docs/adr/0009-generation-back-ends.md).
"""

import os
import shlex
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass

from apt_assets.engine.display import Display
from apt_assets.project import Project
from apt_assets.serve.live import Live, Specialist
from apt_assets.serve.problem import Problem
from apt_assets.settings.experiment import UsageError
from resources.model import openai_server as client

LOOK_SECONDS = 2.0  # between two looks at what is promoted, or at whether vLLM is up
ASK_SECONDS = 120.0  # to wait for vLLM to load an adapter
PATIENCE = 30.0  # seconds that vLLM has to end


@dataclass(frozen=True)
class VLLM:
    """command: vLLM's own, and options for it. base: the name under which it has the base model."""

    project: Project
    command: list[str]
    base: str
    host: str
    port: int

    def start(self, rank: int) -> "subprocess.Popen[bytes]":
        """Start it, with room for adapters of this rank."""
        room = next((room for room in client.RANKS if room >= rank), rank)
        adapters = ["--enable-lora", "--max-lora-rank", str(room)]
        named = ["--served-model-name", self.base, "--host", self.host, "--port", str(self.port)]
        # Its own environment: nothing of ours is on its path, and no other process sees the key.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
        if key := os.environ.get(client.KEY_VARIABLE):
            environment["VLLM_API_KEY"] = key
        program, *options = self.command
        command = [program, "serve", str(self.project.models.base_model), *named, *adapters, *options]
        return subprocess.Popen(command, env=environment, process_group=0)  # a group: Ctrl-C is ours to pass on

    def is_up(self) -> bool:
        with client.open_session(self.served(None), attempts=1) as session:
            try:
                return bool(client.names(session))
            except client.ServerError:
                return False

    def load(self, specialist: Specialist) -> None:
        """Raises UsageError if it does not take the adapter."""
        served = self.served(specialist)
        with client.open_session(served) as session:
            try:
                client.require_model(session, served)
            except client.ServerError as error:
                raise UsageError(f"--vllm: {error}") from None

    def served(self, specialist: Specialist | None) -> client.Served:
        return client.Served(
            url=f"http://{self.host}:{self.port}/v1",
            base=self.base,
            name=self.base if specialist is None else specialist.name,
            base_folder=self.project.models.base_model,
            adapter_folder=None if specialist is None else specialist.folder,
            concurrency=1,
            timeout=ASK_SECONDS,
        )


def serve_by_vllm(project: Project, command: str, host: str, port: int, live: Live, display: Display) -> int:
    """Run vLLM until it ends, whose exit code is returned, or Ctrl-C. command: as one types it, options included.
    Raises UsageError if there is no such command, or the adapters of the start cannot be loaded. One that comes later
    and is not taken is told, and tried again; what vLLM has answers on."""
    try:
        words = shlex.split(command)
    except ValueError as error:  # a quote that is not closed
        raise UsageError(f"--vllm: {command}: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise UsageError(f"--vllm: there is no command {command!r}; name vLLM's own, such as vllm-env/bin/vllm")
    vllm = VLLM(project, words, client.served_name(project.models.identity("base_model"), None), host, port)
    ranks = [client.rank_of(one.folder) for one in live.specialists if one.folder]
    loaded: list[Specialist] = []  # none of them is let go: vLLM may read a folder again
    problem = Problem("vLLM did not take what was promoted", display.line)
    process = vllm.start(max(project.experiment.training.lora_rank, *ranks, 0))
    try:
        while process.poll() is None:
            if loaded or vllm.is_up():
                live.look()
                try:
                    for one in [one for one in live.specialists if one not in loaded]:
                        vllm.load(one)
                        loaded.append(one)
                        display.line(f"vLLM has {one}: ask for the model {one.name}")
                    problem.clear()
                except UsageError as error:
                    if not loaded:
                        raise
                    problem.set(error)
            time.sleep(LOOK_SECONDS)
        return process.returncode
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.terminate()
            process.wait(PATIENCE)
        with suppress(ProcessLookupError):  # its workers, of which it leaves some where it fails
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
