"""Rubric grading by a model behind an OpenAI-compatible endpoint (POST .../chat/completions).

Requests overlap, within a rate limit. What may pass is tried again with growing waits: timeouts, broken
connections, 408, 429, 5xx, and a reply that does not hold one grade in the asked form. What will not pass,
such as a wrong key, ends at once. The API key is in the header of the requests and nowhere else.
"""

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median_low
from typing import TYPE_CHECKING, Any

from resources.assessors import Grade, Row, Ungradable, Variant
from resources.assessors.labels import exact
from resources.assessors.rubric import Prompt, build_prompt, read_grade
from resources.model.http import key_in, open_session, without_key
from resources.store.kinds import RowKind

if TYPE_CHECKING:
    import requests

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between attempts; doubled each time
PASSING = (408, 429)


class Failure(Exception):
    """One attempt gave no grade; `wait` is how long the server asks to wait, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


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
class EndpointRubric:
    """url: what stands before /chat/completions. key: sent as a bearer token; None: no header.

    A row is graded once, at temperature 0. If that grade is in `unsure`, it is graded `samples` times in
    all, the others at `temperature` with seeds of their own, and the median counts. timeout: seconds of one
    attempt. requests_per_minute: None is no limit. in_flight: requests at a time.
    """

    url: str
    model: str
    rubric: str
    samples: int
    unsure: Sequence[int]
    temperature: float
    reply_tokens: int
    key: str | None = field(repr=False)
    timeout: float
    max_attempts: int
    requests_per_minute: float | None
    in_flight: int
    at_once: int = 64

    def __post_init__(self) -> None:
        self._rate = Rate(60 / self.requests_per_minute if self.requests_per_minute else 0.0)
        self._session = open_session(self.key, self.in_flight)

    def grade(self, rows: Sequence[Row]) -> list[Grade]:
        with ThreadPoolExecutor(self.in_flight) as pool:
            waiting = [pool.submit(self.grade_row, row) for row in rows]
            try:
                return [one.result() for one in waiting]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def grade_row(self, row: Row) -> Grade:
        prompt = build_prompt(row, self.rubric)
        grades = [self.sample(row, prompt, 0)]
        if grades[0] in self.unsure:
            grades += [self.sample(row, prompt, number) for number in range(1, self.samples)]
        return Grade(median_low(grades), exact(row.prediction, row.gold))

    def sample(self, row: Row, prompt: Prompt, number: int) -> int:
        """One grade, within `max_attempts`. Raises Ungradable."""
        for attempt in range(self.max_attempts):
            try:
                # The same request would be answered in the same wrong form, so a second one has another seed.
                return self.attempt(prompt, seed=1000 * attempt + number, greedy=number == attempt == 0)
            except Failure as failure:
                reason, wait = failure, max(failure.wait, FIRST_WAIT * 2**attempt)
            if attempt + 1 < self.max_attempts:
                time.sleep(min(wait, LONGEST_WAIT) * random.uniform(1, 1.25))
        raise Ungradable(
            f"assessor rubric: no grade from {self.url} for the question {row.question!r} after "
            f"{self.max_attempts} attempts; the last one: {reason}"
        )

    def attempt(self, prompt: Prompt, seed: int, greedy: bool) -> int:
        """One request. Raises Failure for what may pass, Ungradable for what will not."""
        import requests

        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt.text}],
            "temperature": 0.0 if greedy else self.temperature,
            "seed": seed,
            "max_tokens": self.reply_tokens,
        }
        self._rate.wait()
        try:
            response = self._session.post(
                f"{self.url.rstrip('/')}/chat/completions", json=body, timeout=self.timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            raise Failure(f"{type(error).__name__}: {without_key(str(error), self.key)}") from None
        if response.status_code in PASSING or response.status_code >= 500:
            raise Failure(f"status {response.status_code}", wait_of(response))
        if response.status_code != 200:
            raise Ungradable(f"assessor rubric: {self.url} answers with {self.refusal(response)}")
        try:
            reply = response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise Failure(f"no chat completion but {self.excerpt(response.text)}") from None
        grade = read_grade(reply, prompt) if isinstance(reply, str) else None
        if grade is None:
            raise Failure(f"no single line `{prompt.reply_start} N` in the reply {self.excerpt(str(reply))}")
        return grade

    def refusal(self, response: "requests.Response") -> str:
        """What a status that will not pass means. The text of 401 and 403 often quotes the key."""
        if response.status_code in (401, 403):
            key = "the API key is not accepted" if self.key else "no API key is set"
            return f"{response.status_code}: {key} (assessor.rubric.key_variable names its variable)"
        return f"{response.status_code}: {self.excerpt(response.text)}"

    def excerpt(self, text: str) -> str:
        return repr(without_key(text, self.key)[:300])


def wait_of(response: "requests.Response") -> float:
    """Seconds of the Retry-After header; 0 without one, or if it is a date."""
    try:
        return float(response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0


# What decides a grade, and what only says how the endpoint is reached.
ASKED = ("endpoint", "model", "text", "samples", "unsure", "temperature", "reply_tokens")
REACHED = ("key_variable", "requests_per_minute", "in_flight", "timeout", "max_attempts")
ROWS = RowKind(
    "grades by rubric of an endpoint",
    table="grades",
    settings=tuple(f"assessor.rubric.{name}" for name in ASKED),
    free=tuple(f"assessor.rubric.{name}" for name in REACHED),
    code=(__name__,),
)


def open_endpoint(scope: Any) -> EndpointRubric:
    """The key is read from the environment here and nowhere else."""
    settings = scope.settings.assessor.rubric
    return EndpointRubric(
        url=settings.endpoint,
        model=settings.model,
        rubric=settings.text,
        samples=settings.samples,
        unsure=settings.unsure,
        temperature=settings.temperature,
        reply_tokens=settings.reply_tokens,
        key=key_in(settings.key_variable),
        timeout=settings.timeout,
        max_attempts=settings.max_attempts,
        requests_per_minute=settings.requests_per_minute,
        in_flight=settings.in_flight,
    )


ENDPOINT = Variant(ROWS, open_endpoint)
