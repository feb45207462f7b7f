"""The texts of a row are text to the model: what spells one of its control tokens there does not become that token.

A control token tells the model what a text is, such as `<|im_end|>`. Only the chat template writes them. A text that
spells none is tokenised with what the template writes around it, as if this module were not there. Otherwise what
spells one is tokenised apart, by the tokenizer without its added tokens.

Where the template's marks are plain text to the tokenizer, such as [INST] of the first Mistral and Llama 2 models,
nothing sets them apart from a row that writes the same.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    Encode = Callable[[str], list[int]]

IN_BRACKETS = re.compile(r"[<\[].+[>\]]", re.DOTALL)
# Some tokenizers, such as Gemma's, have these as tokens for text that holds them.
HTML = re.compile(
    r"</?(?:a|b|blockquote|br|caption|code|div|em|h[1-6]|i|li|ol|p|pre|s|span|strong|su[bp]|t[dhr]|table|tbody|tfoot|"
    r"thead|u|ul)>"
)
PRIVATE_USE = range(0xF0000, 0xFFFFE)  # characters


@lru_cache(maxsize=8)
def spelling(tokenizer: "PreTrainedTokenizerBase", chat_template: str) -> "re.Pattern[str]":
    """What spells a control token: one that is special, that the template names, or that stands in brackets and is
    no HTML. Other added tokens are words and white space that somebody added for texts to hold."""
    found = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.content.strip()
        and (
            token.special
            or token.content in chat_template
            or (IN_BRACKETS.fullmatch(token.content) and not HTML.fullmatch(token.content))
        )
    ]
    # Longest first: one may stand in another.
    return re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True))) or "(?!)")


class RowTexts:
    """The texts of one row, on their way through a chat template to the tokenizer.

    `marked` puts what spells a control token between two characters that none of the texts holds; `tokenise` reads
    these. Texts that spell none are left as they are.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *texts: str | None):
        self.tokenizer = tokenizer
        self.spelling = spelling(tokenizer, str(tokenizer.chat_template or ""))
        held = [text for text in texts if text]
        self.spelled = any(self.spelling.search(text) for text in held)
        if self.spelled:
            free = (mark for mark in map(chr, PRIVATE_USE) if not any(mark in text for text in held))
            self.opening, self.closing = next(free), next(free)

    def marked(self, text: str) -> str:
        return self.spelling.sub(rf"{self.opening}\g<0>{self.closing}", text) if self.spelled else text

    def tokenise(self, written: str) -> list[int]:
        """Token ids of what was made of marked texts."""
        # The template has written the special tokens already; a second <bos> would change the answers.
        bare = self.tokenizer.chat_template is None
        # What the tokenizer puts behind a text is left out: it would stand between a question and its answer.
        before, after = around(self.tokenizer) if bare else ([], [])
        if not self.spelled:
            ids: list[int] = self.tokenizer(written, add_special_tokens=bare)["input_ids"]
            return ids[: len(ids) - len(after)]
        (first, _), *others = self._pieces(written)
        return [*before, *encoder(self.tokenizer)(first), *self._going_on(others)]

    def tokenise_on(self, written: str) -> list[int]:
        """Token ids of what goes on after something that is tokenised already."""
        return self._going_on(self._pieces(written) if self.spelled else [(written, False)])

    def _pieces(self, written: str) -> list[tuple[str, bool]]:
        """(a piece, whether it spells a control token); every second one does."""
        # A template may take a text apart, so that one mark of a pair is left.
        both = f"{self.opening}([^{self.opening}{self.closing}]*){self.closing}|[{self.opening}{self.closing}]"
        return [(piece or "", number % 2 == 1) for number, piece in enumerate(re.split(both, written))]

    def _going_on(self, pieces: Iterable[tuple[str, bool]]) -> list[int]:
        plain = encoder(self.tokenizer)
        found = (
            as_text(self.tokenizer, piece) if spells else going_on(plain, piece) for piece, spells in pieces if piece
        )
        return [token for ids in found for token in ids]


def encoder(tokenizer: "PreTrainedTokenizerBase") -> "Encode":
    """Tokenises without what the tokenizer puts around a text."""
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


def as_text(tokenizer: "PreTrainedTokenizerBase", spelled: str) -> list[int]:
    """Token ids of the spelling of a control token, which is none of them."""
    ids = going_on(tokenizer._encode_without_added_tokens, spelled)
    if tokenizer.convert_tokens_to_ids(spelled) in ids:  # it is a word of the vocabulary as well
        return [*going_on(encoder(tokenizer), spelled[:1]), *going_on(encoder(tokenizer), spelled[1:])]
    return ids


def going_on(encode: "Encode", text: str) -> list[int]:
    """Token ids of a text that stands behind another one: SentencePiece puts a space before a text that begins."""
    line_end, ids = encode("\n"), encode(f"\n{text}")
    return ids[len(line_end) :] if ids[: len(line_end)] == line_end else encode(text)


def without_merge_dropout(tokenizer: Any) -> None:
    """Have a tokenizer, of transformers or of `tokenizers`, read a text the same way each time: BPE may leave out
    merges by chance, for training."""
    model: Any = getattr(getattr(tokenizer, "backend_tokenizer", tokenizer), "model", None)
    if getattr(model, "dropout", None):
        model.dropout = None


@lru_cache(maxsize=8)
def around(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Token ids that the tokenizer puts (before, after) a text."""
    bare, whole = encoder(tokenizer)("a"), tokenizer("a")["input_ids"]
    first = next((place for place in range(len(whole)) if whole[place : place + len(bare)] == bare), None)
    if first is None or not bare:
        return [], []
    return whole[:first], whole[first + len(bare) :]
