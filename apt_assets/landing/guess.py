"""Which encoding text that is no UTF-8 may be in: a guess from its letters, for a person to decide by."""

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from apt_assets.landing.opening import PIECE, open_utf8

HIGH = re.compile(rb"[\x80-\xff]+")
# Encoding, its letters beside ASCII's, and the share of them that text of this encoding has at least when it is read
# as such, and of another hardly: two bytes of Chinese are as well two Cyrillic letters now and then.
LETTERS = [
    ("shift_jis", re.compile("[\u3040-\u30ff]"), 0.2),
    ("euc_jp", re.compile("[\u3040-\u30ff]"), 0.2),
    ("cp949", re.compile("[\uac00-\ud7a3]"), 0.9),
    ("cp1251", re.compile("[\u0400-\u045f\u2116\u2014«»]"), 0.97),
    ("gbk", re.compile("[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]"), 0.9),
    ("big5", re.compile("[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]"), 0.9),
]


@dataclass(frozen=True)
class NotUtf8:
    """The first byte of a file that is not UTF-8. place: from 1, unpacked. looks_like: an encoding, or None."""

    place: int
    byte: int
    looks_like: str | None


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


def looks_like(sample: bytes) -> str | None:
    """The encoding of bytes of which some are no UTF-8; it begins and ends anywhere in a text."""
    runs = [len(run) for run in HIGH.findall(sample)]
    if sum(length == 1 for length in runs) * 2 > len(runs):
        # Most stand alone between letters of ASCII, as in the languages of western Europe.
        return "cp1252" if decoded(sample, "cp1252") is not None else "latin_1"
    for encoding, letters, share in LETTERS:
        text = decoded(sample, encoding)
        beyond = [character for character in text or "" if character > "\x7f"]
        if beyond and len(letters.findall("".join(beyond))) >= share * len(beyond):
            return encoding
    return "cp1252" if decoded(sample, "cp1252") is not None else None


def decoded(sample: bytes, encoding: str) -> str | None:
    """The sample as text, but for half a character at either end; None if it is not in this encoding."""
    for start in range(2):
        for end in range(2):
            try:
                return sample[start : len(sample) - end].decode(encoding)
            except UnicodeDecodeError:
                continue
    return None
