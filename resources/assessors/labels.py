"""Label match: grades an answer 1-5 against the gold. The rubric is this file.

    5  equal to the gold, outer white space aside
    4  equal after normalisation, or names the gold and no competing label
    3  names the gold and a competing label too: hedged, no one could act on it
    2  names only a competing label, or shares at least half of the gold's words
    1  anything else: empty, off the question, or another kind of answer

"Names" means: as whole words, after normalisation; in a script without spaces, such as Chinese or Thai, wherever
its letters stand, so that there a longer label competes with one inside it. Words keep the symbols that belong to them
(terms.py): C++ is not C, and A- not A. Labels are the task's other possible answers; a free-form task has none, and
then 3 cannot occur. Two spellings of one label ("red.", "Red!") are one label; a list in `assessor.labels` that has
both is refused, since whoever wrote it means two. APT's own assessor is a language model (Prometheus-2-7B, by reviews
of the paper); a match against a closed answer needs none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from resources.assessors import FAST, AssessorKind, Grade, Row, Variant
from resources.assessors.terms import terms
from resources.store.kinds import RowKind
from resources.words import fold, letters

MOST_LABELS = 100
ROWS = RowKind("grades by labels", table="grades", given=("labels",), code=(__name__,))


@dataclass(frozen=True)
class LabelMatch:
    """labels: the competing ones, normalised (see `labels_of`)."""

    labels: Sequence[str]
    at_once: int = FAST

    def grade(self, rows: Sequence[Row]) -> list[Grade]:
        texts = ([row.question for row in rows], [row.prediction for row in rows], [row.gold for row in rows])
        graded = grade_rows(*texts, self.labels, [row.also for row in rows])
        return [Grade(*one) for one in graded]


def labels_of(answers: Iterable[str]) -> list[str]:
    """The competing labels of a task: its distinct golds, or none if there are over 100 (free form)."""
    distinct: set[str] = set()
    for answer in dict.fromkeys(answers):
        distinct.add(normalise_answer(answer))
        if len(distinct) > MOST_LABELS:
            return []
    return sorted(distinct)


def normalise_answer(text: str) -> str:
    """The terms of an answer (terms.py) without "an" and "the" (after SQuAD's metric), a space between them."""
    found = terms(text)
    # "a" stays: it may be the letter of a choice. An answer of punctuation only is kept as it is.
    content = [term for term in found if term not in ("an", "the")]
    return " ".join(content or found) or fold(text).strip()


def grade_rows(
    questions: Sequence[str],
    predictions: Sequence[str],
    golds: Sequence[str],
    labels: Sequence[str],
    also: Sequence[tuple[str, ...]] | None = None,
) -> list[tuple[int, bool]]:
    """(grade, exact) of every row, by the best of its golds; also: further ones, by row. This assessor does not look at
    the question."""
    # A closed task repeats a few hundred answers with their golds, whatever the number of its questions.
    answers = list(zip(predictions, golds, [()] * len(golds) if also is None else also, strict=True))
    graded = {answer: best_grade(*answer, labels) for answer in dict.fromkeys(answers)}
    return [graded[answer] for answer in answers]


def best_grade(prediction: str, gold: str, also: tuple[str, ...], labels: Sequence[str]) -> tuple[int, bool]:
    """(grade, exact) by the best of the golds. None of them competes with another one."""
    if also:
        right = {normalise_answer(one) for one in (gold, *also)}
        labels = [label for label in labels if label not in right]
    return max((grade(prediction, one, labels), exact(prediction, one)) for one in (gold, *also))


def exact(prediction: str, gold: str) -> bool:
    """Equal after normalisation."""
    return normalise_answer(prediction) == normalise_answer(gold)


def grade(prediction: str, gold: str, labels: Sequence[str] = ()) -> int:
    """The grade of one answer, 1-5; `labels` are normalised (see `labels_of`)."""
    if prediction.strip() == gold.strip():
        return 5
    said, wanted = normalise_answer(prediction), normalise_answer(gold)
    if said == wanted:
        return 4
    # A label inside the gold ("Eye" in "Eye injury") does not compete with it.
    competing = any(names(said, label) and not names(wanted, label) for label in labels if label != wanted)
    if names(said, wanted):
        return 3 if competing else 4
    words = set(word_list(wanted))
    shared = len(words & set(word_list(said))) / len(words) if words else 0
    return 2 if competing or shared >= 0.5 else 1


def names(text: str, value: str) -> bool:
    """Whether `value` stands in `text` as whole words; both are normalised."""
    return bool(value) and f" {letters(value)} " in f" {letters(text)} "


def word_list(text: str) -> list[str]:
    """The words of a normalised text; of a script without spaces its letters."""
    return letters(text).split()


def open_labels(scope: Any) -> LabelMatch:
    return LabelMatch(scope.given["labels"])


KIND = AssessorKind((Variant(ROWS, open_labels),))
