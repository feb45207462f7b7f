"""The client of a server with OpenAI's interface: JSON over connections that are kept, for several threads.

What may pass is tried again: a timeout, a broken connection, 408, 429, 5xx, and a reply that whoever asked cannot
read. Waits double, unless the server asks for more by Retry-After. What will not pass, such as a wrong key, ends at
once. The loop is not urllib3's `Retry`, which sends the same bytes again, past the limit of requests a minute, and
does not see what a reply says. The key is in the header of the requests and nowhere else.
"""

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    import requests

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between attempts; doubled each time
JITTER = 0.25  # share of a wait, at most, that comes on top, so that threads do not come back all at once
PASSING = (408, 429)  # and 5xx
EXCERPT = 300  # characters of a reply that an error quotes
PIECE = 8  # so many characters of a key in a row are a secret too
T = TypeVar("T")


class Failure(Exception):
    """An attempt that brought nothing to go by; its words do not hold the key.

    passing: whether another attempt may do better. wait: how long the server asks to wait, in seconds.
    """

    passing, wait = True, 0.0


class NoReply(Failure):
    """No reply came, or none to its end."""


class Unreadable(Failure):
    """A reply of another form than asked for: raised by whoever reads it."""


class Refused(Failure):
    """A status of 300 or more. phrase: what stands behind it; text: how the reply begins."""

    def __init__(self, status: int, phrase: str, text: str, wait: float):
        super().__init__(f"status {status}")
        self.status, self.phrase, self.text, self.wait = status, phrase, text, wait
        self.passing = status in PASSING or status >= 500


@dataclass
class Rate:
    """Lets requests start at most so often; thread-safe. interval: seconds between two starts."""

    interval: float
    _next: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        with self._lock:
            moment = time.monotonic()
            start = max(self._next, moment)
            self._next = start + self.interval
        time.sleep(start - moment)


@dataclass
class Client:
    """url: what stands before /models or /chat/completions. key: sent as a bearer token; None: no header, whatever
    ~/.netrc has for the host. timeout: seconds of one attempt. connections: kept at a time. attempts: at one
    request, the first included. requests_per_minute: None is no limit."""

    url: str
    key: str | None = field(repr=False)
    timeout: float
    connections: int
    attempts: int
    requests_per_minute: float | None = None

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/")
        self._rate = Rate(60 / self.requests_per_minute if self.requests_per_minute else 0.0)
        import requests  # here, since every command comes by this module, and it takes 0.1 s
        from requests.adapters import HTTPAdapter

        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=self.connections))
        self._session.auth = self._sign  # without one, requests would look into ~/.netrc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def _sign(self, request: "requests.PreparedRequest") -> "requests.PreparedRequest":
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request

    def persist(self, attempt: Callable[[int], T]) -> T:
        """What `attempt` gives, which is called with 0, 1, ... until one attempt succeeds. Raises the Failure that
        will not pass, or the last one."""
        for number in range(self.attempts - 1):
            try:
                return attempt(number)
            except Failure as failure:
                if not failure.passing:
                    raise
                wait = min(max(failure.wait, FIRST_WAIT * 2**number), LONGEST_WAIT)
            time.sleep(wait * random.uniform(1, 1 + JITTER))
        return attempt(self.attempts - 1)

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of the reply to one request, or its text if that is no JSON. Raises NoReply or Refused."""
        import requests

        self._rate.wait()
        try:
            # The key goes to the address that the experiment names, and nowhere else.
            reply = self._session.request(
                method, self.url + path, json=body, timeout=self.timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            raise NoReply(f"{type(error).__name__}: {without_key(str(error), self.key)}") from None
        if reply.status_code >= 300:
            phrase = without_key(reply.reason, self.key)
            raise Refused(reply.status_code, phrase, self.excerpt(reply.text), wait_of(reply))
        try:
            return reply.json()
        except requests.JSONDecodeError:
            return reply.text

    def excerpt(self, content: Any) -> str:
        """How JSON or a text begins, cut where the key is no longer in it."""
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        return without_key(text, self.key)[:EXCERPT]


def whole(said: str) -> str:
    """A text of a reply. JSON may hold half a pair of surrogates, which no file can: it is U+FFFD, as in what a server
    cut in the middle of a character otherwise."""
    return said.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def wait_of(reply: "requests.Response") -> float:
    """Seconds until Retry-After, which is a number or a date (RFC 9110, 10.2.3); 0 for none, or one that is neither."""
    value = reply.headers.get("Retry-After", "0")
    if re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):  # a whole number by the RFC, which not every server read
        return float(value)
    try:
        return parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return 0.0


def key_in(variable: str) -> str | None:
    """The key in an environment variable, without white space around it; None if there is none. Raises
    ValueError for one that no header may hold: http.client would quote it in its error."""
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise ValueError(f"the key in ${variable} holds white space, or a character that is not ASCII: set it anew")
    return key or None


def without_key(text: str, key: str | None) -> str:
    """The text with *** in place of the key, which servers like to quote, and of any PIECE characters of it."""
    if not key:
        return text
    length = min(PIECE, len(key))
    pieces = "|".join({re.escape(key[start : start + length]) for start in range(len(key) - length + 1)})
    return re.sub(rf"(?s)(?:(?={pieces}).)+.{{{length - 1}}}", "***", text)
