"""A chat -> a question and its answer.

The answer is the last turn of the assistant that is to be learned, and the question what stands before it. The
policy is asked one question at a time, in one turn of its own template, so earlier turns go into the question's text:
the system's first, then the others with their roles' names, what a tool was asked and what it said among them.

A turn of weight 0 is not to be learned (OpenAI's fine-tuning format; others call it `train` or `loss`), and so it is
never the answer. What comes after the answer is left out: it says nothing about it.
"""

import json
import re
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from apt_assets.landing.chunks import BadField
from apt_assets.landing.fields import text_of

# How the roles are written: by OpenAI, ShareGPT, LLaMA-Factory, Gemini, Cohere, OASST and Llama's template.
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot", "chatbot", "ai"), "assistant"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "function_response", "ipython"), "tool"),
}
CALLS = ("function_call", "tool_call")  # roles of a turn whose whole text is a call
ROLE_FIELDS = ("role", "from")
TEXT_FIELDS = ("content", "value", "parts", "text")
# Whether a turn is to be learned: any of them may say no.
LEARNED_FIELDS = (
    "weight", "train", "training", "trainable", "train_on_turn", "learn", "loss", "loss_weight", "loss_mask",
)  # fmt: skip
WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
# How Anthropic's HH-RLHF writes a dialogue as one text: \n\nHuman: ...\n\nAssistant: ...
TRANSCRIPT = re.compile(r"(?:\A|\n\n)(Human|Assistant): ?")


class Turn(NamedTuple):
    """role: system, user, assistant or tool. learned: whether it may be an answer. calls: whether it calls a tool."""

    role: str
    text: str
    learned: bool = True
    calls: bool = False


def turns_of(messages: Any, field: str) -> list[Turn]:
    """The turns of a chat, without empty ones of the system; one turn may stand alone. Raises BadField."""
    if isinstance(messages, dict):
        messages = messages["messages"] if isinstance(messages.get("messages"), list) else [messages]
    if not isinstance(messages, list):
        raise BadField(field, f"must be a list of turns, got {type(messages).__name__}")
    turns = [turn for n, message in enumerate(messages) for turn in as_turns(message, f"{field}[{n}]")]
    return [turn for turn in turns if turn.text or turn.role != "system"]


def as_turns(message: Any, field: str) -> list[Turn]:
    if isinstance(message, dict) and "input" in message and "output" in message:  # as Capybara has them
        asked, said = (text_of(message[name], f"{field}.{name}") for name in ("input", "output"))
        return [Turn("user", asked), Turn("assistant", said)]
    return [turn_of(message, field)]


def turn_of(message: Any, field: str) -> Turn:
    """One message of any spelling. Raises BadField."""
    if not isinstance(message, dict):
        raise BadField(field, f"must be an object with role and content, got {type(message).__name__}")
    given, written = value_of(message, ROLE_FIELDS, "role")
    role = ROLES.get(written.strip().casefold().replace("-", "_")) if isinstance(written, str) else None
    if role is None:
        raise BadField(
            f"{field}.{given}", f"must be one of {', '.join(sorted(set(ROLES.values())))}, got {reprlib.repr(written)}"
        )
    named, content = value_of(message, TEXT_FIELDS, "content")
    content = joined(content)
    if role == "tool":
        return Turn(role, as_json(content))
    if role == "system" and (content is None or (isinstance(content, str) and not content.strip())):
        return Turn(role, "")
    if role != "assistant":
        return Turn(role, text_of(content, f"{field}.{named}"))
    learned = is_learned(message, field)
    if calls := calls_of(message):
        said = [content.strip()] if isinstance(content, str) and content.strip() else []
        return Turn(role, "\n".join([*said, *calls]), learned, calls=True)
    return Turn(role, text_of(content, f"{field}.{named}"), learned, calls=str(written).casefold() in CALLS)


def value_of(message: dict[str, Any], names: Sequence[str], default: str) -> tuple[str, Any]:
    """(name, value) of the first of these fields that is there; else the default's name and None."""
    for name in names:
        if message.get(name) is not None:
            return name, message[name]
    return default, None


def joined(content: Any) -> Any:
    """The text of a list of typed parts, the form for turns that may also hold pictures; anything else as it is."""
    if not isinstance(content, list) or not content:
        return content
    texts = [part if isinstance(part, str) else part_text(part) for part in content]
    return "".join(texts) if all(text is not None for text in texts) else content  # type: ignore[arg-type]


def part_text(part: Any) -> str | None:
    """The text of one part, {"type": "text", "text": ...} or {"text": ...}; None: it is no text."""
    if not isinstance(part, dict) or part.get("type", "text") not in ("text", "input_text", "output_text"):
        return None
    return part["text"] if isinstance(part.get("text"), str) else None


def as_json(value: Any) -> str:
    return value.strip() if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def calls_of(message: dict[str, Any]) -> list[str]:
    """What a turn of the assistant asks of tools, each call as name(arguments)."""
    calls = message.get("tool_calls") or ([message["function_call"]] if message.get("function_call") else [])
    if not isinstance(calls, list):
        return []
    functions = [call.get("function", call) if isinstance(call, dict) else {} for call in calls]
    named = [function for function in functions if isinstance(function, dict) and function.get("name")]
    return [f"{function['name']}({as_json(function.get('arguments'))})" for function in named]


def is_learned(message: dict[str, Any], field: str) -> bool:
    """Whether a turn is to be learned; a weight between 0 and 1 counts as 1. Raises BadField for one that is none."""
    return all(weight_of(message[name], f"{field}.{name}") > 0 for name in LEARNED_FIELDS if name in message)


def weight_of(value: Any, field: str) -> float:
    if value is None or value == "":
        return 1.0
    word = str(value).strip().casefold() if isinstance(value, str | bool) else None
    try:
        return WORDS[word] if word in WORDS else float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadField(field, f"must be 0 or 1, or left out, got {reprlib.repr(value)}") from None


# -- a chat as question and answer -----------------------------------------------------------------------


def split_off_answer(turns: Sequence[Turn], field: str) -> tuple[list[Turn], str]:
    """(the turns before the answer, the answer). Raises BadField."""
    roles = [turn.role for turn in turns]
    if "assistant" not in roles or roles[-1] != "assistant":
        raise BadField(field, f"must end with a user's and an assistant's turn, got {' '.join(roles) or 'none'}")
    at = max((n for n, turn in enumerate(turns) if turn.role == "assistant" and turn.learned), default=None)
    if at is None:
        raise BadField(field, "no turn of the assistant is to be learned: each has weight 0, or what means the same")
    before, answer = list(turns[:at]), turns[at]
    if "user" not in roles[:at] or roles[at - 1] not in ("user", "tool"):
        raise BadField(field, f"must end with a user's and an assistant's turn, got {' '.join(roles[: at + 1])}")
    check_order(before, field)
    if answer.calls:
        raise BadField(field, "the answer is a call of a tool, and only text can be graded: end with what is said then")
    return before, answer.text


def check_order(turns: Sequence[Turn], field: str) -> None:
    """Raise BadField if a system turn stands behind another one."""
    roles = [turn.role for turn in turns]
    if "system" in roles[len(leading_system(turns)) :]:
        raise BadField(field, "a system turn may only be the first")


def leading_system(turns: Sequence[Turn]) -> list[Turn]:
    first = next((n for n, turn in enumerate(turns) if turn.role != "system"), len(turns))
    return list(turns[:first])


def as_question(turns: Sequence[Turn]) -> str:
    """The turns up to the last question as one text."""
    system = leading_system(turns)
    rest = turns[len(system) :]
    dialogue = [f"{turn.role}: {turn.text}" for turn in rest] if len(rest) > 1 else [turn.text for turn in rest]
    return "\n\n".join([*(turn.text for turn in system), *dialogue])


def from_transcript(text: str, field: str) -> list[Turn]:
    """The turns of a text that has the form of TRANSCRIPT; none of any other. Raises BadField for an empty turn."""
    parts = TRANSCRIPT.split(text)
    if parts[0].strip() or len(parts) < 5:
        return []
    return [
        Turn(ROLES[role.casefold()], text_of(said, field)) for role, said in zip(parts[1::2], parts[2::2], strict=True)
    ]


def said_by_assistant(turns: list[Turn], field: str) -> str:
    """The answer that stands as the assistant's turn. Raises BadField if it is not one turn of text."""
    if [turn.role for turn in turns] != ["assistant"] or turns[0].calls or not turns[0].learned:
        raise BadField(field, "must be text, or one turn of the assistant that is to be learned")
    return turns[0].text
