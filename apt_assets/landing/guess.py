"""Which encoding text that is no UTF-8 may be in: a guess from its letters, for a person to decide by."""

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from apt_assets.landing.chunks import SURROGATE
from apt_assets.landing.opening import PIECE, open_utf8

LETTER = re.compile(rb"[A-Za-z][\x80-\xff]|[\x80-\xff][A-Za-z]")
HIGH = re.compile(rb"[\x80-\xff]+")
# Encoding, its letters beside ASCII's, and the share of them that text of this encoding has at least when it is read
# as such, and text of the encodings after it hardly.
EASTERN = [
    ("shift_jis", re.compile("[\u3040-\u30ff]"), 0.2),
    ("euc_jp", re.compile("[\u3040-\u30ff]"), 0.2),
    ("cp949", re.compile("[\uac00-\ud7a3]"), 0.9),
]
WIDE = re.compile("[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]")
# Where words of ASCII letters have high bytes in them, it is a language of western Europe: tried before these.
OTHERS = [("cp1251", re.compile("[\u0400-\u045f\u2116\u2014«»]"), 0.97), ("gbk", WIDE, 0.9), ("big5", WIDE, 0.9)]
LAST_COMMON = 0xC6  # the first byte of the common signs of Big5 is no higher; those of accented letters mostly are


@dataclass(frozen=True)
class NotUtf8:
    """The first byte of a file that is not UTF-8. place: from 1, unpacked. looks_like: an encoding."""

    place: int
    byte: int
    looks_like: str


def first_not_utf8(path: Path) -> NotUtf8 | None:
    """None if all of it is UTF-8. Raises OSError, ValueError."""
    decoder, before, kept = codecs.getincrementaldecoder("utf-8")(), 0, b""
    with open_utf8(path) as source:
        while piece := source.file.read(PIECE):
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as error:
                place = before - (len(error.object) - len(piece)) + error.start
                sample = kept + piece + source.file.read(PIECE)
                return NotUtf8(place + 1, error.object[error.start], looks_like(sample))
            before, kept = before + len(piece), piece
    return None


def looks_like(sample: bytes) -> str:
    """The encoding of bytes of which some are no UTF-8, "utf-8" if most are; they begin and end anywhere in a text."""
    text = sample.decode("utf-8", "surrogateescape")
    wrong = len(SURROGATE.findall(text))
    if sum(character > "\x7f" for character in text) - wrong >= wrong:
        return "utf-8"
    for encoding, letters, share in EASTERN:
        if reads_as(sample, encoding, letters, share):
            return encoding
    if reads_as(sample, "big5", WIDE, 0.9) and is_common_big5(sample):
        return "big5"
    western = "cp1252" if decoded(sample, "cp1252") is not None else "latin_1"
    if len(LETTER.findall(sample)) * 2 >= len(HIGH.findall(sample)):
        return western
    return next(
        (encoding for encoding, letters, share in OTHERS if reads_as(sample, encoding, letters, share)), western
    )


def reads_as(sample: bytes, encoding: str, letters: re.Pattern[str], share: float) -> bool:
    beyond = "".join(character for character in decoded(sample, encoding) or "" if character > "\x7f")
    return beyond != "" and len(letters.findall(beyond)) >= share * len(beyond)


def is_common_big5(sample: bytes) -> bool:
    signs = [character.encode("big5") for character in decoded(sample, "big5") or "" if character > "\x7f"]
    return sum(sign[0] <= LAST_COMMON for sign in signs) >= 0.95 * len(signs)


def decoded(sample: bytes, encoding: str) -> str | None:
    """The sample as text, but for half a character at either end; None if it is not in this encoding."""
    for start in range(2):
        for end in range(2):
            try:
                return sample[start : len(sample) - end].decode(encoding)
            except UnicodeDecodeError:
                continue
    return None
