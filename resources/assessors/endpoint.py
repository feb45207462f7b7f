"""Rubric grading by a model behind an OpenAI-compatible endpoint (POST .../chat/completions).

Requests overlap, within a rate limit. A reply that does not hold one grade in the asked form is asked for again, as
are failures that may pass (resources/model/http.py).
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any

from resources.assessors import Grade, Row, Ungradable, Variant
from resources.assessors.rubric import Prompt, build_prompt, is_exact, read_grade
from resources.model.http import Client, Failure, Refused, Unreadable, key_in, whole
from resources.store.kinds import RowKind


class Tokens:
    """Counts tokens, for several threads."""

    def __init__(self) -> None:
        self._lock, self.total = threading.Lock(), 0

    def add(self, reply: Any) -> None:
        """Those that a reply says it took, of its prompt and of itself; a server need not say so."""
        usage = reply.get("usage") if isinstance(reply, dict) else None
        total = usage.get("total_tokens") if isinstance(usage, dict) else None
        if isinstance(total, int):
            with self._lock:
                self.total += total


USED = Tokens()  # by this process, of all endpoints


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
        self._client = Client(
            self.url, self.key, self.timeout, self.in_flight, self.max_attempts, self.requests_per_minute
        )

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
        return Grade(median_low(grades), is_exact(row))

    def sample(self, row: Row, prompt: Prompt, number: int) -> int:
        """One grade, within `max_attempts`. Raises Ungradable."""
        try:
            # The same request would be answered in the same wrong form, so a second one has another seed.
            return self._client.persist(
                lambda attempt: self.ask(prompt, seed=1000 * attempt + number, greedy=number == attempt == 0)
            )
        except Failure as failure:
            if isinstance(failure, Refused) and not failure.passing:
                raise Ungradable(f"assessor rubric: {self.url} answers with {self.refusal(failure)}") from None
            raise Ungradable(
                f"assessor rubric: no grade from {self.url} for the question {row.question!r} after "
                f"{self.max_attempts} attempts; the last one: {failure}"
            ) from None

    def ask(self, prompt: Prompt, seed: int, greedy: bool) -> int:
        """One request. Raises Failure."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt.text}],
            "temperature": 0.0 if greedy else self.temperature,
            "seed": seed,
            "max_tokens": self.reply_tokens,
        }
        content = self._client.send("POST", "/chat/completions", body)
        USED.add(content)  # whether or not there is a grade in it: it is paid for
        try:
            reply = content["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise Unreadable(f"no chat completion but {self._client.excerpt(content)!r}") from None
        grade = read_grade(whole(reply), prompt) if isinstance(reply, str) else None
        if grade is None:
            raise Unreadable(
                f"no single line `{prompt.reply_start} N` in the reply {self._client.excerpt(str(reply))!r}"
            )
        return grade

    def refusal(self, refused: Refused) -> str:
        """What a status that will not pass means. The text of 401 and 403 often quotes the key."""
        if refused.status in (401, 403):
            key = "the API key is not accepted" if self.key else "no API key is set"
            return f"{refused.status}: {key} (assessor.rubric.key_variable names its variable)"
        return f"{refused.status}: {refused.text!r}"


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
