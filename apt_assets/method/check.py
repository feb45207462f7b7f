"""One check of the gate, and how it is told."""

from dataclasses import dataclass
from typing import Any

POWER = 0.8  # of seeing a loss, by which the smallest visible one is told


@dataclass(frozen=True)
class Check:
    """One comparison; low and high bound `difference`, by which the candidate is above the reference.

    Accuracies are shares 0-1. Likelihoods are nats per character. Of perplexities per word the difference is a share:
    by how much more. Kappa is at most 1; what it is compared with is the floor. visible: the smallest loss, as a
    positive number, that may be seen with a power of POWER; needed: how many items it takes at least to see one of the
    tolerance.
    """

    name: str
    passed: bool
    candidate: float
    reference: float
    difference: float
    low: float
    high: float
    tolerance: float
    items: int
    against: str
    visible: float | None = None
    needed: int = 0

    def sentence(self) -> str:
        if self.items == 0:
            return f"{self.name} refused: there is no item to compare on ({FORMS[self.name].without})"
        verdict = "passed" if self.passed else "refused"
        form = FORMS[self.name]
        low, high, difference = (f"{form.scale * value:+.{form.digits}f}" for value in self.ends())
        return (
            f"{self.name} {verdict}: {form.shown(self.candidate)} against {form.shown(self.reference)} of "
            f"{self.against}, difference {difference}{form.unit} [{low}, {high}] on {self.items} {form.items}, "
            f"tolerance {form.scale * self.tolerance:.{form.digits}f}{self.too_few()}"
        )

    def ends(self) -> tuple[float, float, float]:
        return self.low, self.high, self.difference

    def too_few(self) -> str:
        """What more items would see; "" where these are enough."""
        if self.visible is None or self.visible <= self.tolerance:
            return ""
        if self.tolerance == 0:
            return "" if self.passed else "; that nothing at all is lost no number of items shows: tolerate some"
        form = FORMS[self.name]
        return (
            f"; a loss of less than {form.scale * self.visible:.{form.digits}f}{form.unit} is seen less than "
            f"{POWER:.0%} of the time: the tolerance takes at least {self.needed:,} {form.items}"
        )


@dataclass(frozen=True)
class Form:
    """How a check is told: a value is given as it is, a difference times `scale`."""

    shown: Any
    unit: str
    scale: float
    digits: int
    items: str
    without: str = "name benchmarks.tasks"  # what to do where there is none


FORMS = {
    "domain": Form("{:.1%}".format, " points", 100, 1, "items", "raise data.validation or land more data"),
    "general": Form("{:.1%}".format, " points", 100, 1, "items"),
    "likelihood": Form("{:.3f}".format, " nats", 1, 3, "items"),
    "perplexity": Form("{:.1f}".format, " %", 100, 1, "passages"),
    "judge": Form("{:.2f}".format, "", 1, 2, "human grades", "put grades into the folder of assessor.calibration"),
}
GENERAL = ("general", "likelihood", "perplexity")  # those that what is forgotten fails
