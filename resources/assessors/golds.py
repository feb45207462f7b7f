"""Golds that cannot be graded, by kind of assessor: such a row goes to quarantine before anybody is asked.

A kind that is not here grades against any gold. A model's rubric may still fail on a row; that is told when it grades.
What is imported here decides the data set, so it is not the assessors themselves.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from resources.assessors.items import texts_of_items
from resources.assessors.numeric import no_one_number


def no_items(gold: str, separator: Any) -> str | None:
    return None if texts_of_items(gold, separator) else "has no items of a list"


@dataclass(frozen=True)
class Check:
    """by: AssessorSettings -> the setting that decides it, if there is one. reason: (gold, that) -> why no answer can
    be graded against the gold; None: answers can."""

    by: Callable[[Any], Any]
    reason: Callable[[str, Any], str | None]


CHECKS = {
    "numeric": Check(lambda settings: None, lambda gold, _: no_one_number(gold)),
    "set_f1": Check(lambda settings: settings.set_f1.separator, no_items),
}


def checks_of(kinds: Iterable[str], settings: Any) -> dict[str, Any]:
    """Of the kinds that grade, those that cannot grade against any gold -> the setting that decides it. settings:
    AssessorSettings."""
    return {kind: CHECKS[kind].by(settings) for kind in sorted(kinds) if kind in CHECKS}


def ungradable(checks: Mapping[str, Any]) -> Callable[[str], str | None] | None:
    """A function (gold) -> why it cannot be graded, or None; None: any gold can. checks: of `checks_of`."""
    if not checks:
        return None

    def reason_of(gold: str) -> str | None:
        found = ((kind, CHECKS[kind].reason(gold, by)) for kind, by in checks.items())
        return next((f"cannot be graded by {kind}: {reason}" for kind, reason in found if reason), None)

    return reason_of
