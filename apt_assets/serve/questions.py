"""What a request asks, read from its body: OpenAI's fields that mean something here; any other is refused by name.

A chat of one user message is read as the loop reads a question, with the experiment's system prompt, so that it gets
the loop's answer.
"""

import secrets
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError, field_validator

from resources.model.control_tokens import RowTexts
from resources.model.prompts import Reader, encode, written

# What clients send although it asks for nothing: field -> the values that are as good as none.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logprobs": (False,),
    "echo": (False,),
    "stop": ([],),
    "tools": ([],),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "store": (False,),
}
GREEDY_BELOW = 1e-5  # a temperature; divided by one that is much lower still, scores are no numbers any more


class Refused(Exception):
    """A request that is not answered. status: of HTTP. field: of its body, if one is the reason."""

    def __init__(self, status: int, message: str, field: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.field, self.code = status, message, field, code


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Part(Strict):
    type: Literal["text"]
    text: StrictStr


class Message(Strict):
    role: Literal["system", "user", "assistant"]
    content: StrictStr | list[Part]
    name: StrictStr | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Strict):
    include_usage: StrictBool = False


class Body(Strict):
    model: StrictStr | None = None
    stream: StrictBool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2, strict=True)
    seed: StrictInt | None = None
    user: StrictStr | None = None
    max_tokens: StrictInt | None = Field(None, ge=1)


class ChatBody(Body):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: StrictInt | None = Field(None, ge=1)

    @field_validator("messages")
    @classmethod
    def ends_with_a_question(cls, messages: list[Message]) -> list[Message]:
        if messages[-1].role != "user":
            raise ValueError("the last one must be the user's")
        return messages

    @property
    def most(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionBody(Body):
    prompt: StrictStr | list[StrictInt] = Field(min_length=1)

    @property
    def most(self) -> int | None:
        return self.max_tokens


FIELDS = {name for kind in (ChatBody, CompletionBody, Message, Part, StreamOptions) for name in kind.model_fields}


@dataclass(frozen=True)
class Limits:
    """new_tokens: of an answer. tokens: that the model reads at once, its answer included; None: no such limit. rows:
    of its embedding, which may be fewer than its tokenizer's tokens."""

    new_tokens: int
    tokens: int | None
    rows: int


@dataclass(frozen=True)
class Question:
    """What is asked. asked: messages or a text, as the log has it."""

    body: ChatBody | CompletionBody
    asked: list[dict[str, str]] | str
    ids: list[int]
    most: int
    temperature: float
    seed: str

    @property
    def usage_in_stream(self) -> bool:
        return self.body.stream_options is not None and self.body.stream_options.include_usage


def read_chat(content: Any, reader: Reader, limits: Limits) -> Question:
    """Raises Refused."""
    body = parsed(ChatBody, content)
    messages = [{"role": one.role, "content": one.text} for one in body.messages]
    return question(body, messages, ids_of_chat(reader, messages), limits, "messages")


def read_completion(content: Any, reader: Reader, limits: Limits) -> Question:
    """Raises Refused."""
    body = parsed(CompletionBody, content)
    if isinstance(body.prompt, str):
        return question(body, body.prompt, reader.tokenizer(body.prompt)["input_ids"], limits, "prompt")
    size = len(reader.tokenizer)
    if any(not 0 <= token < size for token in body.prompt):
        raise Refused(400, f"prompt: a token id is 0 to {size - 1}", "prompt")
    return question(body, reader.tokenizer.decode(body.prompt), body.prompt, limits, "prompt")


def parsed(kind: Any, content: Any) -> Any:
    """The body as one of its kind; without nulls in it. Raises Refused that names the field."""
    if not isinstance(content, dict):
        raise Refused(400, "the body is no JSON object")
    neutral = {key for key, value in content.items() if is_neutral(key, value)}
    if asked := sorted((content.keys() & NEUTRAL.keys()) - neutral):
        raise Refused(400, f"{asked[0]}: is not supported here; leave it out", asked[0], "unsupported_parameter")
    try:
        return kind.model_validate({key: value for key, value in content.items() if key not in neutral})
    except ValidationError as error:
        # Of a value that may have two forms, the form that it comes nearer to.
        first = max(error.errors(include_url=False, include_input=False), key=lambda one: len(one["loc"]))
        unknown = first["type"] == "extra_forbidden"
        known = first["loc"] if unknown else [part for part in first["loc"] if isinstance(part, int) or part in FIELDS]
        field = ".".join(map(str, known))
        said = "is not known here" if unknown else first["msg"].removeprefix("Value error, ")
        raise Refused(400, f"{field}: {said}", field) from None


def without_nulls(value: Any) -> Any:
    """Clients send an answer back with all the fields that it might have had."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def is_neutral(field: str, value: Any) -> bool:
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in NEUTRAL.get(field, ()))


def ids_of_chat(reader: Reader, messages: list[dict[str, str]]) -> list[int]:
    """Token ids of a conversation; its own system message stands in the place of the experiment's. Raises Refused."""
    if len(messages) == 1:
        content = messages[0]["content"].strip()  # as a question lands
        if not content:
            raise Refused(400, "messages.0.content: is empty", "messages.0.content")
        return encode(reader, content)
    if reader.tokenizer.chat_template is None:
        raise Refused(400, "messages: this model has no chat template, and reads one user message alone", "messages")
    if reader.system_prompt and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": reader.system_prompt}, *messages]
    texts = RowTexts(reader.tokenizer, *(one["content"] for one in messages))
    marked = [{**one, "content": texts.marked(one["content"])} for one in messages]
    from jinja2 import TemplateError

    try:
        text = written(reader.tokenizer, marked, asks=True)
    except TemplateError as error:
        raise Refused(400, f"messages: the model's chat template refuses them: {error}", "messages") from None
    return texts.tokenise(text)


def question(body: Any, asked: Any, ids: list[int], limits: Limits, field: str) -> Question:
    """Raises Refused for a question that is empty, or that asks for too much."""
    most = body.most or limits.new_tokens
    if most > limits.new_tokens:
        named = "max_completion_tokens" if getattr(body, "max_completion_tokens", None) else "max_tokens"
        raise Refused(400, f"{named}: at most {limits.new_tokens} here (policy.max_new_tokens)", named)
    if not ids:
        raise Refused(400, f"{field}: holds no token", field)
    if (highest := max(ids)) >= limits.rows:
        raise Refused(400, f"{field}: token {highest}, and the model's embedding ends at {limits.rows - 1}", field)
    if limits.tokens is not None and len(ids) + most > limits.tokens:
        reads = f"{field}: {len(ids)} tokens with an answer of {most} are more than the {limits.tokens} that it reads"
        raise Refused(400, reads, field, "context_length_exceeded")
    seed = secrets.token_hex(8) if body.seed is None else str(body.seed)
    temperature = body.temperature or 0.0
    return Question(body, asked, ids, most, 0.0 if temperature < GREEDY_BELOW else temperature, seed)
