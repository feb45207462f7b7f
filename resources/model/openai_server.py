"""Answers from a server with OpenAI's completions interface, such as vLLM's or llama.cpp's.

The server is asked for a model by a name that is a digest of content: of the base model's files and the
adapter's (docs/adr/0009-generation-back-ends.md). So an answer cannot come to be taken for another
adapter's: a server that was not given this very adapter does not know the name. Questions go as token ids,
so that what the policy reads does not depend on the server's chat template.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from resources.model import http
from resources.model.prompts import encode
from resources.store.digest import digest_json
from resources.store.rows import Batches

if TYPE_CHECKING:
    from resources.model.prompts import Reader

COMMIT_ROWS = 32  # answers that are yielded together
ATTEMPTS = 5  # at one request
KEY_VARIABLE = "APT_SERVER_KEY"
LOOK_SECONDS = 10.0  # to wait for an answer, where a server is only looked at
ENDS = ("stop", "eos", "eos_token", "stop_sequence")  # finish_reason of an answer that came to its end
RANKS = (16, 32, 64, 128, 256, 320, 512)  # that vLLM can make room for; the first is its default


class ServerError(RuntimeError):
    """The server cannot be reached, does not have the model, or answers wrongly; the message says which,
    without the key."""

    def __init__(self, message: str):
        super().__init__(http.without_key(message, http.key_in(KEY_VARIABLE)))


@dataclass(frozen=True)
class Served:
    """A server, and the model that is asked of it: `name`, which is `base` with the adapter of `adapter_folder`."""

    url: str
    base: str
    name: str
    base_folder: Path
    adapter_folder: Path | None
    concurrency: int
    timeout: float


def served_name(base_model: str, adapter: dict[str, str] | None) -> str:
    """The name of a base model with an adapter, by their digests."""
    return f"apt-{digest_json([base_model, adapter])[:24]}"


def generate_served(reader: "Reader", served: Served, prompts: Sequence[str], *, max_new_tokens: int) -> Batches[str]:
    """Answer every prompt greedily; yields a few dozen answers at a time, as they come. Raises ServerError, after
    every answer that came was yielded."""
    ended: dict[int, str] = {}
    failure: ServerError | None = None
    stop = Event()

    def ask(prompt: str) -> str | None:
        return None if stop.is_set() else complete(session, served, encode(reader, prompt), max_new_tokens)

    with open_session(served) as session, ThreadPoolExecutor(served.concurrency) as pool:
        require_model(session, served)
        waiting = {pool.submit(ask, prompt): place for place, prompt in enumerate(prompts)}
        try:
            for count, future in enumerate(as_completed(waiting), start=1):
                try:
                    said = future.result()
                except ServerError as error:
                    failure = failure or error
                    stop.set()
                    said = None
                if said is not None:
                    ended[waiting[future]] = said
                if ended and (len(ended) >= COMMIT_ROWS or count == len(waiting)):
                    yield list(ended), list(ended.values())
                    ended = {}
        finally:
            stop.set()  # also if nobody takes more answers: what has not been asked yet is not asked any more
    if failure is not None:
        raise failure


def open_session(served: Served, attempts: int = ATTEMPTS) -> http.Client:
    """The key of a server that wants one is in $APT_SERVER_KEY."""
    return http.Client(
        url=served.url,
        key=http.key_in(KEY_VARIABLE),
        timeout=served.timeout,
        connections=served.concurrency,
        attempts=attempts,
    )


def call(session: http.Client, method: str, path: str, **body: Any) -> dict[str, Any]:
    """The reply's JSON object; {} for any other reply, such as vLLM's word that it loaded an adapter. Raises
    ServerError."""
    try:
        reply = session.persist(lambda attempt: session.send(method, path, body or None))
    except http.Refused as error:
        raise ServerError(f"{session.url}{path}: {error.status} {error.phrase}: {error.text}") from None
    except http.Failure as error:
        raise ServerError(f"{session.url}{path}: no answer after {session.attempts} tries: {error}") from None
    return reply if isinstance(reply, dict) else {}


def names(session: http.Client) -> list[str]:
    """Of the models that the server has. Raises ServerError."""
    return [str(model.get("id")) for model in call(session, "GET", "/models").get("data", [])]


def require_model(session: http.Client, served: Served) -> None:
    """Make sure that the server has the model, loading the adapter if it has the base. Raises ServerError."""
    known = names(session)
    if served.name in known:
        return
    if served.base not in known or served.adapter_folder is None:
        raise ServerError(f"{lacks_base(served, known)}: {how_to_serve(served)}")
    try:
        call(session, "POST", "/load_lora_adapter", lora_name=served.name, lora_path=str(served.adapter_folder))
    except ServerError as error:
        # Another driver may have asked for it too; or this one did, and the reply was lost.
        if served.name in names(session):
            return
        raise ServerError(
            f"{served.url} did not load the adapter {served.adapter_folder} as {served.name}{because(str(error))} "
            f"({error}): load it by hand under that name, or {how_to_serve(served, rank_of(served.adapter_folder))}"
        ) from None


def because(error: str) -> str:
    """What lies behind a refusal that does not say so itself, as vLLM 0.32 words it."""
    if "No adapter found" in error:
        return ", which it has to see under this very path"
    return ", since it takes none while it runs" if ": 404 " in error else ""


def lacks_base(served: Served, known: Sequence[str]) -> str:
    return f"{served.url} has no model {served.base}, only {', '.join(known)}"


def how_to_serve(served: Served, rank: int = RANKS[0]) -> str:
    """The command, for a base model and adapters of this rank."""
    room = next((room for room in RANKS if room >= rank), rank)
    return (
        f"serve {served.base_folder} under the name {served.base}; for vLLM: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True "
        f"vllm serve {served.base_folder} --served-model-name {served.base} --enable-lora --max-lora-rank {room}"
    )


def rank_of(adapter_folder: Path) -> int:
    """The rank of an adapter by its configuration, the largest if layers have their own; 0 if that cannot be read."""
    try:
        config = json.loads((adapter_folder / "adapter_config.json").read_text(encoding="utf-8"))
        return max(config["r"], *config.get("rank_pattern", {}).values(), 0)
    except (OSError, ValueError, KeyError):
        return 0


def obstacles(served: Served, rank: int) -> list[str]:
    """What will keep the server from answering for the base model and for adapters of this rank that are yet to be
    trained, a line each; it is asked once and left as it is."""
    serve = how_to_serve(served, rank)
    with open_session(served, attempts=1) as session:
        try:
            known = names(session)
        except ServerError as error:
            return [f"{error}; {serve}"]
        if served.base not in known:
            return [f"{lacks_base(served, known)}: {serve}"]
        if not takes_adapters(session):
            return [f"{served.url} takes no adapters while it runs: load each by hand, or {serve}"]
    return []


def takes_adapters(session: http.Client) -> bool:
    """Whether the server has the way by which adapters are loaded: none is named, which only it refuses."""
    try:
        session.send("POST", "/load_lora_adapter", {"lora_name": "", "lora_path": ""})
    except http.Refused as refused:
        return refused.status not in (404, 405)
    except http.Failure:
        pass
    return True


def complete(session: http.Client, served: Served, ids: list[int], max_new_tokens: int) -> str:
    """The greedy answer to one question. Raises ServerError, also for the answer of another model."""
    reply = call(
        session,
        "POST",
        "/completions",
        model=served.name,
        prompt=ids,
        max_tokens=max_new_tokens,
        temperature=0,
        # Some servers take what they are not told from the model's generation_config.json.
        top_p=1,
        repetition_penalty=1,
    )
    if reply.get("model") != served.name:
        raise ServerError(f"{served.url} answered with the model {reply.get('model')!r}, asked for {served.name!r}")
    try:
        choice = reply["choices"][0]
        if reason := cut_short(reply, choice.get("finish_reason"), max_new_tokens):
            raise ServerError(f"{served.url} did not answer to the end: {reason}")
        return http.whole(choice["text"]).strip()
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ServerError(f"{served.url} answered without choices[0].text: {session.excerpt(reply)}") from None


def cut_short(reply: dict[str, Any], ended_by: Any, max_new_tokens: int) -> str | None:
    """Why an answer is not the policy's whole one; None: it is, or the server does not tell."""
    if ended_by not in (None, "", "length", *ENDS):
        return f"finish_reason is {ended_by!r}"
    written = (reply.get("usage") or {}).get("completion_tokens")
    if ended_by == "length" and isinstance(written, int) and written < max_new_tokens:
        return f"it has a limit of its own, {written} tokens here, where {max_new_tokens} were asked for"
    return None
