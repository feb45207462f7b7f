"""The items of a general task: the JSON lines of its data, each as it stands there.

`datasets`, by which lm-eval reads them, gives every field one type in all lines of a file: 1 becomes 1.0 where another
item says 1.5, and the text of a date a moment, so that an item would depend on others.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class TaskError(ValueError):
    """A task file cannot be used; the message names the file and what is missing."""


def lines_of(file: Path) -> list[str]:
    """The lines of a file of JSON lines that are not empty. Raises TaskError for one that is no object."""
    lines = []
    # Not splitlines: a line separator of Unicode may stand inside a text.
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            text = line.decode("utf-8").removesuffix("\r")
            found = json.loads(text)
            trouble = "" if isinstance(found, dict) else f"it is {type(found).__name__}"
        except ValueError as error:
            trouble = str(error)
        if trouble:
            raise TaskError(f"{file}: line {number} is no JSON object in UTF-8 ({trouble})")
        lines.append(text)
    return lines


class Items(list[dict[str, Any]]):
    """Items as lm-eval reads a split: in order, by number, and with the names of their fields in `features`. A field
    that an item lacks is None, as `datasets` has it."""

    def __init__(self, lines: Sequence[str]):
        items = [json.loads(line) for line in lines]
        self.features: dict[str, None] = dict.fromkeys(field for item in items for field in item)
        super().__init__({**self.features, **item} for item in items)


def check_choices(where: Path, config: dict[str, Any], lines: Sequence[str]) -> None:
    """Raise TaskError for an item whose choices or gold, as far as a field or the task names them, cannot be scored."""
    named, target = config.get("doc_to_choice"), config.get("doc_to_target")
    for number, line in enumerate(lines, 1):
        item = json.loads(line)
        choices: Any = list(named.values()) if isinstance(named, dict) else named
        if isinstance(named, str):
            if "{" in named:  # a template, which lm-eval renders
                continue
            choices = item.get(named)
        try:
            check_texts(choices)
            if isinstance(target, str) and target in item:
                place_of(item[target], choices)
        except ValueError as error:
            raise TaskError(f"{where}: item {number}: {error}") from None


def check_texts(choices: Any) -> None:
    """Raise ValueError unless these are choices: two texts or more, none of them empty."""
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(one, str) and one for one in choices):
        raise ValueError(f"needs two choices or more, each a text (doc_to_choice), and has {shown(choices)}")


def place_of(target: Any, choices: Sequence[str]) -> int:
    """Which of the choices is the gold: it is named by its number from 0, or by its text. Raises ValueError."""
    if isinstance(target, str) and target in choices:
        return choices.index(target)
    if isinstance(target, str) and target.isdecimal():
        target = int(target)
    if type(target) is not int or not 0 <= target < len(choices):
        raise ValueError(f"needs one gold, the number of a choice or its text (doc_to_target), and has {shown(target)}")
    return target


def shown(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False, default=str)[:80]


def as_text(said: str, render: Callable[[str, dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    """What a task says by a template, or by the name of a field, as the text that it is: lm-eval takes digits for a
    number, and what looks like a list of Python for one. render: of a template and an item."""
    return lambda item: str(item[said]) if said in item else render(said, item)
