"""The shapes a record may have beside {prompt, answer}: a chat, and multiple choice.

Chat: {"messages": [{"role": ..., "content": ...}, ...]}. The last turn, the assistant's, is the answer, and
the user's before it the question. The policy is asked one question at a time, in one turn of its own
template, so what stood before that goes into the question's text: the system's text first, then the
earlier turns with their roles' names.

Multiple choice: {"question": ..., "choices": [...], "answer": ...}, the answer by index (from 0), letter or
text. The question is asked with lettered choices, and its answer is the letter.
"""

import reprlib
import string
from typing import Any

from apt_assets.landing.readers import BadField

ROLES = ("system", "user", "assistant")


def as_prompt_and_answer(record: dict[str, Any]) -> dict[str, Any]:
    """A record of any shape as one with `prompt` and `answer`, its other fields as they are.

    A record that has a `prompt` is taken as it is. Raises BadField naming the field that is wrong.
    """
    if "prompt" in record:
        return record
    if "messages" in record:
        prompt, answer = from_messages(record["messages"])
        return {**without(record, "messages"), "prompt": prompt, "answer": answer}
    if "question" in record and "choices" in record:
        prompt, answer = from_choices(record["question"], record["choices"], record.get("answer"))
        return {**without(record, "question", "choices"), "prompt": prompt, "answer": answer}
    return record


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


# -- chat ------------------------------------------------------------------------------------------------


def from_messages(messages: Any) -> tuple[str, str]:
    """(question with what stood before it, answer). Raises BadField."""
    if not isinstance(messages, list):
        raise BadField("messages", f"must be a list of turns, got {type(messages).__name__}")
    turns = [turn_of(message, f"messages[{n}]") for n, message in enumerate(messages)]
    roles = [role for role, _ in turns]
    if roles[-2:] != ["user", "assistant"]:
        raise BadField("messages", f"must end with a user's and an assistant's turn, got {' '.join(roles) or 'none'}")
    if "system" in roles[1:]:
        raise BadField("messages", "a system turn may only be the first")
    system = [text for role, text in turns[:1] if role == "system"]
    *earlier, (_, question), (_, answer) = turns[len(system) :]
    dialogue = [f"{role}: {text}" for role, text in [*earlier, ("user", question)]] if earlier else [question]
    return "\n\n".join([*system, *dialogue]), answer


def turn_of(message: Any, field: str) -> tuple[str, str]:
    """(role, text) of one message. Raises BadField."""
    if not isinstance(message, dict):
        raise BadField(field, f"must be an object with role and content, got {type(message).__name__}")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise BadField(f"{field}.role", f"must be one of {', '.join(ROLES)}, got {reprlib.repr(role)}")
    if isinstance(content, list):
        # The form for turns that may also hold pictures: a list of typed parts.
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else content  # type: ignore[arg-type]
    return role, text_of(content, f"{field}.content")


# -- multiple choice -------------------------------------------------------------------------------------


def from_choices(question: Any, choices: Any, answer: Any) -> tuple[str, str]:
    """(question with lettered choices, letter of the right one). Raises BadField."""
    asked = text_of(question, "question")
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(string.ascii_uppercase):
        raise BadField("choices", "must be a list of 2 to 26 texts")
    texts = [text_of(choice, f"choices[{n}]") for n, choice in enumerate(choices)]
    if len(set(texts)) < len(texts):
        raise BadField("choices", "holds the same text twice")
    letters = string.ascii_uppercase[: len(texts)]
    lines = [f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)]
    return "\n".join([asked, *lines]), letters[index_of(answer, texts, letters)]


def index_of(answer: Any, texts: list[str], letters: str) -> int:
    """Which choice is right. Raises BadField if that is not said, or could be two of them."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(texts):
            raise BadField("answer", f"must be 0 to {len(texts) - 1} for {len(texts)} choices, got {answer}")
        return answer
    said = text_of(answer, "answer")
    meant = {letters.index(said)} if len(said) == 1 and said in letters else set()
    meant |= {texts.index(said)} if said in texts else set()
    if not meant:
        shown = reprlib.repr(said)
        raise BadField("answer", f"is neither an index, a letter up to {letters[-1]} nor one of the choices: {shown}")
    if len(meant) == 2:
        raise BadField("answer", f"{said!r} is the letter of one choice and the text of another")
    return meant.pop()


def text_of(value: Any, field: str) -> str:
    """Text, stripped of outer white space. Raises BadField if it is something else or empty."""
    if not isinstance(value, str):
        raise BadField(field, "missing" if value is None else f"must be text, got {type(value).__name__}")
    if not value.strip():
        raise BadField(field, "empty")
    return value.strip()
