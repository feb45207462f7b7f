"""Golds that cannot be graded, by kind of assessor: such a row goes to quarantine before anybody is asked.

A kind that is not here grades against any gold. A model's rubric may still fail on a row; that is told when it grades.
What is imported here decides the data set, so it is not the assessors themselves.
"""

from collections.abc import Callable, Iterable
from typing import Any

from resources.assessors.items import texts_of_items
from resources.assessors.numeric import no_one_number


def no_items(gold: str, settings: Any) -> str | None:
    return None if texts_of_items(gold, settings.set_f1.separator) else "has no items of a list"


# Kind -> (gold, AssessorSettings) -> why no answer can be graded against it; None: answers can.
UNGRADABLE: dict[str, Callable[[str, Any], str | None]] = {
    "numeric": lambda gold, settings: no_one_number(gold),
    "set_f1": no_items,
}
# What decides it beside the gold.
SETTINGS = ("assessor.kind", "assessor.combined", "assessor.set_f1.separator")


def ungradable(kinds: Iterable[str], settings: Any) -> Callable[[str], str | None] | None:
    """A function (gold) -> why one of these kinds cannot grade against it, or None; None: they all grade any gold.
    settings: AssessorSettings."""
    checks = {kind: UNGRADABLE[kind] for kind in kinds if kind in UNGRADABLE}
    if not checks:
        return None

    def reason_of(gold: str) -> str | None:
        found = ((kind, check(gold, settings)) for kind, check in checks.items())
        return next((f"cannot be graded by {kind}: {reason}" for kind, reason in found if reason), None)

    return reason_of
