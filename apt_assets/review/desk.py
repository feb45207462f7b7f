"""What one person does at the page: a decision or a grade of an item, undo, and which item comes next."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from apt_assets.landing.asked import Asked
from apt_assets.landing.chunks import BadField
from apt_assets.landing.corrections import (
    ANSWER_IS_RIGHT_TOO,
    BOTH_WRONG,
    GOLD_IS_RIGHT,
    LEAVE_OUT,
    NEW_ROW,
    NO_ROW,
    UNDO,
    WITH_ANSWER,
    check_decision,
)
from apt_assets.review.approvals import Approvals
from apt_assets.review.journal import Journal, as_new_row, now
from apt_assets.review.queue import Answer, Case, Item, Queue

# What may be decided, by kind of item.
KINDS = ("cases", "asked", "grades")
CHOICES = {"cases": (GOLD_IS_RIGHT, ANSWER_IS_RIGHT_TOO, BOTH_WRONG, LEAVE_OUT), "asked": (NEW_ROW, BOTH_WRONG, NO_ROW)}
LINE = ("prompt", "decision", "answer", "row", "by")  # of a line of corrections, what stays when it is written again


class Gone(Exception):
    """There is no such item."""


class Wrong(Exception):
    """What was sent cannot be done."""


class Desk:
    """A queue, the journal that its decisions go to, and what waits for an approval."""

    def __init__(self, queue: Queue, journal: Journal):
        self.queue, self.journal = queue, journal
        self.approvals = Approvals(journal.project, journal.by)
        # What was decided here, for undo: kind and place of the item, what held before, and what holds since.
        self._done: list[tuple[str, int, Mapping[str, Any] | None, Mapping[str, Any] | None]] = []
        self._lock = threading.Lock()

    def items(self, kind: str) -> Sequence[Item]:
        of_kind: dict[str, Sequence[Item]]
        of_kind = {"cases": self.queue.cases, "asked": self.queue.asked, "grades": self.queue.answers}
        return of_kind[kind]

    def item(self, kind: str, number: int) -> Item:
        """The item at a place, from 1. Raises Gone."""
        items = self.items(kind)
        if not 1 <= number <= len(items):
            raise Gone(f"there is no item {number}: there are {len(items)}")
        return items[number - 1]

    def decision(self, item: Item) -> Mapping[str, Any] | None:
        """What was decided about it; None: nothing, and nothing is of an answer to grade."""
        if isinstance(item, Case):
            return self.journal.decided.get(item.row)
        return self.journal.of_asked.get(item.row_id) if isinstance(item, Asked) else None

    def grade(self, item: Item) -> int | None:
        """What this person graded an answer; None: nothing yet."""
        return self.journal.graded(item.prompt, item.prediction) if isinstance(item, Answer) else None

    def is_open(self, item: Item) -> bool:
        return (self.grade(item) if isinstance(item, Answer) else self.decision(item)) is None

    def open_items(self, kind: str) -> int:
        return sum(map(self.is_open, self.items(kind)))

    def following(self, kind: str, number: int) -> int | None:
        """The next open item behind a place, else the first such; None: there is none."""
        items = self.items(kind)
        places = [*range(number + 1, len(items) + 1), *range(1, number + 1)]
        return next((place for place in places if self.is_open(items[place - 1])), None)

    def act(self, kind: str, number: int, form: Mapping[str, str]) -> int | None:
        """Do what a form says with an item: {decision, answer} or {grade}. Returns the item to be shown next; None:
        none is open. Raises Gone, Wrong, OSError."""
        item = self.item(kind, number)
        if isinstance(item, Answer):
            self._grade(item, form.get("grade", ""))
            return self.following(kind, number)
        with self._lock:
            before = self.decision(item)
            self._decide(kind, item, form.get("decision", ""), form.get("answer", ""))
            if said(self.decision(item)) != said(before):  # a form that was sent twice is one decision
                self._done.append((kind, number, before, self.decision(item)))
        return self.following(kind, number)

    def undo(self) -> tuple[str, int] | None:
        """Take the last decision of this desk back: what held before holds again, as the decision of whoever took it.
        Returns (kind, place) of its item; None: there is none. Raises OSError."""
        with self._lock:
            if not self._done:
                return None
            self.journal.look()
            kind, number, before, own = self._done[-1]
            last = self.decision(self.item(kind, number))
            if said(last) != said(own):
                pass  # somebody else has decided since, or took it back
            elif before is not None:
                self.journal.add([{**{name: before[name] for name in LINE}, "at": None}])
            elif last is not None:
                self.journal.decide(last["prompt"], UNDO, row=last["row"])
            self._done.pop()
            return kind, number

    def _grade(self, item: Answer, grade: str) -> None:
        if grade not in ("1", "2", "3", "4", "5"):
            raise Wrong("a grade is 1 to 5")
        self.journal.grade(item.prompt, item.prediction, item.golds, int(grade))

    def _decide(self, kind: str, item: Case | Asked, decision: str, typed: str) -> None:
        if decision not in CHOICES[kind]:
            raise Wrong(f"a decision is one of {', '.join(CHOICES[kind])}")
        answer = typed.replace("\r\n", "\n").strip() if decision == BOTH_WRONG else item.prediction
        row: str | None
        if isinstance(item, Case):
            row = item.row
        else:
            # Of an asked question there is no gold that could be wrong: the typed answer makes the row.
            decision = NO_ROW if decision == NO_ROW else NEW_ROW
            row = None if decision == NO_ROW else as_new_row(item.prompt, answer)
        said_right = answer if decision in WITH_ANSWER else None
        line = {"prompt": item.prompt, "decision": decision, "answer": said_right, "row": row}
        try:
            check_decision({**line, "by": self.journal.by, "at": now()})
        except BadField as bad:
            raise Wrong(f"{bad.field}: {bad.reason}") from None
        self.journal.decide(**line)  # type: ignore[arg-type]


def said(decision: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    """What is decided and by whom, whenever: a decision that holds again is a later line of the journal."""
    return None if decision is None else tuple(decision[name] for name in ("decision", "answer", "row", "by"))
