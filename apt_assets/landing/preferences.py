"""Chats, and preferences: an answer that was chosen and one that was rejected."""

from itertools import takewhile
from typing import Any

from apt_assets.landing.chunks import BadField
from apt_assets.landing.dialogue import (
    Turn,
    as_question,
    from_transcript,
    leading_system,
    said_by_assistant,
    split_off_answer,
    turns_of,
)
from apt_assets.landing.fields import Fields, check_text, text_of
from apt_assets.landing.questions import Reading, asked_turns, golds_of, question_of, system_of
from apt_assets.landing.spellings import ASKED, CHAT, CHOSEN, PROMPT, REJECTED


def read_chat(fields: Fields) -> Reading:
    name, messages = fields.take(CHAT)
    return from_dialogue(fields, turns_of(messages, name), name)


def from_dialogue(fields: Fields, turns: list[Turn], field: str) -> Reading:
    """A dialogue that ends with the answer; a `prompt` beside it says what it begins with. Raises BadField."""
    before, answer = split_off_answer(turns, field)
    if all(turn.role != "system" for turn in before):
        before = [*system_of(fields), *before]
    if fields.find(PROMPT) is not None:
        name, prompt = fields.take(PROMPT)
        said = one_spaced(as_question(asked_turns(prompt, name)))
        rest = before[len(leading_system(before)) :]
        if not any(one_spaced(as_question(part)).startswith(said) for part in (before, rest, rest[:1])):
            raise BadField(name, f"is not what {field} begins with: keep the one of them that is the question")
    return Reading(as_question(before), [answer])


def one_spaced(text: str) -> str:
    return " ".join(text.split())


def read_preference(fields: Fields) -> Reading:
    """The chosen answer is the gold. It may be text, or turns, with or without the question's before it."""
    name, chosen = fields.take(CHOSEN)
    turns = dialogue_in(chosen, name)
    if any(turn.role != "assistant" for turn in turns):
        return from_dialogue(fields, turns, name)
    if turns:
        return Reading(asked_beside(fields), [said_by_assistant(turns, name)])
    if not isinstance(chosen, str):
        return Reading(asked_beside(fields), golds_of(name, chosen))
    rejected = fields.peek(REJECTED)
    both = [chosen, rejected] if isinstance(rejected, str) else []
    if fields.find((*ASKED, *CHAT)) is None:
        prompt = shared_beginning(fields, both)
    else:
        prompt = asked_beside(fields)
        if not both or not all(text.strip().startswith(prompt) for text in both):
            return Reading(prompt, [text_of(chosen, name)])
    answers = [text.strip()[len(prompt) :] for text in both]
    fields.take(REJECTED)
    return Reading(prompt, [text_of(answers[0], name)], answers[1].strip())


def asked_beside(fields: Fields) -> str:
    """The question beside a chosen answer: text, or a chat that ends with it."""
    if fields.find(CHAT) is None or fields.find(PROMPT) is not None:
        return question_of(fields)
    name, messages = fields.take(CHAT)
    turns = asked_turns(messages, name)
    return as_question(turns if turns[0].role == "system" else [*system_of(fields), *turns])


def dialogue_in(value: Any, field: str) -> list[Turn]:
    """The turns that an answer is written as; none if it is plain text, or a list of texts. Raises BadField."""
    if isinstance(value, str):
        return from_transcript(value, field)
    return turns_of(value, field) if isinstance(value, dict | list) and not are_texts(value) else []


def are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def shared_beginning(fields: Fields, both: list[str]) -> str:
    """What chosen and rejected begin with, up to a space, which is their prompt where there is no other field that
    could be (TRL's implicit prompt). Raises BadField."""
    others = [value for name, value in fields.others().items() if isinstance(value, str) and value not in both]
    letters = zip(*(text.strip() for text in both), strict=False)
    shared = "".join(its[0] for its in takewhile(lambda its: its[0] == its[-1], letters))
    prompt = shared[: shared.rfind(" ") + 1].strip()
    if others or not prompt:
        raise BadField("prompt", "missing: no question beside chosen and rejected, and none that both begin with")
    return prompt


def usable_rejected(fields: Fields, reading: Reading) -> str | None:
    """The wrong answer that came with a row, the first of several. None: there is none, or it is right, or none that
    can be used; what was not used stays with the metadata."""
    found, given = reading.rejected, fields.peek(REJECTED)
    if found is None and given is not None:
        try:
            found = rejected_of(given, reading.prompt)
            check_text(found, "rejected")
        except BadField:
            return None
    if not found or found in reading.golds:
        return None
    if not (are_texts(given) and len(given) > 1):
        fields.take(REJECTED)
    return found


def rejected_of(value: Any, prompt: str) -> str:
    """The text of a rejected answer. Raises BadField if it is none, or answers another question."""
    turns = [turn._replace(learned=True) for turn in dialogue_in(value, "rejected")]
    if not turns:
        return golds_of("rejected", value)[0]
    if all(turn.role == "assistant" for turn in turns):
        return said_by_assistant(turns, "rejected")
    before, answer = split_off_answer(turns, "rejected")
    if not prompt.endswith(as_question(before[len(leading_system(before)) :])):
        raise BadField("rejected", "answers another question")
    return answer
