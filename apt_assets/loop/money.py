"""What stages cost in money: what a plan will, what was spent, and what reuse saved.

A stage costs the seconds in which it computes, at `costs.device_hour`, and the tokens that a grading endpoint says it
took, at `costs.grader_per_million_tokens`. What a row, a step or the rest of a stage takes is the mean of what it took
in this experiment before; what was never measured is said to be unknown, and not to be nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from apt_assets.engine.plan import StagePlan, stages_of
from apt_assets.engine.stage import STAGES
from apt_assets.loop.work import KINDS, Work, work_of
from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.settings.around import Costs
from apt_assets.settings.experiment import Experiment
from apt_assets.settings.grading import kinds_of
from apt_assets.settings.iterations import BASE
from resources.store.manifest import Manifest


@dataclass(frozen=True)
class Use:
    """What computing takes. seconds: by the clock; tokens: of a grading endpoint; whole: whether that is all of it, or
    some is unknown."""

    seconds: float = 0.0
    tokens: float = 0.0
    whole: bool = True

    def __add__(self, other: "Use") -> "Use":
        return Use(self.seconds + other.seconds, self.tokens + other.tokens, self.whole and other.whole)

    def amount(self, costs: Costs) -> float:
        """In `costs.currency`."""
        return self.of_device(costs) + self.of_grader(costs)

    def of_device(self, costs: Costs) -> float:
        return self.seconds * (costs.device_hour or 0.0) / 3600

    def of_grader(self, costs: Costs) -> float:
        return self.tokens * (costs.grader_per_million_tokens or 0.0) / 1e6

    def as_json(self, costs: Costs) -> dict[str, Any]:
        """{amount, currency, seconds, tokens, whole}."""
        return {
            "amount": round(self.amount(costs), 6),
            "currency": costs.currency,
            "seconds": round(self.seconds, 3),
            "tokens": round(self.tokens),
            "whole": self.whole,
        }


NOTHING = Use()


def total(uses: Iterable[Use]) -> Use:
    return sum(uses, NOTHING)


def pays_for_grades(experiment: Experiment) -> bool:
    """Whether grades take tokens of an endpoint, and these have a price."""
    settings, price = experiment.assessor, experiment.costs.grader_per_million_tokens
    return price is not None and "rubric" in kinds_of(settings) and settings.rubric.endpoint is not None


class Measured:
    """What rows, steps and stages took in computations that are done, by their manifests."""

    def __init__(self, manifests: Iterable[Manifest], experiment: Experiment):
        self._pays_for_grades = pays_for_grades(experiment)
        self._pays_for_time = experiment.costs.device_hour is not None
        once = {(one.stage, one.fingerprint): one for one in manifests}.values()
        self.last = {manifest.stage: manifest for manifest in once}
        parts = [(one, its := counts(one, "computed"), *in_parts(one, its)) for one in once]
        self._rates = means((kind, spent[kind], its[kind]) for _, its, spent, _ in parts for kind in spent)
        self._rest = means((one.stage, left, 1) for one, _, _, left in parts)
        self._whole = means((one.stage, one.seconds, 1) for one in once)
        tokens = means(("grades", one.tokens, its.get("grades", 0)) for one, its, _, _ in parts if one.tokens)
        self._tokens = tokens.get("grades")

    def of_rows(self, amounts: dict[str, int]) -> Use:
        """What so many rows and steps take, by kind."""
        asked = {kind: n for kind, n in amounts.items() if n}
        seconds = sum(n * self._rates.get(kind, 0.0) for kind, n in asked.items())
        grades = asked.get("grades", 0) if self._pays_for_grades else 0
        timed = not self._pays_for_time or asked.keys() <= self._rates.keys()
        return Use(seconds, grades * (self._tokens or 0.0), timed and not (grades and self._tokens is None))

    def of_plan(self, plan: StagePlan, work: Work) -> Use:
        """What computing a stage will take; of one that waits for another as much as it took the last time, in
        whatever iteration, with all of its rows."""
        if plan.status not in ("stale", "missing", "waiting"):
            return NOTHING
        if plan.stage not in self.last:
            return self.of_rows(work.amounts) + Use(whole=work.exact and not self._pays_for_time)
        if STAGES[plan.stage].work is None:
            return Use(self._whole[plan.stage])
        last = self.last[plan.stage] if plan.manifest is None else plan.manifest
        amounts = work.amounts if work.exact else counts(last, "computed", "reused")
        return self.of_rows(amounts) + Use(self._rest[plan.stage])

    def saved(self, manifest: Manifest) -> Use:
        """What the rows would have taken that were there when this was computed."""
        return self.of_rows(counts(manifest, "reused"))


def means(found: Iterable[tuple[str, float, int]]) -> dict[str, float]:
    """Name -> what there is of it in all, by its number. found: (name, amount, number)."""
    amounts, numbers = defaultdict[str, float](float), defaultdict[str, int](int)
    for name, amount, number in found:
        amounts[name] += amount
        numbers[name] += number
    return {name: amounts[name] / number for name, number in numbers.items() if number}


def counts(manifest: Manifest, *which: str) -> dict[str, int]:
    """Rows by kind, those that were `computed`, `reused` or both; of steps all were computed."""
    work = {kind: manifest.work[kind] for kind in KINDS if kind in manifest.work}
    return {
        kind: (n if "computed" in which else 0) if isinstance(n, int) else sum(n[one] for one in which)
        for kind, n in work.items()
    }


def in_parts(manifest: Manifest, computed: dict[str, int]) -> tuple[dict[str, float], float]:
    """(seconds by kind of row, seconds of the rest). Kinds without a time of their own, such as steps, share what is
    left by their numbers, and nothing is left then."""
    spent = {kind: seconds for kind, seconds in manifest.row_seconds.items() if computed.get(kind)}
    left = max(manifest.seconds - sum(manifest.row_seconds.values()), 0.0)
    sharing = {kind: n for kind, n in computed.items() if n and kind not in spent}
    if not sharing:
        return spent, left
    each = left / sum(sharing.values())
    return {**spent, **{kind: n * each for kind, n in sharing.items()}}, 0.0


class Money:
    """An experiment's stages in money, as the store is now."""

    def __init__(self, project: Project, planner: LoopPlanner):
        self._project, self._planner = project, planner
        self.costs = project.experiment.costs

    @cached_property
    def measured(self) -> Measured:
        """By what the stages of this experiment point at."""
        return Measured(self._pointed(), self._project.experiment)

    def _pointed(self) -> Iterator[Manifest]:
        store, name = self._project.store, self._project.experiment.name
        for key in [BASE, *store.iterations(name)]:
            found = (store.pointed(name, key, stage) for stage in stages_of(key))
            yield from (manifest for manifest in found if manifest is not None)

    def of_plans(self, plans: Sequence[StagePlan], works: Sequence[Work]) -> list[Use]:
        return [self.measured.of_plan(plan, work) for plan, work in zip(plans, works, strict=True)]

    def of_next(self, key: str) -> Use:
        """What bringing an iteration up to date, opened or not, or base, will take."""
        plans = [self._planner.stage(key, name) for name in stages_of(key)]
        return total(self.of_plans(plans, [work_of(self._project, self._planner, plan) for plan in plans]))

    def spent(self) -> Use:
        """What this experiment's stages took in all, by the journal; of one that failed until it did."""
        return total(Use(event["seconds"], event.get("tokens", 0)) for event in self._events("computed", "failed"))

    def computed(self) -> set[str]:
        """Fingerprints of the results that this experiment computed itself, by the journal."""
        return {event["fingerprint"] for event in self._events("computed")}

    def _events(self, *names: str) -> Iterator[dict[str, Any]]:
        name = self._project.experiment.name
        return (event for event in self._project.store.events(*names) if event.get("experiment") == name)

    def overspends(self, key: str) -> str | None:
        """Why the budget does not allow an iteration to begin; None: it does, or none is set. What is unknown of its
        cost counts nothing."""
        budget = self._project.experiment.loop.budget
        if budget is None:
            return None
        spent, more = self.spent(), self.of_next(key)
        if spent.amount(self.costs) < budget and (spent + more).amount(self.costs) <= budget:
            return None
        return (
            f"{in_words(spent, self.costs)} of {in_currency(budget, self.costs)} are spent, and {key} would take "
            f"{in_words(more, self.costs, about=True)} more"
        )


@dataclass(frozen=True)
class Quote:
    """What plans will cost. uses: of each, in order."""

    costs: Costs
    uses: Sequence[Use]

    @property
    def amounts(self) -> list[str]:
        """In words; nothing for what takes nothing."""
        return ["" if use == NOTHING else in_words(use, self.costs, about=True) for use in self.uses]

    @property
    def total(self) -> str:
        return in_words(total(self.uses), self.costs, about=True)

    def added_to(self, entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Entries for JSON, each with its `money`: see `Use.as_json`."""
        return [{**its, "money": use.as_json(self.costs)} for its, use in zip(entries, self.uses, strict=True)]


def quote_of(project: Project, planner: LoopPlanner, plans: Sequence[StagePlan], works: Sequence[Work]) -> Quote | None:
    """None: the experiment has no prices."""
    money = Money(project, planner)
    return Quote(money.costs, money.of_plans(plans, works)) if money.costs.given else None


def in_words(use: Use, costs: Costs, *, about: bool = False) -> str:
    """`about 1.20 EUR`, `not known yet`, or both."""
    amount = use.amount(costs)
    if not use.whole and amount == 0:
        return "not known yet"
    text = f"{'about ' if about and amount else ''}{in_currency(amount, costs)}"
    return text if use.whole else f"{text} and what is not known yet"


def in_currency(amount: float, costs: Costs) -> str:
    return f"{amount_of(amount)} {costs.currency}"


def amount_of(amount: float) -> str:
    """With two digits after the point, or four of a small amount."""
    if 0 < amount < 0.0001:
        return "under 0.0001"
    return f"{amount:.4f}" if 0 < amount < 0.1 else f"{amount:.2f}"
