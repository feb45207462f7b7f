"""`apt-assets serve`: the promoted adapter on a port, by this package's own server or by vLLM."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apt_assets.engine.display import Display
from apt_assets.project import Project
from apt_assets.serve.asked_log import AskedLog, function_named
from apt_assets.serve.live import Live, Specialist
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.reader import expanded
from resources.model import http
from resources.model.openai_server import KEY_VARIABLE
from resources.threads import set_threads

if TYPE_CHECKING:
    from apt_assets.serve.app import Server

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE = 30  # seconds that answers under way have when the server ends


@dataclass(frozen=True)
class Address:
    """Where to listen. key: that requests must bring."""

    host: str
    port: int
    key: str | None

    def __str__(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True)
class Most:
    """requests: under way at once. body: bytes of one."""

    requests: int
    body: int


@dataclass(frozen=True)
class Logging:
    """See AskedLog. redact: MODULE:FUNCTION."""

    folder: Path | None
    redact: str | None
    most_bytes: int
    most_days: int

    def open(self, display: Display) -> AskedLog | None:
        """Raises UsageError."""
        if self.folder is None:
            if self.redact is not None:
                raise UsageError("--log-redact changes what --log writes: name a folder with --log")
            return None
        redact = None if self.redact is None else function_named(self.redact)
        return AskedLog(expanded(self.folder, "--log"), redact, self.most_bytes, self.most_days, display.line)


def address_of(host: str, port: int) -> Address:
    """Raises UsageError for one that others reach, without a key."""
    try:
        key = http.key_in(KEY_VARIABLE)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if host not in LOOPBACK and key is None:
        raise UsageError(f"--host {host}: others reach it, so it needs a key: set ${KEY_VARIABLE}")
    return Address(host, port, key)


def live_of(project: Project, display: Display, *, previous: bool, canary: float | None) -> Live:
    """What is live, told to people and, if the experiment says so, to Dagster. Raises UsageError."""
    if previous and canary is not None:
        raise UsageError("--previous and --canary exclude each other")

    def tell(specialist: Specialist) -> None:
        share = "" if canary is None else f" to {canary:.0%} of the requests"
        display.line(f"live{share}: {specialist} ({specialist.name})")
        if project.experiment.serve.dagster:
            from apt_assets.serve.in_dagster import record

            record(project, display, specialist)

    return Live(project, previous, canary, tell, tell=display.line)


def serve(project: Project, address: Address, live: Live, most: Most, logging: Logging, display: Display) -> None:
    """Answer until Ctrl-C or SIGTERM, which let the answers under way end. Raises UsageError."""
    import uvicorn

    log = logging.open(display)
    with listening(address) as open_socket:
        server = prepared(project, address, live, most, log, display)
        display.line(f"{project.experiment.name} at {address}/v1 (Ctrl-C ends it)")
        config = uvicorn.Config(
            server.application(),
            lifespan="on",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=PATIENCE,
        )
        with until_interrupted():
            uvicorn.Server(config).run(sockets=[open_socket])


def prepared(
    project: Project, address: Address, live: Live, most: Most, log: AskedLog | None, display: Display
) -> "Server":
    """The server with its model loaded. Raises UsageError."""
    from apt_assets.serve.app import Server
    from apt_assets.serve.engine import Answerer
    from apt_assets.serve.questions import Limits
    from resources.model.capabilities import skeleton
    from resources.model.prompts import Reader, load_tokenizer
    from resources.model.room import most_tokens

    set_threads(project.experiment.policy.threads)
    for line in project.find_out(["execution"]):
        display.line(line)
    answerer = Answerer(project, most.requests)
    answerer.start(live.specialists[0])
    live.try_on = answerer.try_on
    settings, folder = project.experiment.policy, project.models.base_model
    return Server(
        live=live,
        answerer=answerer,
        reader=Reader(load_tokenizer(folder), settings.system_prompt),
        limits=Limits(
            settings.max_new_tokens, most_tokens(folder), skeleton(folder).get_input_embeddings().weight.shape[0]
        ),
        name=project.experiment.name,
        key=address.key,
        hosts=(*LOOPBACK, address.host),
        body=most.body,
        log=log,
    )


def listening(address: Address) -> socket.socket:
    """A socket at the address, before anything is loaded. Raises UsageError if nothing can listen there."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except (OSError, TypeError) as error:  # TypeError: of a name that is none
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number and number > 0 else str(error)
        raise UsageError(f"{address}: {reason}: name another --host or --port") from None


def serve_by_vllm(
    project: Project, command: str, address: Address, live: Live, logging: Logging, display: Display
) -> int:
    """See by_vllm. Raises UsageError for what vLLM would not do."""
    if address.host not in LOOPBACK:
        raise UsageError(f"--host {address.host}: whoever reaches this vLLM can have it load a folder; leave it here")
    if logging.folder is not None or live.canary is not None:
        raise UsageError("--vllm answers by itself: it has neither --log nor --canary")
    from apt_assets.serve.by_vllm import serve_by_vllm as serve

    with until_interrupted():
        return serve(project, command, address.host, address.port, live, display)
    return 0


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM are how a server ends: no failure, and what it made goes with it."""
    signal.set_wakeup_fd(-1)  # the program's own watcher would end it before the last answer is out
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        yield
