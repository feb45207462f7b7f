"""The page's server: on loopback alone, behind a token in the address, and for nobody's page but its own.

A browser on this machine can be made to ask any address on it. So a request is refused whose Host is no name of
loopback (a foreign name that leads here), whose Origin is another than that, or whose address lacks the token; and
one that would change something must name its Origin, which browsers always do.
"""

import errno
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from apt_assets.review.approvals import APPROVE, REFUSE, Approvals
from apt_assets.review.desk import KINDS, Desk, Gone, Wrong
from apt_assets.review.pages import approval_page, item_page, list_page
from apt_assets.settings.experiment import UsageError

HOST = "127.0.0.1"
LOOPBACK = (HOST, "localhost", "::1")
MOST_DIGITS = 10  # of the number of a page
LONGEST_BODY = 4 << 20  # bytes of what is typed
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # without one, a browser would not name the Origin of a form
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def refusal(request: Request, token: str) -> str | None:
    """Why a request is refused; None: it is not."""
    host = request.headers.get("host", "")
    if name_of(host) not in LOOPBACK:
        return "this page is asked for by a name of this machine alone"
    origins = request.headers.getlist("origin")
    if any(origin != f"http://{host}" for origin in origins):
        return "another page has asked"
    if request.method not in ("GET", "HEAD") and not origins:
        return "a change names the page that it comes from (Origin)"
    given = request.url.path.split("/")[1]
    return None if secrets.compare_digest(given.encode(), token.encode()) else "the address has a wrong token"


def name_of(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class Guarded:
    """An app behind `refusal`."""

    def __init__(self, app: ASGIApp, token: str):
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "the server was told to pass on nothing else"
        reason = refusal(Request(scope), self._token)
        app = self._app if reason is None else PlainTextResponse(f"refused: {reason}\n", 403, HEADERS)
        await app(scope, receive, send)


def make_app(desk: Desk, token: str) -> ASGIApp:
    """The page of a desk, below /TOKEN/."""

    def listed(request: Request) -> Response:
        page = request.query_params.get("page", "")
        number = int(page) if page.isdecimal() and len(page) < MOST_DIGITS else 1
        return shown(lambda nonce: list_page(desk, kind_in(request), number, nonce))

    def item(request: Request) -> Response:
        kind, number = kind_in(request), request.path_params["number"]
        return shown(lambda nonce: item_page(desk, kind, number, nonce))

    async def decide(request: Request) -> Response:
        kind, number, form = kind_in(request), request.path_params["number"], await form_of(request)
        following = await run_in_threadpool(desk.act, kind, number, form)
        return RedirectResponse(f"/{token}/{kind}/{following}" if following else f"/{token}/{kind}", 303)

    async def undo(request: Request) -> Response:
        place = await run_in_threadpool(desk.undo)
        return RedirectResponse(f"/{token}/{'/'.join(map(str, place))}" if place else f"/{token}/", 303)

    def approvals() -> Approvals:
        if not desk.approvals.required:
            raise Gone("this experiment asks for no approval (gate.approval)")
        return desk.approvals

    def approval(request: Request) -> Response:
        approvals()
        return shown(lambda nonce: approval_page(desk, nonce))

    async def approve(request: Request) -> Response:
        asked, form = approvals(), await form_of(request)
        if form.get("decision") not in (APPROVE, REFUSE):
            raise Wrong(f"a decision is {APPROVE} or {REFUSE}")
        await run_in_threadpool(asked.decide, form)
        return RedirectResponse(f"/{token}/approval", 303)

    def start(request: Request) -> Response:
        return RedirectResponse(f"/{token}/{next((kind for kind in KINDS if desk.items(kind)), KINDS[0])}", 303)

    routes = [
        Route("/", start),
        Route("/undo", undo, methods=["POST"]),
        Route("/approval", approval, methods=["GET"]),
        Route("/approval", approve, methods=["POST"]),
        Route("/{kind}", listed),
        Route("/{kind}/{number:int}", item, methods=["GET"]),
        Route("/{kind}/{number:int}", decide, methods=["POST"]),
    ]
    below = [Route(f"/{token}{route.path}", route.endpoint, methods=list(route.methods or ())) for route in routes]
    refused: dict[type[Exception] | int, Callable[[Request, Exception], Awaitable[Response]]] = {
        Gone: told(404),
        Wrong: told(400),
        UsageError: told(400),
        OSError: told(507),
    }
    return Guarded(Starlette(routes=below, exception_handlers=refused), token)  # type: ignore[arg-type]


def told(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    """An error as one line."""

    async def answer(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"{error}\n", status, HEADERS)

    return answer


def kind_in(request: Request) -> str:
    kind: str = request.path_params["kind"]
    if kind not in KINDS:
        raise Gone("there is no such page")
    return kind


def shown(page: Callable[[str], str]) -> Response:
    nonce = secrets.token_urlsafe(16)
    policy = {"Content-Security-Policy": POLICY.format(nonce=nonce)}
    return HTMLResponse(page(nonce), headers={**HEADERS, **policy})


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form, the last value of each."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            raise HTTPException(413, "more than was ever typed")
    try:
        fields = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=10, errors="strict")
    except ValueError:
        raise Wrong("this is no form") from None
    return {name: values[-1] for name, values in fields.items()}


# -- the process -----------------------------------------------------------------------------------------


def listening(port: int) -> socket.socket:
    """Raises UsageError if this process cannot listen on the port."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise UsageError(f"port {port} {reason}: name another with --port") from None


def serve(desk: Desk, port: int, say: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C or SIGTERM. Raises UsageError."""
    token = secrets.token_urlsafe(24)
    with listening(port) as listener:
        say(f"review at http://{HOST}:{listener.getsockname()[1]}/{token}/ (Ctrl-C ends it)")
        signal.set_wakeup_fd(-1)  # nothing computes in this process: the server ends by itself
        config = uvicorn.Config(
            make_app(desk, token), log_level="warning", access_log=False, lifespan="off", ws="none",
            server_header=False, timeout_graceful_shutdown=2,
        )  # fmt: skip
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
