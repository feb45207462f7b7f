"""One part of the torture run: what was done to the program, how often, and what went wrong."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Part:
    """The outcome of one part.

    title: a heading. text: what was done, and what counts as a failure. figures: rows of a table, what was
    counted -> the count. failures: one line each, enough to do it again; none means that all held.
    """

    title: str
    text: str
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
