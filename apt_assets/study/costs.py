"""What the runs of a study cost, as if nothing had been shared between them."""

from dataclasses import dataclass
from typing import Any

from apt_assets.study.statistics import over_seeds
from apt_assets.study.wanted import Outcome

COSTS = ("labels", "labels_trained", "rows", "tokens", "steps", "cpu_seconds")
# The rows that a stage may have taken over from another run, of which the time is not its own.
ROWS_OF = {
    "eval_predictions": "answers",
    "similar_predictions": "answers",
    "preference_pairs": "answers",
    "anchor_texts": "anchors",
}


@dataclass(frozen=True)
class Costs:
    """What a run cost. Added to those of the run that it started from, what both read or computed counts once.

    seconds: of the processor, by the fingerprint of the stage that took them.
    """

    labels: frozenset[str]
    labels_trained: frozenset[str]
    rows: int
    tokens: int
    steps: int
    seconds: dict[str, float]

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(
            self.labels | other.labels,
            self.labels_trained | other.labels_trained,
            self.rows + other.rows,
            self.tokens + other.tokens,
            self.steps + other.steps,
            self.seconds | other.seconds,
        )

    @property
    def cpu_seconds(self) -> float:
        return sum(self.seconds.values())

    def amount(self, name: str) -> float:
        value = getattr(self, name)
        return len(value) if isinstance(value, frozenset) else value


NOTHING = Costs(frozenset(), frozenset(), 0, 0, 0, {})


def costs_of(outcome: Outcome, rates: dict[str, float]) -> Costs:
    return Costs(
        frozenset(outcome["labels"]),
        frozenset(outcome["labels_trained"]),
        outcome["rows"],
        outcome["tokens"],
        outcome["steps"],
        cold_seconds(outcome, rates),
    )


def means(costs: dict[int, Costs]) -> dict[str, Any]:
    """Over seeds, of each of COSTS."""
    return {name: over_seeds([its.amount(name) for its in costs.values()]) for name in COSTS}


def seconds_a_row(outcomes: list[dict[str, Any]]) -> dict[str, float]:
    """Kind of row -> processor seconds of one, from the stages that computed all of theirs."""
    spent: dict[str, float] = {}
    rows: dict[str, int] = {}
    for part in (part for outcome in outcomes for part in outcome["parts"]):
        kind = ROWS_OF.get(part["stage"], "")
        work = part["work"].get(kind)
        if work and work["computed"] and not work["reused"]:
            spent[kind] = spent.get(kind, 0.0) + part["cpu_seconds"]
            rows[kind] = rows.get(kind, 0) + work["computed"]
    return {kind: spent[kind] / rows[kind] for kind in spent}


def cold_seconds(outcome: dict[str, Any], rates: dict[str, float]) -> dict[str, float]:
    """Processor seconds of the recipe by fingerprint of stage, had nothing been shared with other runs: own seconds,
    plus the rows taken over at what a row costs.

    A pair's reference log-probabilities, when taken over, count as a third of an epoch of its training: one pass
    forward, where training is one forward and one backward of twice that (Kaplan et al. 2020, arXiv 2001.08361).
    """
    seconds = {}
    for part in outcome["parts"]:
        own, work = part["cpu_seconds"], part["work"]
        kind = ROWS_OF.get(part["stage"], "")
        if kind in work:
            own += max(work[kind]["reused"] - part["answered_before"], 0) * rates.get(kind, 0.0)
        references = work.get("references")
        if references and references["reused"]:
            pairs = references["reused"] + references["computed"]
            trained = 3 * outcome["epochs"] * pairs
            own *= (trained + pairs) / (trained + references["computed"])
        seconds[part["fingerprint"]] = own
    return seconds
