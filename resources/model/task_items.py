"""The items of a general task: the JSON lines of its data, each as it stands there.

`datasets`, by which lm-eval reads them, gives every field one type in all lines of a file: 1 becomes 1.0 where another
item says 1.5, and the text of a date a moment, so that an item would depend on others.
"""

import ast
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Render = Callable[[str, dict[str, Any]], str]  # a template and an item -> what it says


class TaskError(ValueError):
    """A task file cannot be used; the message names the file and what is missing."""


class Unrendered(Exception):
    """What a template says is asked for, and none is rendered yet."""


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
    """Items as lm-eval reads a split: in order, by number, and with the names of their fields in `features`."""

    def __init__(self, lines: Sequence[str]):
        super().__init__(json.loads(line) for line in lines)
        self.features: dict[str, None] = dict.fromkeys(field for item in self for field in item)


@dataclass(frozen=True)
class Asking:
    """How a task asks an item: `doc_to_text`, `doc_to_choice` and `doc_to_target` of its configuration, each a field's
    name, a template, or what it says itself. lm-eval takes digits for a number, and what looks like a list of Python
    for one, also where they are the text of an item.

    fields: names that are fields although they are no words. render: of a template and an item; None: none is rendered
    yet, so that what templates say is not looked at.
    """

    config: Mapping[str, Any]
    rolling: bool
    fields: Collection[str]
    render: Render | None = None

    def check(self, item: dict[str, Any]) -> None:
        """Raise ValueError for an item that cannot be scored, and what a template does."""
        for read in self.parts().values():
            with suppress(Unrendered):
                read(item)

    def parts(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        if self.rolling:
            return {"doc_to_target": self.passage}
        return {"doc_to_text": self.text, "doc_to_choice": self.choices, "doc_to_target": self.place}

    def text(self, item: dict[str, Any]) -> str:
        return str(self._said("doc_to_text", item))

    def passage(self, item: dict[str, Any]) -> str:
        return str(self._said("doc_to_target", item))

    def choices(self, item: dict[str, Any]) -> list[str]:
        found = self._said("doc_to_choice", item)
        if isinstance(found, str) and not self.is_field(self.config["doc_to_choice"]):
            found = ast.literal_eval(found)
        found = list(found.values()) if isinstance(found, dict) else found
        if not isinstance(found, list) or len(found) < 2 or not all(isinstance(one, str) and one for one in found):
            raise ValueError(f"needs two choices or more, each a text (doc_to_choice), and has {shown(found)}")
        return found

    def place(self, item: dict[str, Any]) -> int:
        """Which of the choices is the gold: a field names it by its text or its number from 0, a template by its number
        or its text, whichever comes first."""
        choices, target = self.choices(item), self._said("doc_to_target", item)
        numbers = [str(number) for number in range(len(choices))]
        known = (choices, numbers) if self.is_field(self.config["doc_to_target"]) else (numbers, choices)
        found = next((names.index(target) for names in known if isinstance(target, str) and target in names), target)
        if not isinstance(found, int) or not 0 <= found < len(choices):
            raise ValueError(
                f"needs one gold, the number of a choice or its text (doc_to_target), and has {shown(target)}"
            )
        return int(found)

    def _said(self, name: str, item: dict[str, Any]) -> Any:
        said = self.config.get(name)
        if said is None:
            raise ValueError(f"the task has no {name}")
        if not isinstance(said, str):
            return said
        if not self.is_field(said):
            if self.render is None:
                raise Unrendered
            return self.render(said, item)
        if item.get(said) is None:
            raise ValueError(f"has no {said!r} ({name})")
        return item[said]

    def is_field(self, said: Any) -> bool:
        return isinstance(said, str) and (said.isidentifier() or said in self.fields)


def check_items(where: str, asking: Asking, items: Iterable[tuple[int, dict[str, Any]]]) -> None:
    """Raise TaskError for the first of the items, given by number, that cannot be scored."""
    for number, item in items:
        try:
            asking.check(item)
        except Exception as error:  # of a template too
            raise TaskError(f"{where}: item {number}: {error}") from None


def shown(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False, default=str)[:80]
