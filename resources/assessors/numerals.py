"""Numerals: how numbers are written, and what each is worth. A number is read whole or not at all.

Read are 1500, 1,500, 1.500,25, 1'500 and 1 500 (groups of three), 1,00,000 (lakhs), 1,5 and 1.5, 1.5e3, 1.5 × 10^3,
10⁶, 1/2, 1 1/2, ½, 50k, 5M, 3 billion, 2 lakh, −5, and digits of any script. One separator alone is read as in English,
whatever the language: 1.500 is one and a half, and 1,500 fifteen hundred, but 1,5, 1,50 and 0,500 are decimal. What is
no such number is not taken in part: dates, times, ratios, versions and lists without spaces have no value (NO_VALUE).
"""

import math
import re
import unicodedata
from decimal import Decimal, InvalidOperation

from resources.words import with_powers

NO_VALUE = math.nan  # one object, so that what has no value is equal to itself in tuples and sets
GROUPED = {
    ",": re.compile(r"[1-9]\d{0,2}(,\d{3})+|[1-9]\d?(,\d{2})+,\d{3}"),
    ".": re.compile(r"[1-9]\d{0,2}(\.\d{3})+"),
    "'": re.compile(r"[1-9]\d{0,2}('\d{3})+"),
    " ": re.compile(r"[1-9]\d{0,2}( \d{3})+"),
}
SCALES = {
    **dict.fromkeys(("hundred", "百"), 1e2),
    **dict.fromkeys(("thousand", "tausend", "千", "k"), 1e3),
    **dict.fromkeys(("万", "萬", "만"), 1e4),
    **dict.fromkeys(("lakh", "lakhs", "lac", "lacs", "लाख"), 1e5),
    **dict.fromkeys(("million", "millions", "mln", "mn", "mio", "millionen", "millones", "m"), 1e6),
    **dict.fromkeys(("crore", "crores", "करोड़"), 1e7),
    **dict.fromkeys(("億", "亿", "억"), 1e8),
    **dict.fromkeys(("billion", "billions", "bn", "mrd", "milliard", "milliards", "milliarden", "b"), 1e9),
    **dict.fromkeys(("trillion", "trillions", "tn", "兆"), 1e12),
}
LETTERS = "kmb"  # of the scales, those of one letter: they count where they cannot be a unit
SCALE_WORDS = "|".join(
    name + (r"\b\.?" if name.isascii() else "")
    for name in sorted((name for name in SCALES if name not in LETTERS), key=len, reverse=True)
)
DIGITS = (
    r"\d+[ ]\d+/\d+(?![\d/])"  # 1 1/2
    r"|\d+/\d+(?![\d/])"
    r"|\d{1,3}(?:[ ]\d{3})+(?![\d/])(?:[.,]\d+)?"
    r"|\d+(?:[.,']\d+)*"
    r"|\.\d+"
)
POWER = r"(?:[eE](?P<exponent>[-+]?\d+)|\s?[×x*·]\s?10(?:\^|\*\*)(?P<power>[-+]?\d+)|\^(?P<raised>[-+]?\d+))"
# A date, a version, a time, a ratio: what goes on with further digits is no number.
MORE = r"(?P<more>(?:-\d+){2,}|(?:[:/]\d[\d.,]*)+)"
NUMERAL = rf"(?P<digits>{DIGITS})(?![.,']?\d){POWER}?{MORE}?"


def readable(text: str) -> str:
    """The text with every numeral in the signs that are read here, and units as NFKC has them."""
    if text.isascii() and not re.search(r"[\\^]", text):
        return text
    # Narrow and fixed spaces between digits hold a number together.
    text = re.sub("(?<=\\d)[\u00a0\u2007\u2008\u2009\u202f](?=\\d{3}(?!\\d))", "'", text)
    text = re.sub(r"\\(?:times|cdot)\s*", "×", text)
    text = unicodedata.normalize("NFKC", with_powers(text)).replace("\u2044", "/")
    text = re.sub(r"(?![0-9])\d", lambda digit: str(unicodedata.digit(digit[0])), text)
    text = re.sub("(?<=\\d)\u066b(?=\\d)", ".", text)
    text = re.sub("(?<=\\d)[\u066c\u2019](?=\\d)", "'", text)
    text = re.sub(r"\^\{([-+\u2212]?\d+)\}", r"^\1", text)
    text = re.sub("[\u2010-\u2013\u2212]", "-", text)
    return re.sub(r"(?<=[^\W\d])\^(?=[23](?!\d))", "", text)  # m² as m2


def value_of(match: re.Match[str], scales: str) -> float:
    """What a match of NUMERAL is worth, times its scales ("million"); NO_VALUE: it is no number, or none that we
    read."""
    number = None if match["more"] else of_digits(match["digits"])
    if number is None or (match["raised"] and number != 10):
        return NO_VALUE
    power = match["power"] or match["exponent"] or match["raised"] or "0"
    try:
        value = (1.0 if match["raised"] else number) * 10.0 ** float(power)
    except OverflowError:
        value = math.inf
    for scale in re.findall(SCALE_WORDS, scales, re.IGNORECASE) or [*scales.strip()]:
        value *= SCALES[scale.casefold().rstrip(".")]
    return value


def of_digits(digits: str) -> float | None:
    """Digits with separators, or a fraction."""
    whole, _, fraction = digits.rpartition(" ") if "/" in digits else ("", "", "")
    if fraction:
        above, below = map(float, fraction.split("/"))
        return None if below == 0 else float(whole or 0) + above / below
    number = as_decimal(digits)
    return None if number is None else float(number)


def as_decimal(digits: str) -> Decimal | None:
    """Digits with separators as a number; None if they are not one."""
    group, point = separators(digits)
    plain = digits.replace(group, "") if group else digits
    try:
        return Decimal(plain.replace(point, ".") if point else plain)
    except InvalidOperation:
        return None


def separators(digits: str) -> tuple[str, str]:
    """(what separates groups, what stands before the decimals) of digits, each "" if there is none. Digits that are
    no number have separators that make none of them."""
    used = [sign for sign in digits if not sign.isdigit()]
    if not GROUPED.keys() >= set(used):
        return "", ""
    last = used[-1] if used else ""
    before, _, _ = digits.rpartition(last) if last else (digits, "", "")
    kinds = list(dict.fromkeys(used))
    if len(kinds) == 2 and last in ".," and used.count(last) == 1 and GROUPED[kinds[0]].fullmatch(before):
        return kinds[0], last
    if len(kinds) == 1 and (last != "." or len(used) > 1) and GROUPED[last].fullmatch(digits):
        return last, ""
    if len(used) == 1 and last in ".,":
        return "", last
    return "", ""
