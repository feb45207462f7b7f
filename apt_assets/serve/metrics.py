"""What a server counts, in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats)."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)  # upper bounds of the histogram of answers
TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Metrics:
    """requests: (path, status) -> how many. tokens: prompt, completion -> how many. buckets: answers by SECONDS, and
    longer ones. logged, unlogged: lines of the log that were written, and that could not be."""

    requests: "Counter[tuple[str, int]]" = field(default_factory=Counter)
    tokens: "Counter[str]" = field(default_factory=Counter)
    buckets: "Counter[int]" = field(default_factory=Counter)
    seconds: float = 0.0
    answers: "Counter[str]" = field(default_factory=Counter)  # digest of the adapter -> how many
    logged: int = 0
    unlogged: int = 0

    def answered(self, adapter: str, prompt: int, completion: int, seconds: float) -> None:
        """Count an answer. prompt, completion: its tokens."""
        self.answers[adapter] += 1
        self.tokens += Counter(prompt=prompt, completion=completion)
        self.buckets[bisect_left(SECONDS, seconds)] += 1
        self.seconds += seconds

    def lines(self) -> Iterator[str]:
        """What only grows; the server adds what is so now."""
        by_status = [(f'path="{path}",status="{status}"', n) for (path, status), n in sorted(self.requests.items())]
        yield from metric("apt_requests_total", "counter", "Requests by path and status.", by_status)
        by_adapter = [(f'adapter="{digest}"', n) for digest, n in sorted(self.answers.items())]
        yield from metric("apt_answers_total", "counter", "Whole answers by adapter.", by_adapter)
        of_kind = [(f'kind="{kind}"', n) for kind, n in sorted(self.tokens.items())]
        yield from metric("apt_tokens_total", "counter", "Tokens read and said.", of_kind)
        of_log = [('written="yes"', self.logged), ('written="no"', self.unlogged)]
        yield from metric("apt_log_lines_total", "counter", "Lines for the log of questions.", of_log)
        yield from self.histogram("apt_answer_seconds", "From the request to the end of its answer.")

    def histogram(self, name: str, about: str) -> Iterator[str]:
        yield from (f"# HELP {name} {about}", f"# TYPE {name} histogram")
        total = 0
        for place, bound in enumerate((*map(str, SECONDS), "+Inf")):
            total += self.buckets[place]
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield from (f"{name}_sum {self.seconds:.6f}", f"{name}_count {total}")


def metric(name: str, kind: str, about: str, values: Iterable[tuple[str, float]]) -> Iterator[str]:
    """The lines of one metric. values: (labels as they are written, value)."""
    yield from (f"# HELP {name} {about}", f"# TYPE {name} {kind}")
    for labels, value in values:
        yield f"{name}{{{labels}}} {value}" if labels else f"{name} {value}"
