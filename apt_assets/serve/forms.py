"""Answers as OpenAI's two interfaces write them, whole and in pieces."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from apt_assets.serve.answer import Answer


class Form(ABC):
    """kind: of a whole answer; piece_kind: of a part of one; prefix: of an answer's name."""

    kind: str
    piece_kind: str
    prefix: str

    @abstractmethod
    def said(self, text: str) -> dict[str, Any]:
        """The text as a choice has it."""

    @abstractmethod
    def more(self, text: str) -> dict[str, Any]:
        """The same of a piece; "" is none."""

    def opening(self) -> dict[str, Any]:
        """What the first piece says before there is text."""
        return self.more("")

    def whole(self, answer: Answer, text: str) -> dict[str, Any]:
        choice = {"index": 0, **self.said(text), "finish_reason": answer.reason, "logprobs": None}
        return {**self.about(answer, self.kind), "choices": [choice], "usage": usage(answer)}

    def first(self, answer: Answer) -> dict[str, Any]:
        return self.chunk(answer, self.opening())

    def piece(self, answer: Answer, text: str) -> dict[str, Any]:
        return self.chunk(answer, self.more(text))

    def last(self, answer: Answer) -> Iterator[dict[str, Any]]:
        yield self.chunk(answer, self.more(""), answer.reason)
        if answer.question.usage_in_stream:
            yield {**self.about(answer, self.piece_kind), "choices": [], "usage": usage(answer)}

    def chunk(self, answer: Answer, choice: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {
            **self.about(answer, self.piece_kind),
            "choices": [{"index": 0, **choice, "finish_reason": reason, "logprobs": None}],
        }

    def about(self, answer: Answer, kind: str) -> dict[str, Any]:
        name = f"{self.prefix}-{answer.id}"
        return {"id": name, "object": kind, "created": int(answer.asked_at), "model": answer.specialist.name}


class Chat(Form):
    kind, piece_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def said(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    def more(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def opening(self) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": ""}}


class Completion(Form):
    kind, piece_kind, prefix = "text_completion", "text_completion", "cmpl"

    def said(self, text: str) -> dict[str, Any]:
        return {"text": text}

    more = said


def usage(answer: Answer) -> dict[str, int]:
    asked, said = len(answer.question.ids), len(answer.output_ids)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


CHAT, COMPLETION = Chat(), Completion()
