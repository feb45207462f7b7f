"""Numbers with units: grades an answer 1-5 by value, tolerance and unit. The rubric is this file.

    5  the gold's value in the gold's unit, or the same converted, and no other number
    4  within the tolerance, and no other number
    3  within the tolerance, but beside other numbers, or without the unit that the gold has
    2  another value, another kind of unit, or only numbers of the question
    1  no number

How numbers are written stands in numerals.py; a number is read whole, or it has no value and equals none. A unit is
the word or sign right behind it, or a currency before it; a gold without a unit is compared by its value alone. A
temperature is a point on its scale: 98.6 °F are 37 °C. A rate such as 9 °F/min counts by the size of its degree:
5 °C/min. A bound, < 5, equals no number but the same bound. A K right behind a number is a thousand, and kelvins where
a temperature is spoken of. A whole text in brackets with a currency or thousands, (1,234), is negative, as in accounts.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import Field

from resources.assessors import FAST, AssessorKind, Grade, Row, Ungradable, Variant, best_over_golds
from resources.assessors.numerals import NO_VALUE, NUMERAL, SCALE_WORDS, readable, value_of
from resources.section import Section
from resources.store.kinds import RowKind
from resources.words import marks

ROWS = RowKind("grades by numeric", table="grades", settings=("assessor.numeric",), code=(__name__,))


class NumericSettings(Section):
    """A number with its unit. Tolerances are around the gold's value; the larger one counts."""

    relative_tolerance: float = Field(0.01, ge=0, description="Share of the gold's value (choice).")
    absolute_tolerance: float = Field(0.0, ge=0, description="In the gold's unit (choice).")
    units: Literal["convert", "same", "ignore"] = Field(
        "convert", description="convert: 1.5 g is 1500 mg; same: as the gold writes it; ignore: the value alone counts."
    )


EQUAL = 1e-9  # relative; what is left after a conversion in floating point
# Unit -> what it is measured in.
CURRENCIES = {
    "$": "USD", "us$": "USD", "usd": "USD", "dollar": "USD", "€": "EUR", "eur": "EUR", "euro": "EUR", "£": "GBP",
    "gbp": "GBP", "¥": "JPY", "jpy": "JPY", "yen": "JPY", "円": "JPY", "cny": "CNY", "rmb": "CNY", "yuan": "CNY",
    "元": "CNY", "₹": "INR", "inr": "INR", "rs": "INR", "rupee": "INR", "chf": "CHF", "franc": "CHF", "₩": "KRW",
    "krw": "KRW", "won": "KRW", "원": "KRW", "₽": "RUB", "rub": "RUB", "₺": "TRY", "₪": "ILS", "₫": "VND", "฿": "THB",
    "₴": "UAH", "₦": "NGN", "a$": "AUD", "aud": "AUD", "c$": "CAD", "ca$": "CAD", "cad": "CAD", "hk$": "HKD",
    "r$": "BRL", "brl": "BRL", "nz$": "NZD", "s$": "SGD", "sek": "SEK", "nok": "NOK", "dkk": "DKK", "pln": "PLN",
}  # fmt: skip
SIGNS_OF_MONEY = "$€£¥₹₩₽₺₪₫฿₴₦"
CODES = "|".join(name.upper() for name in CURRENCIES if len(name) == 3 and name.isascii() and name.isalpha())
WORD = rf"(?:[^\W\d_]|[{marks(0xFFFF)}])+"
UNIT = rf"(?:[%‰{SIGNS_OF_MONEY}]|°\s?[A-Za-z]|{WORD}(?:[23](?!\w))?)"
NUMBER = re.compile(
    rf"""
    (?:(?<![-=<>])(?P<bound>[<>≤≥]=?)\s?)?
    (?P<minus>-(?=\s?[{SIGNS_OF_MONEY}]))?
    (?:(?<!\w)(?P<currency>(?:US|A|CA?|HK|R|NZ|S)?[{SIGNS_OF_MONEY}]|(?:{CODES}|Rs\.?))\s?(?=[-+.]?\d))?
    (?:(?<![\w.,)%-])(?P<sign>[-+]))?
    (?(currency)|(?<![\w.,])){NUMERAL}
    (?P<scale>(?:\s?(?i:{SCALE_WORDS}))+|\s?k(?![^\W_])|(?(currency)[KMmBb]|[KM])(?![^\W_]))?
    (?:\s?(?P<unit>{UNIT}(?:/{UNIT})*)|(?(currency)(?P<per>(?:/{UNIT})+)))?
    """,
    re.VERBOSE,
)
HAS_K = re.compile(r"\dK(?!\w)")
CHOICE = re.compile(r"\b(?:or|vs|versus|oder|ou|o)\b", re.IGNORECASE)
TWO_PRESSURES = re.compile(r"\d{2}\s*/\s*\d{2}")  # 120/80, in one unit
TAG = re.compile(r"</?[A-Za-z][\w-]*>")
BRACKETS = re.compile(rf"\(\s*([^()]*(?:[{SIGNS_OF_MONEY}]|\d[,.' ]\d{{3}})[^()]*)\)")
# What is the same in other words, in this order.
IN_OTHER_WORDS = [
    (re.compile(r"\${1,2}(?=\S)([^$\n]+?)(?<=\S)\${1,2}(?!\d)"), r"\1"),  # a formula of LaTeX
    (re.compile(r"\bper (cent|mille)\b", re.IGNORECASE), r"per\1"),
    (re.compile(r"\bmm ?Hg\b"), "mmHg"),
    (re.compile(r"\bUS[- ]dollars?\b", re.IGNORECASE), "USD"),
    (re.compile(rf"\b(?:minus|negative)\s+(?=[{SIGNS_OF_MONEY}]?\d)", re.IGNORECASE), "-"),
    (re.compile("<="), "≤"),
    (re.compile("(?<![=-])>="), "≥"),
    (re.compile(r"(?<=\w)\s+per\s+(?=[^\W\d]|°)"), "/"),
]
# One unit right behind a number, divided by others: 10 m·s^-1, 8.3 J mol^-1 K^-1, 8.3 J/(mol·K). Nothing else is read:
# of a unit that was read in part a right answer would be a wrong one.
FACTOR = r"(?:°[CFK]|[^\W\d_]{1,4})"
TIMES = r"(?:\s?[·⋅*]\s?|\s)"
BELOW = rf"{TIMES}(?P<below>{FACTOR})\^-(?P<power>[123])(?![\d^]|[.,]\d)"
AND_BELOW = BELOW.replace("below", "other").replace("power", "its_power")
DIVIDED = re.compile(
    rf"(?<=\d)\s?(?P<unit>{FACTOR}[23]?)"
    rf"(?:{BELOW}(?:{AND_BELOW})?(?!\s?[·⋅*])(?!\s{FACTOR}\^)"
    rf"|/\((?P<first>{FACTOR}[23]?){TIMES}(?P<second>{FACTOR}[23]?)\))"
)
# °F, ° f, degF, degrees F; Fahrenheit, °Fahrenheit, degrees, degrés, grados or Grad Fahrenheit. Other signs and letters
# that look like those of °C: a Spanish keyboard's º, a ring, a Russian C.
SCALE = re.compile(
    r"(?i)(?:[°º˚]|(?<![^\W\d_])deg(?:ree)?s?\.?)\s*(?P<letter>[CFK\N{CYRILLIC SMALL LETTER ES}])(?![A-Z])"
    r"|(?:(?:[°º˚]|(?<![^\W\d_])(?:deg|grad|grau)[^\W\d_]*\.?)[\s-]*|(?<![^\W\d_]))"
    r"(?P<name>celsius|centigrade|fahrenheit|kelvins?)"
)
SIGNS = {"c": "°C", "\N{CYRILLIC SMALL LETTER ES}": "°C", "f": "°F", "k": "K"}  # by the first letter of a scale
PREFIXES = {
    "p": 1e-12, "n": 1e-9, "µ": 1e-6, "u": 1e-6, "m": 1e-3, "c": 1e-2, "d": 1e-1,
    "": 1.0, "h": 1e2, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
}  # fmt: skip
PREFIX_NAMES = {
    "pico": 1e-12, "nano": 1e-9, "micro": 1e-6, "milli": 1e-3, "centi": 1e-2, "deci": 1e-1,
    "": 1.0, "hecto": 1e2, "kilo": 1e3, "mega": 1e6, "giga": 1e9, "tera": 1e12,
}  # fmt: skip
# Symbol -> names, in the singular; each takes the SI prefixes.
SI = {
    "g": ("gram", "gramme"), "m": ("metre", "meter"), "s": ("second", "sec"), "L": ("litre", "liter"),
    "mol": ("mole",), "Hz": ("hertz",), "W": ("watt",), "J": ("joule",), "V": ("volt",), "A": ("ampere", "amp"),
    "N": ("newton",), "Pa": ("pascal",), "B": ("byte",), "K": ("kelvin",),
}  # fmt: skip
LITRES = ("", "n", "µ", "u", "m", "c", "d", "h")  # also with a small letter
# Unit -> (its size, what it is measured in).
OTHERS = {
    "min": (60.0, "s"), "minute": (60.0, "s"), "h": (3600.0, "s"), "hr": (3600.0, "s"), "hour": (3600.0, "s"),
    "day": (86400.0, "s"), "d": (86400.0, "s"), "week": (604800.0, "s"), "t": (1e6, "g"), "tonne": (1e6, "g"),
    "mcg": (1e-6, "g"), **{f"{prefix}l": (PREFIXES[prefix], "L") for prefix in LITRES},
    "%": (1.0, "%"), "percent": (1.0, "%"), "pct": (1.0, "%"),
    "prozent": (1.0, "%"), "‰": (0.1, "%"), "permille": (0.1, "%"), "promille": (0.1, "%"), "k": (1.0, "K"),
    "mmhg": (133.322387415, "Pa"), **{name: (1.0, code) for name, code in CURRENCIES.items()},
}  # fmt: skip
MEASURES = {*SI, *(measure for _, measure in OTHERS.values())}


class Unit(NamedTuple):
    """(value + zero) * size is the value in `measure`."""

    size: float
    measure: str
    zero: float = 0.0


TEMPERATURES = {"°C": Unit(1.0, "K", 273.15), "°F": Unit(5 / 9, "K", 459.67)}


class Quantity(NamedTuple):
    """value in `unit`; the unit is "" where there is none, and the text itself where that is no number (NO_VALUE).
    bound: <, >, ≤, ≥ or ""."""

    value: float
    unit: str
    bound: str = ""


@dataclass(frozen=True)
class Numeric:
    """Tolerances are of the gold's value and in its unit; the larger one counts.

    units: convert: 1500 mg is 1.5 g; same: the unit must be written as in the gold; ignore: only the
    value counts.
    """

    relative_tolerance: float
    absolute_tolerance: float
    units: Literal["convert", "same", "ignore"]
    at_once: int = FAST

    def grade(self, rows: Sequence[Row]) -> list[Grade]:
        return [best_over_golds(row, self.grade_row) for row in rows]

    def grade_row(self, row: Row) -> Grade:
        if reason := no_one_number(row.gold):
            raise Ungradable(f"assessor numeric: the gold {row.gold!r} of the question {row.question!r} {reason}")
        texts = (row.question, row.prediction, row.gold)
        kelvin = any(map(HAS_K.search, texts)) and any(map(speaks_of_temperature, texts))
        (gold,) = quantities(row.gold, kelvin=kelvin)
        # A number of the question may be repeated, and is no answer: "3 kilometres are 3000 m".
        given = {sized(one) for one in quantities(row.question, kelvin=kelvin)}
        if sized(gold) in given and CHOICE.search(row.question):  # to repeat a choice decides nothing
            given = {one for one in given if one[1].measure != sized(gold)[1].measure}
        given -= {sized(gold)}
        found = quantities(row.prediction, kelvin=kelvin)
        said = [one for one in found if sized(one) not in given]
        if not said:
            return Grade(2 if found else 1, False)
        grade, exact = max(self.compare(one, gold) for one in said)
        hedged = len({f"{bound}{(value + unit.zero) * unit.size:.9g}" for value, unit, bound in map(sized, said)}) > 1
        return Grade(min(grade, 3), False) if hedged else Grade(grade, exact)

    def compare(self, said: Quantity, gold: Quantity) -> tuple[int, bool]:
        """(grade, exact) of one quantity."""
        if said.bound != gold.bound or said.value is NO_VALUE:
            return 2, False
        value, has_unit, wanted = said.value, True, read_unit(gold.unit)
        if gold.unit and said.unit != gold.unit and self.units != "ignore":
            unit = read_unit(said.unit)
            if self.units == "convert" and unit.measure == wanted.measure:
                value = (value + unit.zero) * (unit.size / wanted.size) - wanted.zero
            elif known(unit.measure):
                return 2, False
            else:
                has_unit = False  # whatever word comes next: "15 is the dose"
        off = abs(value - gold.value)
        if off <= EQUAL * abs(gold.value + wanted.zero):
            return (5, True) if has_unit else (3, False)
        allowed = max(self.relative_tolerance * abs(gold.value), self.absolute_tolerance)
        within = off <= allowed * (1 + EQUAL)
        return (4 if has_unit else 3) if within else 2, False


def no_one_number(gold: str) -> str | None:
    """Why a gold cannot be graded; None: it holds one number, which is read whole."""
    found = quantities(gold)
    if len(found) == 1:
        return None if math.isfinite(found[0].value) else "must hold one number, and this is none that can be read"
    return f"must hold one number, and has {len(found) or 'none'}"


def quantities(text: str, *, kelvin: bool = False) -> list[Quantity]:
    """Every number in the text with its unit. kelvin: 300K are kelvins, and not 300 thousand."""
    return [quantity_of(match, kelvin=kelvin) for match in NUMBER.finditer(in_plain_form(text))]


def in_plain_form(text: str) -> str:
    """The text in the signs and words in which NUMBER reads it."""
    # NFKC makes a Greek letter of the micro sign.
    text = SCALE.sub(lambda match: SIGNS[(match["letter"] or match["name"])[0].casefold()], text)
    plain = TAG.sub(" ", readable(text)).replace("\N{GREEK SMALL LETTER MU}", "µ")
    for written, form in IN_OTHER_WORDS:
        plain = written.sub(form, plain)
    plain = DIVIDED.sub(with_strokes, plain)
    in_brackets = BRACKETS.fullmatch(plain.strip())
    return f"-{in_brackets[1]}" if in_brackets else plain


def with_strokes(match: re.Match[str]) -> str:
    """A unit that is divided by others in the form that NUMBER reads, m/s, if all of them are known."""
    powers = ((match["below"], match["power"]), (match["other"], match["its_power"]))
    below = [unit + power.removeprefix("1") for unit, power in powers if unit] or [match["first"], match["second"]]
    if all(known(read_unit(unit).measure) for unit in (match["unit"], *below)):
        return f" {'/'.join((match['unit'], *below))}"
    return match[0]


def quantity_of(match: re.Match[str], *, kelvin: bool) -> Quantity:
    scale, unit = match["scale"] or "", f"{match['currency'] or ''}{match['per'] or match['unit'] or ''}"
    if scale == "K" and kelvin and not unit:
        scale, unit = "", "K"
    value = value_of(match, scale)
    if value is NO_VALUE or (unit.casefold() == "mmhg" and TWO_PRESSURES.search(match[0])):
        return Quantity(NO_VALUE, match[0])
    negative = bool(match["minus"]) != (match["sign"] == "-")
    return Quantity(-value if negative else value, unit.replace(" ", "").rstrip("."), match["bound"] or "")


def speaks_of_temperature(text: str) -> bool:
    return "kelvin" in text.casefold() or any(read_unit(one.unit).measure == "K" for one in quantities(text))


def sized(quantity: Quantity) -> tuple[float, Unit, str]:
    """(value, unit, bound), the same for every name of the unit. A word that is no known unit does not count: "6 is"
    is 6."""
    unit = read_unit(quantity.unit)
    keeps_unit = known(unit.measure) or quantity.value is NO_VALUE
    return quantity.value, unit if keeps_unit else Unit(1.0, ""), quantity.bound


def known(measure: str) -> bool:
    """Whether it is made of units that are known: m, m2, g/m2."""
    return {part.rstrip("23") for part in measure.split("/")} <= MEASURES


def read_unit(unit: str) -> Unit:
    """("km") -> (1000, "m"), ("km2") -> (10⁶, "m2"); a unit that is not known measures itself. Of a temperature in a
    rate, only the size of the degree counts."""
    first, *below = unit.split("/")
    if below:
        above, per = read_unit(first), sorted(map(read_unit, below), key=lambda unit: unit.measure)
        size = above.size / math.prod(unit.size for unit in per)
        return Unit(size, "/".join((above.measure, *(unit.measure for unit in per))))
    if unit in TEMPERATURES:
        return TEMPERATURES[unit]
    if unit in OTHERS:
        return Unit(*OTHERS[unit])
    if unit[-1:] in ("2", "3") and known((base := read_unit(unit[:-1])).measure):
        if unit[-1] == "3" and base.measure == "m":
            return Unit(1000 * base.size**3, "L")
        return Unit(base.size ** int(unit[-1]), base.measure + unit[-1])
    for base_unit, names in SI.items():
        prefix = unit.removesuffix(base_unit)
        if prefix != unit and prefix in PREFIXES:
            return Unit(PREFIXES[prefix], base_unit)
        for name in names:
            prefix = unit.casefold().removesuffix("s").removesuffix(name)
            if unit.casefold().removesuffix("s") != prefix and prefix in PREFIX_NAMES:
                return Unit(PREFIX_NAMES[prefix], base_unit)
    if len(unit) > 2 and unit.endswith("s") and known((one := read_unit(unit[:-1])).measure):
        return one
    singular = unit.casefold().removesuffix("s")
    other = next((form for form in (unit.casefold(), singular) if form in OTHERS), None)
    # A letter that is no unit as it is written, such as M for molar, is not one in lower case.
    return Unit(*OTHERS[other]) if other else Unit(1.0, singular if singular not in SI else unit)


def open_numeric(scope: Any) -> Numeric:
    return Numeric(**scope.settings.assessor.numeric.model_dump())


KIND = AssessorKind((Variant(ROWS, open_numeric),), settings=NumericSettings)
