"""One answer on its way from the thread that computes it to who asked: its tokens, and the text that they are."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from apt_assets.serve.batch import Job
from apt_assets.serve.engine import Answerer
from apt_assets.serve.live import Specialist
from apt_assets.serve.questions import Question, Refused

UNFINISHED = "\ufffd"  # what the bytes of half a character are decoded to


class Answer:
    """The answer of `specialist` to `question`; of the event loop that it is made in.

    Its text is what the loop would keep: without special tokens, and without white space around it.
    """

    def __init__(self, question: Question, specialist: Specialist, tokenizer: Any, answerer: Answerer):
        self.question, self.specialist = question, specialist
        self.id, self.asked_at = secrets.token_hex(12), time.time()
        self.output_ids: list[int] = []
        self._began, self._tokenizer, self._answerer = time.monotonic(), tokenizer, answerer
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[int | Exception] = asyncio.Queue()
        self._job = Job(specialist, question.ids, question.most, question.temperature, question.seed, self._tell)

    def ask(self) -> None:
        """Raises Full."""
        self._answerer.submit(self._job)

    def let_go(self) -> None:
        """Nobody waits for what has not been said yet."""
        self._answerer.cancel(self._job)

    def _tell(self, token: int | Exception) -> None:
        with suppress(RuntimeError):  # the event loop has ended, and with it who asked
            self._loop.call_soon_threadsafe(self._told.put_nowait, token)

    @property
    def reason(self) -> str:
        """Why it ended: the model ended it, or its length."""
        return "stop" if self.output_ids[-1] in self._answerer.end else "length"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    async def tokens(self) -> AsyncIterator[int]:
        """Raises Refused where the model failed."""
        while len(self.output_ids) < self.question.most:
            token = await self._told.get()
            if isinstance(token, Exception):
                raise Refused(500, f"no answer could be computed: {type(token).__name__}: {first_line(token)}")
            self.output_ids.append(token)
            yield token
            if token in self._answerer.end:
                return

    async def whole(self) -> str:
        """The text. Raises Refused."""
        async for _ in self.tokens():
            pass
        return self._text().strip()

    async def pieces(self) -> AsyncIterator[str]:
        """The text, token by token as far as whole characters are there. Raises Refused."""
        sent = ""
        async for _ in self.tokens():
            # White space waits for what comes after it: at the end there is none.
            text = self._text().lstrip().rstrip(UNFINISHED).rstrip()
            if len(text) > len(sent):
                yield text[len(sent) :]
                sent = text
        if rest := self._text().strip()[len(sent) :]:
            yield rest

    def _text(self) -> str:
        return self._tokenizer.decode(self.output_ids, skip_special_tokens=True)

    def as_logged(self, text: str) -> dict[str, Any]:
        """The fields of a line of the log."""
        asked = self.question.asked
        return {
            "asked_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.asked_at)),
            **({"text": asked} if isinstance(asked, str) else {"messages": asked}),
            "answer": text,
            "adapter": self.specialist.digest,
            "user": self.question.body.user,
            "finish_reason": self.reason,
            "seconds": round(self.seconds, 3),
        }


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]
