"""Questions that people asked of `serve`, as they wait for a review."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apt_assets.landing.chunks import BadField


@dataclass(frozen=True)
class Asked:
    """A question that people asked, and what was answered the last time, "" where that was nothing. adapter: who
    answered."""

    row_id: str
    prompt: str
    prediction: str
    adapter: str
    asked_at: str
    times: int


def as_asked(record: Any, identity: Callable[[str], str]) -> Asked | None:
    """The question of a line {prompt, answer, adapter, asked_at, times}; None of what is none. identity: gives the
    row_id of a prompt. times: 1 where a line does not say."""
    from apt_assets.landing.corrections import checked, time_of

    if isinstance(record, BadField) or not isinstance(record, dict):
        return None
    try:
        prompt, answer = checked(record, "prompt"), record["answer"]
        said_nothing = isinstance(answer, str) and not answer.strip()
        answer = "" if said_nothing else checked(record, "answer")
        adapter, times = str(record.get("adapter") or ""), record.get("times")
        often = times if type(times) is int and times > 0 else 1
        return Asked(identity(prompt), prompt, answer, adapter, time_of(record["asked_at"]), often)
    except (BadField, KeyError):
        return None
