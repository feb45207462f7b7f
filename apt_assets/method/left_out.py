"""Rows that landed and are not in the data set: how many, and why, in words."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from apt_assets.method.corrections import NOT_APPLIED

# What a reason in quarantine begins with -> what such rows have in common. Other reasons are those of landing.
REASONS = {
    "contradicts ": "the same question as another row, and another answer",
    "held out by ": "the question of a held-out row",
    "is within a word of ": "a near duplicate of a held-out row",
    "cannot be graded by ": "an answer that the assessor cannot grade",
    "asks the same as ": "the same question and answer as another row",
    "left out by ": "left out in review",
    NOT_APPLIED: "its row is gone or has other golds by now",
}
BY_PEOPLE = (REASONS["left out by "], REASONS[NOT_APPLIED])
BAD, AGAIN = "no question and answer that can be read", REASONS["asks the same as "]
DIFFERS = "differs and is no part of the question"
DIFFERING = re.compile(rf"\((?P<fields>[^()]*) {DIFFERS}\)")
# Fields that some hold their question in beside `prompt`. Rows that differ in one of them are likely not the same.
OF_A_QUESTION = frozenset(
    ("input", "inputs", "context", "passage", "article", "document", "paragraph", "text", "sentence", "sentence1",
     "sentence2", "premise", "hypothesis", "background", "table", "code", "history", "choices", "options")
)  # fmt: skip


def differing_fields(metadata: str | None, other: str | None) -> list[str]:
    """The names of the text fields in which two rows' metadata (a JSON object) differ, sorted."""
    if metadata == other or metadata is None or other is None:
        return []
    one, two = json.loads(metadata), json.loads(other)
    return sorted(name for name in one.keys() & two.keys() if is_other_text(one[name], two[name]))


def is_other_text(one: object, two: object) -> bool:
    return one != two and all(isinstance(value, str | list) for value in (one, two))


def as_note(fields: Sequence[str]) -> str:
    """ " (input differs and is no part of the question)", or nothing if there is no field."""
    return f" ({', '.join(fields[:3])} {DIFFERS})" if fields else ""


def left_out(quarantine: pl.DataFrame, accepted: int, kept: int) -> dict[str, int]:
    """Why rows are left out -> how many. accepted: rows that landing takes; kept: those in the data set."""
    counts = Counter(kind_of(reason) for reason in quarantine["reason"])
    again = accepted - kept - sum(count for kind, count in counts.items() if kind not in (BAD, REASONS[NOT_APPLIED]))
    return dict(counts.most_common()) | ({AGAIN: again} if again else {})


def kind_of(reason: str) -> str:
    kind = next((kind for start, kind in REASONS.items() if reason.startswith(start)), BAD)
    differing = DIFFERING.search(reason) if kind != BAD else None
    return f"{kind}; but {differing['fields']} {DIFFERS}: put it into `prompt`" if differing else kind


def in_words(counts: Mapping[str, int]) -> Iterator[str]:
    """A line for each reason, the most frequent first."""
    for kind, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        what, outcome = ("decision", "not applied") if kind == REASONS[NOT_APPLIED] else ("row", "left out")
        yield f"{count} {what}{'s' if count > 1 else ''} {outcome}: {kind}"
