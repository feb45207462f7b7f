"""How far a stage is: what its steps report, to a terminal or to Dagster's log."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far one part of a stage is. done, total: in `unit`; seconds: since the part began."""

    iteration: str
    stage: str
    what: str
    unit: str
    done: int
    total: int
    seconds: float

    @property
    def rate(self) -> float:
        """Units a second so far."""
        return self.done / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far; None before the first unit is done."""
        return (self.total - self.done) / self.rate if self.done else None

    def __str__(self) -> str:
        left = "time left unknown" if self.seconds_left is None else f"{self.seconds_left:.0f} s left"
        return f"{self.what}: {self.done}/{self.total} {self.unit}, {self.rate:.1f} {self.unit}/s, {left}"


Show = Callable[[Progress], None]


def throttled(show: Show, seconds: float) -> Show:
    """`show`, called at most every so many seconds, but always at the end of a part."""
    last = time.monotonic()

    def pass_on(at: Progress) -> None:
        nonlocal last
        moment = time.monotonic()
        if at.done >= at.total or moment - last >= seconds:
            last = moment
            show(at)

    return pass_on
