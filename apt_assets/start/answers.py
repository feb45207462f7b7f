"""What the right answers of a domain are like, and so which assessor can grade them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from apt_assets.landing.folder import UNSHOWN
from resources.assessors.items import texts_of_items
from resources.assessors.labels import MOST_LABELS, normalise_answer, word_list
from resources.assessors.numeric import NumericSettings, no_one_number
from resources.assessors.set_f1 import SetF1Settings

MOST, MANY = 0.95, 0.9  # of the answers: a few odd ones do not decide
OFTEN = 5  # rows of a label, on average: what stands once or twice is no label
FEW_NUMBERS = 10  # different ones, each of them often, are classes such as 1 to 5
A_NUMBER, A_NAME, AN_ITEM = 4, 4, 4  # words, at most
SEVERAL = 0.6  # of the answers: those that have two items or more
SHOWN, WIDTH = 5, 30  # labels in a reason, and characters of one
NAMED = 200  # characters that all labels may take in a system prompt
WHOLE = re.compile(r"\s*[-+]?(?:\d+|\d{1,3}(?:,\d{3})+)\s*")
LEADING_ZERO = re.compile(r"\s*0\d+\s*")
LETTER = re.compile(r"[A-Z]")
CHOICE = re.compile(r"^A\. .*^B\. ", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Kind:
    """assessor: the kind that grades such answers. why: for people. wanted: what is said to the model of them.
    settings: of the assessor, with the reason of each."""

    assessor: str
    why: str
    wanted: str
    settings: dict[str, tuple[Any, str]] = field(default_factory=dict)


def kind_of(prompts: Sequence[str], answers: Sequence[str]) -> Kind:
    """Of the rows' first right answers; there is at least one."""
    count = len(answers)
    if share(bool(CHOICE.search(prompt)) for prompt in prompts) >= MOST and all(map(LETTER.fullmatch, answers)):
        return Kind("labels", "multiple choice: the answer is the letter of a choice", "Answer with the letter alone.")
    spellings: dict[str, str] = {}
    forms = Counter(normalise_answer(answer) for answer in answers)
    for answer in answers:
        spellings.setdefault(normalise_answer(answer), answer)
    lengths = {form: len(word_list(form)) for form in forms}
    closed = len(forms) <= MOST_LABELS and count >= OFTEN * len(forms)
    numbers = share(is_number(answer) for answer in answers) >= MOST
    if numbers and not (closed and len(forms) <= FEW_NUMBERS):
        return of_numbers(answers)
    if closed and share(lengths[normalise_answer(answer)] <= 2 * A_NAME for answer in answers) >= MOST:
        labels = [spellings[form] for form, _ in forms.most_common()]
        every = ", ".join(labels)
        wanted = f"with one of these, and nothing else: {every}" if len(every) <= NAMED else "with the label alone"
        why = f"{len(forms)} different answers in {count:,} rows: {shown(labels)}"
        return Kind("labels", why, f"Answer {UNSHOWN.sub(' ', wanted)}.")
    if (lists := as_lists(answers)) is not None:
        return Kind("set_f1", lists, "Answer with a list, its items separated by commas, and nothing else.")
    if share(lengths[normalise_answer(answer)] <= A_NAME for answer in answers) >= MANY:
        return Kind(
            "exact",
            f"names or codes of a few words, {len(forms):,} different ones in {count:,} rows, such as "
            f"{shown(answers[:3])}",
            "Answer with the name or code alone.",
        )
    return Kind(
        "overlap",
        "free text: graded by the words that it shares with yours. It does not know what a sentence means; `rubric`, a "
        "language model that grades, does, and its mistakes are trained in (docs/guide/your-own-domain.md)",
        "Answer briefly.",
    )


def of_numbers(answers: Sequence[str]) -> Kind:
    """Years, counts and codes are right or wrong; what is measured may be a little off."""
    such_as = f"such as {shown(answers[:3])}"
    digits = share(answer.strip().isdecimal() for answer in answers) >= MOST
    if digits and share(LEADING_ZERO.fullmatch(answer) is not None for answer in answers) > 1 - MOST:
        return Kind("exact", f"codes of digits, {such_as}", "Answer with the code alone.")
    settings: dict[str, tuple[Any, str]] = {}
    if share(WHOLE.fullmatch(answer) is not None for answer in answers) >= MOST:
        why = "Your numbers are whole and have no unit: years, counts or codes, of which another one is wrong."
        settings["numeric"] = {"relative_tolerance": 0.0}, why
        off = ""
    else:
        off = f"; one that is {NumericSettings().relative_tolerance:.0%} off counts as right (relative_tolerance)"
    why = f"the answers are numbers, {such_as}{off}"
    return Kind("numeric", why, "Answer with the number alone, with its unit if it has one.", settings)


def is_number(answer: str) -> bool:
    return len(answer.split()) <= A_NUMBER and no_one_number(answer) is None


def as_lists(answers: Sequence[str]) -> str | None:
    """Why the answers are lists of items; None: they are not. Commas of a sentence stand between longer parts, and
    these do not come again in other answers."""
    different = list(dict.fromkeys(answers))  # a sentence that is said again has no more items in common with others
    items = [texts_of_items(answer, SetF1Settings().separator) for answer in different]
    every = [normalise_answer(item) for of_one in items for item in of_one]
    if share(len(of_one) > 1 for of_one in items) < SEVERAL:
        return None
    if share(len(word_list(item)) <= AN_ITEM for item in every) < MOST or len(set(every)) > len(every) / 2:
        return None
    return f"the answers are lists, {len(every) / len(different):.1f} items each, such as {shown(answers[:2])}"


def share(found: Iterable[bool]) -> float:
    values = list(found)
    return sum(values) / max(len(values), 1)


def shown(texts: Sequence[str]) -> str:
    """Some texts in a line that is safe to print and to write into a comment."""
    cut = [UNSHOWN.sub(" ", text)[:WIDTH].strip() for text in texts[:SHOWN]]
    return ", ".join(cut) + (", ..." if len(texts) > SHOWN else "")
