"""Numbers with units: grades an answer 1-5 by value, tolerance and unit. The rubric is this file.

    5  the gold's value in the gold's unit, or the same converted, and no other number
    4  within the tolerance, and no other number
    3  within the tolerance, but beside other numbers, or without the unit that the gold has
    2  another value, another kind of unit, or only numbers of the question
    1  no number

A number is 1500, 1,500, 1.5e3, -5 or 1,5 (a comma counts as a decimal one unless three digits follow it).
A unit is the word or sign right behind it; a gold without a unit is compared by its value alone. A temperature is
a point on its scale: 98.6 °F are 37 °C. A rate such as 9 °F/min counts by the size of its degree: 5 °C/min.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import Field

from resources.assessors import FAST, AssessorKind, Grade, Row, Ungradable, Variant, best_over_golds
from resources.section import Section
from resources.store.kinds import RowKind

ROWS = RowKind("grades by numeric", table="grades", settings=("assessor.numeric",), code=(__name__,))


class NumericSettings(Section):
    """A number with its unit. Tolerances are around the gold's value; the larger one counts."""

    relative_tolerance: float = Field(0.01, ge=0, description="Share of the gold's value (choice).")
    absolute_tolerance: float = Field(0.0, ge=0, description="In the gold's unit (choice).")
    units: Literal["convert", "same", "ignore"] = Field(
        "convert", description="convert: 1.5 g is 1500 mg; same: as the gold writes it; ignore: the value alone counts."
    )


EQUAL = 1e-9  # relative; what is left after a conversion in floating point
NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>[-+]?)(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+)"
    r"(?:[eE](?P<exponent>[-+]?\d+))?"
    r"(?:\s?(?P<unit>%|(?:°\s?[A-Za-z]|[^\W\d_]+)(?:/(?:°\s?[A-Za-z]|[^\W\d_]+)|[23](?!\d))?))?"
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
# Unit -> (its size, what it is measured in). A small k is K: "15k" is "15K", whatever is meant.
OTHERS = {
    "min": (60.0, "s"), "minute": (60.0, "s"), "h": (3600.0, "s"), "hr": (3600.0, "s"), "hour": (3600.0, "s"),
    "day": (86400.0, "s"), "d": (86400.0, "s"), "week": (604800.0, "s"), "t": (1e6, "g"), "tonne": (1e6, "g"),
    "mcg": (1e-6, "g"), "l": (1.0, "L"), "ml": (1e-3, "L"), "%": (1.0, "%"), "percent": (1.0, "%"), "k": (1.0, "K"),
}  # fmt: skip
MEASURES = {*SI, *(measure for _, measure in OTHERS.values())}


class Unit(NamedTuple):
    """(value + zero) * size is the value in `measure`."""

    size: float
    measure: str
    zero: float = 0.0


TEMPERATURES = {"°C": Unit(1.0, "K", 273.15), "°F": Unit(5 / 9, "K", 459.67)}


class Quantity(NamedTuple):
    """value in `unit`; the unit is "" where there is none."""

    value: float
    unit: str


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
        golds = quantities(row.gold)
        if len(golds) != 1:
            raise Ungradable(
                f"assessor numeric: the gold {row.gold!r} of the question {row.question!r} must hold one number"
            )
        gold = golds[0]
        # A number of the question may be repeated, and is no answer: "3 kilometres are 3000 m".
        given = {sized(one) for one in quantities(row.question)} - {sized(gold)}
        found = quantities(row.prediction)
        said = [one for one in found if sized(one) not in given]
        if not said:
            return Grade(2 if found else 1, False)
        grade, exact = max(self.compare(one, gold) for one in said)
        hedged = len({f"{(value + unit.zero) * unit.size:.9g}" for value, unit in map(sized, said)}) > 1
        return Grade(min(grade, 3), False) if hedged else Grade(grade, exact)

    def compare(self, said: Quantity, gold: Quantity) -> tuple[int, bool]:
        """(grade, exact) of one quantity."""
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


def quantities(text: str) -> list[Quantity]:
    """Every number in the text with the unit behind it."""
    # NFKC makes m2 of m² and °C of ℃, which is fine, a Greek letter of the micro sign, and leaves the minus sign alone.
    text = SCALE.sub(lambda match: SIGNS[(match["letter"] or match["name"])[0].casefold()], text)
    plain = unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-").replace("\N{GREEK SMALL LETTER MU}", "µ")
    plain = re.sub(r"(?<=\w)\s+per\s+(?=[^\W\d]|°)", "/", plain)
    found = []
    for match in NUMBER.finditer(plain):
        digits = match["digits"]
        thousands = re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", digits)
        number = digits.replace(",", "" if thousands else ".")
        value = float(f"{match['sign']}{number}e{match['exponent'] or 0}")
        found.append(Quantity(value, (match["unit"] or "").replace(" ", "")))
    return found


def sized(quantity: Quantity) -> tuple[float, Unit]:
    """(value, unit), the same for every name of the unit. A word that is no known unit does not count: "6 is" is 6."""
    unit = read_unit(quantity.unit)
    return quantity.value, unit if known(unit.measure) else Unit(1.0, "")


def known(measure: str) -> bool:
    return set(measure.split("/")) <= MEASURES


def read_unit(unit: str) -> Unit:
    """("km") -> (1000, "m"); a unit that is not known measures itself. Of a temperature in a rate, only the size of
    the degree counts."""
    above, slash, below = unit.partition("/")
    if slash:
        over, per = read_unit(above), read_unit(below)
        return Unit(over.size / per.size, f"{over.measure}/{per.measure}")
    if unit in TEMPERATURES:
        return TEMPERATURES[unit]
    if unit in OTHERS:
        return Unit(*OTHERS[unit])
    for base, names in SI.items():
        prefix = unit.removesuffix(base)
        if prefix != unit and prefix in PREFIXES:
            return Unit(PREFIXES[prefix], base)
        for name in names:
            prefix = unit.casefold().removesuffix("s").removesuffix(name)
            if unit.casefold().removesuffix("s") != prefix and prefix in PREFIX_NAMES:
                return Unit(PREFIX_NAMES[prefix], base)
    singular = unit.casefold().removesuffix("s")
    return Unit(*OTHERS.get(singular, (1.0, singular)))


def open_numeric(scope: Any) -> Numeric:
    return Numeric(**scope.settings.assessor.numeric.model_dump())


KIND = AssessorKind((Variant(ROWS, open_numeric),), settings=NumericSettings)
