"""The routes: who may ask, how much, and answers in OpenAI's form, whole or token by token."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from apt_assets.serve.answer import Answer
from apt_assets.serve.asked_log import AskedLog
from apt_assets.serve.engine import Answerer, Full
from apt_assets.serve.forms import CHAT, COMPLETION, Form
from apt_assets.serve.live import Live, Specialist
from apt_assets.serve.metrics import TYPE, Metrics, metric
from apt_assets.serve.questions import Limits, Question, Refused, read_chat, read_completion, without_nulls
from resources.model.prompts import Reader

LOOK_SECONDS = 2.0  # between two looks at what is promoted
BODY_SECONDS = 30.0  # in which a request's body has to come
MODELS = "/v1/models"
CLOSED = 499  # what nginx counts a request as whose client did not wait

Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class Server:
    """What the routes share. key: that requests have to bring; None: none. hosts: names by which it is reached where
    it has no key, so that no page of the web reaches it by a name of its own. body: bytes of a request at most."""

    live: Live
    answerer: Answerer
    reader: Reader
    limits: Limits
    name: str
    key: str | None
    hosts: tuple[str, ...]
    body: int
    log: AskedLog | None = None
    metrics: Metrics = field(default_factory=Metrics)

    # -- requests --------------------------------------------------------------------------------

    def guarded(self, handler: Handler, *, open_to_all: bool = False) -> Handler:
        """The handler for those who may ask; whatever it refuses is an error of OpenAI's form."""

        async def handle(request: Request) -> Response:
            # Not by the name of a model, of which anyone may ask for any number.
            path = MODELS if request.path_params else request.url.path
            try:
                if not open_to_all:
                    self.admit(request)
                reply = await handler(request)
            except Refused as refused:
                reply = error(refused.status, refused.message, refused.field, refused.code)
            except ClientDisconnect:
                reply = Response(status_code=CLOSED)  # nobody reads it
            except Exception:
                self.metrics.requests[path, 500] += 1
                raise
            self.metrics.requests[path, reply.status_code] += 1
            return reply

        return handle

    def admit(self, request: Request) -> None:
        """Raises Refused."""
        if self.key is None:
            # The header itself: of one that is malformed, `request.url` has the address of this server.
            host = request.headers.get("host", "")
            if name_of(host) not in self.hosts:
                raise Refused(403, f"no requests for the host {host!r} are answered here")
        else:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not compare_digest(given.encode(), self.key.encode()):
                raise Refused(401, "the key is missing or wrong: Authorization: Bearer KEY", code="invalid_api_key")

    async def content(self, request: Request) -> Any:
        """The JSON of the body. Raises Refused."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "Content-Type must be application/json")
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for piece in request.stream():
                    body += piece
                    if len(body) > self.body:
                        raise Refused(413, f"a request has at most {self.body} bytes here")
            content = without_nulls(json.loads(body))
            json.dumps(content, ensure_ascii=False).encode()  # half of a surrogate pair is no text to anyone
            return content
        except TimeoutError:
            raise Refused(408, f"the body did not come in {BODY_SECONDS:g} seconds") from None
        except (ValueError, RecursionError):
            raise Refused(400, "the body is no JSON") from None

    def specialist(self, question: Question) -> Specialist:
        """Who answers: by the experiment's name or none whoever is live, by another name of `/v1/models` that one.
        Raises Refused."""
        asked = question.body.model or self.name
        found = self.live.choose(question.body.user) if asked == self.name else self.live.named(asked)
        if found is None:
            raise no_model(asked)
        return found

    async def chat(self, request: Request) -> Response:
        content = await self.content(request)
        return await self.answer(request, read_chat(content, self.reader, self.limits), CHAT)

    async def completion(self, request: Request) -> Response:
        content = await self.content(request)
        return await self.answer(request, read_completion(content, self.reader, self.limits), COMPLETION)

    async def answer(self, request: Request, question: Question, form: Form) -> Response:
        answer = Answer(question, self.specialist(question), self.reader.tokenizer, self.answerer)
        try:
            answer.ask()
        except Full:
            limit = self.answerer.limit
            return error(
                429,
                f"{limit} requests are under way: ask again",
                code="rate_limit_exceeded",
                headers={"Retry-After": "1"},
            )
        headers = {"x-apt-adapter": answer.specialist.digest}
        if question.body.stream:
            return StreamingResponse(self.streamed(answer, form), headers=headers, media_type="text/event-stream")
        try:
            text = await unless_gone(request, answer.whole())
        finally:
            answer.let_go()
        await self.note(answer, text)
        return JSONResponse(form.whole(answer, text), headers=headers)

    async def streamed(self, answer: Answer, form: Form) -> AsyncIterator[str]:
        said = ""
        try:
            yield event(form.first(answer))
            async for piece in answer.pieces():
                said += piece
                yield event(form.piece(answer, piece))
            for last in form.last(answer):
                yield event(last)
            yield "data: [DONE]\n\n"
        except Refused as refused:
            yield event(error_content(refused.status, refused.message))
            return
        finally:
            answer.let_go()
        await self.note(answer, said)

    async def note(self, answer: Answer, text: str) -> None:
        """Count an answer, and keep it in the log if there is one; what the log cannot take is no one's failure."""
        self.metrics.answered(
            answer.specialist.digest, len(answer.question.ids), len(answer.output_ids), answer.seconds
        )
        if self.log is not None:
            written = await asyncio.to_thread(self.log.write, answer.as_logged(text))
            self.metrics.logged += written
            self.metrics.unlogged += not written

    # -- what is so now --------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": list(self.listed().values())})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if (found := self.listed().get(name)) is None:
            raise no_model(name)
        return JSONResponse(found)

    def listed(self) -> dict[str, dict[str, Any]]:
        """Name -> the model, in OpenAI's form."""
        names = [self.name, *(one.name for one in self.live.specialists)]
        return {name: {"id": name, "object": "model", "created": 0, "owned_by": "apt-assets"} for name in names}

    async def health(self, request: Request) -> Response:
        live = [{"model": one.name, "adapter": one.digest, "iteration": one.iteration} for one in self.live.specialists]
        well = self.answerer.alive
        found = {"status": "ok" if well else "the thread that answers has ended", "live": live}
        problems = [self.live.problem, *([self.log.problem] if self.log else [])]
        known = [one.public for one in problems if one.public]  # anyone may ask
        return JSONResponse({**found, "problems": known}, status_code=200 if well else 503)

    async def prometheus(self, request: Request) -> Response:
        now = [
            ("apt_requests_under_way", "gauge", "Requests that wait or are being answered.", self.answerer.under_way),
            ("apt_passes_total", "counter", "Passes of the model.", self.answerer.passes),
            ("apt_adapter_loads_total", "counter", "How often an adapter was put on the model.", self.answerer.swaps),
            ("apt_promotions_total", "counter", "Changes of what is live, the first included.", self.live.changes),
        ]
        live = [(f'adapter="{one.digest}",model="{one.name}"', 1.0) for one in self.live.specialists]
        lines = [
            *self.metrics.lines(),
            *(line for name, kind, about, value in now for line in metric(name, kind, about, [("", value)])),
            *metric("apt_live", "gauge", "The adapters that answer.", live),
        ]
        return PlainTextResponse("\n".join(lines) + "\n", media_type=TYPE)

    async def elsewhere(self, request: Request, failure: HTTPException) -> Response:
        """A path or a method that there is not."""
        self.metrics.requests["elsewhere", failure.status_code] += 1
        return error(failure.status_code, f"{request.method} {request.url.path}: {failure.detail}")

    # -- the application -------------------------------------------------------------------------

    def application(self) -> Starlette:
        routes = [
            Route("/v1/chat/completions", self.guarded(self.chat), methods=["POST"]),
            Route("/v1/completions", self.guarded(self.completion), methods=["POST"]),
            Route(MODELS, self.guarded(self.models)),
            Route(f"{MODELS}/{{name}}", self.guarded(self.model)),
            Route("/metrics", self.guarded(self.prometheus)),
            Route("/health", self.guarded(self.health, open_to_all=True)),
        ]
        handlers: Any = {HTTPException: self.elsewhere, Exception: broken}
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self.lifespan)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        watcher = asyncio.create_task(self.watch())
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.to_thread(self.answerer.close)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.live.look)


def name_of(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def no_model(name: str) -> Refused:
    return Refused(404, f"model: there is no {name!r} here; see {MODELS}", "model", "model_not_found")


async def unless_gone(request: Request, work: Coroutine[Any, Any, str]) -> str:
    """What `work` gives. Raises ClientDisconnect once nobody waits for it any more, Refused as it does."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(gone(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        for task in (working, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, Refused):
                await task


async def gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def error_content(status: int, message: str, field: str | None = None, code: str | None = None) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}


def error(
    status: int,
    message: str,
    field: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    return JSONResponse(error_content(status, message, field, code), status_code=status, headers=headers)


async def broken(request: Request, failure: Exception) -> Response:
    return error(500, "the server failed; its own output says how")
