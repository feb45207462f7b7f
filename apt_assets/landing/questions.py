"""A record's question, and its right answers: what the shapes are put together from."""

from typing import Any, NamedTuple

from apt_assets.landing.choices import from_choices
from apt_assets.landing.chunks import BadField
from apt_assets.landing.dialogue import Turn, as_question, check_order, said_by_assistant, turns_of
from apt_assets.landing.fields import Fields, Names, text_of
from apt_assets.landing.spellings import (
    ALIASES,
    ANSWER,
    ANSWERED,
    ASKED,
    CHOICES,
    CHOSEN_LETTER,
    HISTORY,
    INPUT,
    LABEL,
    PASSAGE,
    PROMPT,
    QUESTION,
    SYSTEM,
    TEXT,
)


class Reading(NamedTuple):
    """What a record says. golds: the first is the one that is learned, the others are right as well. rejected: a
    wrong answer that came with it."""

    prompt: str
    golds: list[str]
    rejected: str | None = None


def read_plain(fields: Fields) -> Reading:
    """`prompt` is the whole question, as it is asked: no other field goes into it."""
    name, prompt = fields.take(PROMPT)
    return Reading(as_question(asked_turns(prompt, name)), golds_of(*fields.take(ANSWER)))


def read_pair(fields: Fields) -> Reading:
    prompt = question_of(fields)
    name = fields.find(ANSWERED)
    if name == "completion" and fields.peek(("label",)) is False:
        raise BadField("label", "false: this completion is marked as a bad one, and nothing says what a good one is")
    return Reading(prompt, golds_of(*fields.take(ANSWERED)))


def read_label(fields: Fields) -> Reading:
    name = fields.find(LABEL)
    if isinstance(fields.peek(LABEL), int | float):
        raise BadField(
            str(name),
            "is a number without a name: write the label's name in its place, or land the folder that `datasets` "
            "saved (save_to_disk), which has the names",
        )
    field, text = fields.take(TEXT)
    return Reading(text_of(text, field), golds_of(*fields.take(LABEL)))


def read_choice(fields: Fields) -> Reading:
    asked = question_of(fields, QUESTION)
    choices_field, choices = fields.take(CHOICES)
    answer_field, answer = fields.take(CHOSEN_LETTER)
    prompt, letter = from_choices(asked, choices, answer, (choices_field, answer_field))
    return Reading(prompt, [letter])


def question_of(fields: Fields, names: Names = ASKED) -> str:
    """The question with what belongs to it: the system's text, earlier turns, a passage or an input. Raises
    BadField."""
    found = fields.find(names)
    field, value = fields.take(names)
    turns = asked_turns(value, field)
    if found == "instruction":
        turns[-1] = beside(turns[-1], "", more_of(fields, INPUT))
    elif found in QUESTION:
        turns[-1] = beside(turns[-1], more_of(fields, PASSAGE), "")
    if all(turn.role != "system" for turn in turns):
        turns = [*system_of(fields), *history_of(fields), *turns]
    return as_question(turns)


def asked_turns(value: Any, field: str) -> list[Turn]:
    """A question as text, or as the turns that end with it. Raises BadField."""
    if not isinstance(value, list | dict):
        return [Turn("user", text_of(value, field))]
    turns = turns_of(value, field)
    if all(turn.role != "user" for turn in turns) or turns[-1].role not in ("user", "tool"):
        raise BadField(field, f"must end with a user's turn, got {' '.join(turn.role for turn in turns) or 'none'}")
    check_order(turns, field)
    return turns


def beside(turn: Turn, before: str, after: str) -> Turn:
    return turn._replace(text="\n\n".join(part for part in (before, turn.text, after) if part))


def more_of(fields: Fields, names: Names) -> str:
    """Text that may be there; "" where it is not, or is none."""
    value = fields.peek(names)
    if not isinstance(value, str):
        return ""
    fields.take(names)
    return value.strip()


def system_of(fields: Fields) -> list[Turn]:
    text = more_of(fields, SYSTEM)
    return [Turn("system", text)] if text else []


def history_of(fields: Fields) -> list[Turn]:
    """Earlier turns that stand as pairs (LLaMA-Factory); none where they do not."""
    pairs = fields.peek(HISTORY)
    if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
        return []
    fields.take(HISTORY)
    said = [(role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    return [Turn(role, text_of(text, "history")) for role, text in said]


def golds_of(field: str, value: Any) -> list[str]:
    """All right answers, the first one first: a text, a list of them, {"text": ...} (SQuAD), {"value": ..., "aliases":
    [...]} (TriviaQA), or the assistant's turn (TRL). Raises BadField."""
    if isinstance(value, dict) and "value" in value and "from" not in value:
        return [*golds_of(field, value["value"]), *texts_among(value.get("aliases"))]
    if isinstance(value, dict) and "text" in value and "role" not in value:
        return golds_of(field, value["text"])
    if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
        return [said_by_assistant(turns_of(value, field), field)]
    if not isinstance(value, list):
        return [text_of(value, field)]
    # What is empty in a list of answers is a right answer to nothing.
    there = [(n, gold) for n, gold in enumerate(value) if gold is not None and gold != ""]
    if not there:
        raise BadField(field, "empty")
    return [text_of(gold, f"{field}[{n}]") for n, gold in there]


def aliases_of(fields: Fields) -> list[str]:
    """More right answers that stand beside the answer, where all of them are text."""
    found = fields.peek(ALIASES)
    if not isinstance(found, list) or not all(isinstance(alias, str) for alias in found):
        return []
    fields.take(ALIASES)
    return texts_among(found)


def texts_among(values: Any) -> list[str]:
    given = values if isinstance(values, list) else []
    return [value.strip() for value in given if isinstance(value, str) and value.strip()]
