"""What a word is, in any script: the one place that says so.

A word is letters, digits and their marks. Vowel signs, tone marks, points and viramas are part of the letter that they
stand on, as in Hindi, Thai, Burmese or Hebrew; whatever is spelled in two ways (composed or not, halfwidth, full width,
upper case) is one word. Scripts that put no space between words (SPACELESS) have no words to be found without a
dictionary: there a run of letters is one word, and `letters` takes it apart.

By the Unicode data of Python: canonical and compatible forms are UAX 15, case folding is Unicode 3.13.
"""

import re
import unicodedata
from functools import cache

# Raised digits and signs: 10² is not 102. Of lowered ones (H₂O) and raised charges (Na⁺, Ca²⁺) the plain form is meant.
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni")
POWER = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+")
CHARGE = "⁺⁻"
# 1½ is not 11/2.
MIXED = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞↉])")
# Signs of their own for a mark that belongs on a letter, and for an apostrophe.
SPACING = str.maketrans({"゛": "\u3099", "゜": "\u309a", "´": "'", "\u2044": "/"})
# Scripts that are written without spaces between words: Thai, Lao, Burmese, Khmer, Tai, Javanese, Balinese, and those
# of Chinese and Japanese.
SPACELESS = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf"
    "\ua980-\ua9df\u1b00-\u1b7f\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# What stands on or beside a letter of theirs and is none alone: small kana, the sign for a long one, Thai and Lao
# vowels behind their consonant; and the vowels that are written in front of it.
DEPENDENT = "\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶー"
LEADING = "\u0e40-\u0e44\u0ec0-\u0ec4"
STACKS = "\u17d2\u1039"  # joins the next consonant below


# What is not seen: joiners, soft hyphens, marks that turn the direction of writing, tatweel, fillers, variation
# selectors, and what encloses a character.
UNSEEN = (
    "\u00ad\u034f\u0600-\u0605\u061c\u0640\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u20dd-\u20e0\u20e2-\u20e4\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
    "\U000e0000-\U000e0fff"
)
ANY_UNSEEN = re.compile(f"[{UNSEEN}]+")
BEYOND = re.compile("[\U00010000-\U0010ffff]")
ANY_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ¼-¾⅐-⅞↉゛゜´\u2044]")


@cache
def marks(last: int = 0x1E950) -> str:
    """The characters up to `last` that are marks on a letter, as what stands in the brackets of a pattern."""
    found: list[list[int]] = []
    for code in (*range(0x300, 0x12000), *range(0x16AF0, 0x16FF2), *range(0x1BC9D, 0x1E950)):
        if code <= last and unicodedata.category(chr(code))[0] == "M":
            if found and found[-1][1] == code - 1:
                found[-1][1] = code
            else:
                found.append([code, code])
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in found)


@cache
def word_pattern(*, beyond: bool) -> re.Pattern[str]:
    """A word of a folded text. beyond: also in scripts beyond the basic plane, whose marks take ten times as long."""
    return re.compile(rf"[{marks() if beyond else marks(0xFFFF)}\w]+")


def fold(text: str) -> str:
    """The text in the one form in which texts are compared: composed, in lower case, ² as ^2, nothing unseen in it."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", ANY_UNSEEN.sub("", with_powers(text)))
    # Case folding takes some letters apart, and an İ leaves the dot behind that i has anyway.
    folded = unicodedata.normalize("NFKC", text.casefold().replace("i\u0307", "i"))
    return ANY_UNSEEN.sub("", folded.replace("\u2044", "/"))


def with_powers(text: str) -> str:
    """The text with raised digits as ^2, charges as + and -, and 1½ as 1 ½."""
    return POWER.sub(power, MIXED.sub(" ", text).translate(SPACING)) if ANY_RAISED.search(text) else text


def power(raised: re.Match[str]) -> str:
    is_charge = raised[0][-1] in CHARGE
    return ("" if is_charge else "^") + raised[0].translate(RAISED)


def words(text: str) -> list[str]:
    """The words of a text, folded; punctuation and symbols separate them."""
    folded = fold(text).replace("_", " ")
    return word_pattern(beyond=BEYOND.search(folded) is not None).findall(folded)


# -- scripts without spaces ------------------------------------------------------------------------------


@cache
def letter_pattern() -> re.Pattern[str]:
    """One letter of a spaceless script with all that belongs to it, symbols behind it included."""
    own = f"[{DEPENDENT}{marks()}]"
    letter = f"[{LEADING}]?[{SPACELESS}]{own}*(?:(?<=[{STACKS}])[{SPACELESS}]{own}*)*"
    return re.compile(rf"{letter}[^\s\w{marks()}{SPACELESS}]*")


ANY_SPACELESS = re.compile(f"[{SPACELESS}]")


def letters(text: str) -> str:
    """The text with spaces around each letter of a script without spaces: as if these were its words."""
    if text.isascii() or not ANY_SPACELESS.search(text):
        return text
    return " ".join(letter_pattern().sub(r" \g<0> ", text).split())
