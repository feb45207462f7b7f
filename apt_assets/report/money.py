"""What an experiment's results cost and what reuse saved, for people; nothing of it where there are no prices."""

from typing import Any

from apt_assets.engine.plan import stages_of
from apt_assets.loop.money import NOTHING, Measured, Money, Use, in_currency, in_words, total
from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.report.look import ProjectLook
from apt_assets.settings.around import Costs
from apt_assets.settings.iterations import BASE
from resources.store.manifest import Manifest


def cost_and_saving(measured: Measured, manifest: Manifest, *, reused: bool) -> tuple[Use, Use]:
    """(what a result took, what was saved by rows that were there); of one that is `reused` all is saved."""
    took = Use(manifest.seconds, manifest.tokens)
    return (NOTHING, took) if reused else (took, measured.saved(manifest))


def costs_of(look: ProjectLook, keys: list[str]) -> dict[str, Any]:
    """{currency, iterations: {key: {cost, device, grader, saved}}, spent, budget, in_words}, amounts in the currency;
    base first. Of results that are shown; `spent` is by the journal, with what is not shown any more."""
    project = look.project
    money, iterations = Money(project, look.planner), {}
    own = money.computed()
    for key in [BASE, *keys]:
        parts = []
        for name in stages_of(key):
            if manifest := look.manifest(key, name):
                parts.append(cost_and_saving(money.measured, manifest, reused=manifest.fingerprint not in own))
                own.discard(manifest.fingerprint)  # an iteration that has the same result reuses it
        cost, saved = total(cost for cost, _ in parts), total(saved for _, saved in parts)
        iterations[key] = {
            "cost": cost.amount(money.costs),
            "device": cost.of_device(money.costs),
            "grader": cost.of_grader(money.costs),
            "saved": saved.amount(money.costs),
        }
    spent = money.spent()
    return {
        "currency": money.costs.currency,
        "iterations": iterations,
        "spent": spent.amount(money.costs),
        "budget": project.experiment.loop.budget,
        "in_words": spent_in_words(project, spent),
    }


def spent_in_words(project: Project, spent: Use) -> str:
    costs, budget = project.experiment.costs, project.experiment.loop.budget
    of_budget = "" if budget is None else f" of a budget of {in_currency(budget, costs)}"
    return f"Spent on this experiment in all: {in_words(spent, costs)}{of_budget}."


def shown_in_dagster(project: Project, planner: LoopPlanner, status: str, manifest: Manifest) -> dict[str, float]:
    """{cost_EUR, saved_EUR} of a materialisation, by the currency."""
    money = Money(project, planner)
    if not money.costs.given:
        return {}
    parts = cost_and_saving(money.measured, manifest, reused=status == "hit")
    names = (f"cost_{money.costs.currency}", f"saved_{money.costs.currency}")
    return {name: round(use.amount(money.costs), 6) for name, use in zip(names, parts, strict=True)}


class Bill:
    """What a run spends, from when this is made on."""

    def __init__(self, project: Project):
        self._project = project
        self._costs: Costs = project.experiment.costs
        self._before = self._spent() if self._costs.given else NOTHING

    def _spent(self) -> Use:
        return Money(self._project, self._project.planner()).spent()

    def lines(self) -> list[str]:
        """For people; none without prices."""
        if not self._costs.given:
            return []
        spent = self._spent()
        return [f"this run cost {in_words(self._since(spent), self._costs)}. {spent_in_words(self._project, spent)}"]

    def as_json(self) -> dict[str, Any]:
        """{money: of this run, see `Use.as_json`}; {} without prices."""
        return {"money": self._since(self._spent()).as_json(self._costs)} if self._costs.given else {}

    def _since(self, spent: Use) -> Use:
        return Use(spent.seconds - self._before.seconds, spent.tokens - self._before.tokens)
