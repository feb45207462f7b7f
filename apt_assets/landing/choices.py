"""Multiple choice: the question is asked with lettered choices, and its answer is the letter of the right one."""

import reprlib
import string
from typing import Any

from apt_assets.landing.chunks import BadField
from apt_assets.landing.fields import text_of


def from_choices(asked: str, choices: Any, answer: Any, fields: tuple[str, str]) -> tuple[str, str]:
    """(question with lettered choices, letter of the right one).

    choices: texts; or texts by letter; or {"text": [...], "label": [...]}, whose labels the answer may name (ARC).
    fields: the names of choices and answer, for what is said of them. Raises BadField.
    """
    named, told = fields
    labels: list[str] = []
    if isinstance(choices, dict):
        by_label = isinstance(choices.get("text"), list)
        given = choices.get("label") if by_label else list(choices)
        labels = list(map(str, given)) if isinstance(given, list) else []
        choices = choices["text"] if by_label else list(choices.values())
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(string.ascii_uppercase):
        raise BadField(named, "must be a list of 2 to 26 texts")
    texts = [text_of(choice, f"{named}[{n}]") for n, choice in enumerate(choices)]
    if len(set(texts)) < len(texts):
        raise BadField(named, "holds the same text twice")
    letters = string.ascii_uppercase[: len(texts)]
    lines = [f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)]
    label = str(answer) if isinstance(answer, int) and not isinstance(answer, bool) else answer
    right = labels.index(label) if labels.count(label) == 1 else index_of(answer, texts, letters, told)
    if right >= len(texts):
        raise BadField(named, f"has {len(labels)} labels for {len(texts)} texts")
    return "\n".join([asked, *lines]), letters[right]


def index_of(answer: Any, texts: list[str], letters: str, field: str) -> int:
    """Which choice is right. Raises BadField if that is not said, or could be two of them."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(texts):
            raise BadField(field, f"must be 0 to {len(texts) - 1} for {len(texts)} choices, got {answer}")
        return answer
    said = text_of(answer, field)
    meant = {letters.index(said)} if len(said) == 1 and said in letters else set()
    meant |= {texts.index(said)} if said in texts else set()
    if not meant:
        shown = reprlib.repr(said)
        raise BadField(field, f"is neither an index, a letter up to {letters[-1]} nor one of the choices: {shown}")
    if len(meant) == 2:
        raise BadField(field, f"{said!r} is the letter of one choice and the text of another")
    return meant.pop()
