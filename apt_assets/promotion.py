"""What carries over from one iteration to the next: which adapter was promoted, and whether the loop goes on.

The engine knows no stage by name; this is the one place that knows what the gate's verdict means for what comes
after it. apt_assets/assets/sources.py makes inputs of it.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from apt_assets.engine.plan import BELOW, Planner, Status, Unsettled
from apt_assets.engine.stage import Stage
from apt_assets.settings.iterations import ADAPTER_PARTS, BASE, key_of, number_of
from resources.store.digest import digest_json
from resources.store.manifest import CorruptArtifact, Manifest
from resources.store.store import Store

APPROVED, DISAPPROVED = "approved", "disapproved"  # events of the journal
TRAINED = f"adapter_checkpoint/{ADAPTER_PARTS[1]}"  # the weights that a promoted adapter was made of, at any scale


def undecided(verdict: dict[str, Any]) -> bool:
    """Whether a person has to approve of what the gate passed, and nobody has decided."""
    return verdict["passed"] and "approval" in verdict and verdict["approval"] is None


def decisions(store: Store, experiment: str) -> list[dict[str, Any]]:
    """What people decided on verdicts of an experiment, the last one last: by its number, since machines differ in
    their clocks."""
    its = (event for event in store.events(APPROVED, DISAPPROVED) if event.get("experiment") == experiment)
    return sorted(its, key=lambda event: event.get("number", 0))


def decided_by_people(store: Store, experiment: str) -> dict[str, str]:
    """Adapter, as it was trained and by sha256 of its weights -> the last decision on it in an experiment, APPROVED or
    DISAPPROVED: of whatever verdict."""
    return {event["adapter"]: event["event"] for event in decisions(store, experiment) if "adapter" in event}


def refused_by_people(store: Store, experiment: str) -> set[str]:
    """The adapters on which the last of these decisions was a refusal: one that is decided on anew is not in use until
    somebody approves."""
    return {adapter for adapter, event in decided_by_people(store, experiment).items() if event == DISAPPROVED}


@dataclass
class LoopPlanner(Planner):
    """The planner of the loop.

    Iterations are decided in order, the lowest first, so that the time of a plan grows with their number
    and the depth of the calls does not.
    """

    _verdicts: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    _stopped: dict[str, str | None] = field(default_factory=dict)
    _promoted: dict[str, str | None] = field(default_factory=dict)
    _promoted_count: dict[str, int] = field(default_factory=dict)
    _decided: int = 0  # iterations 1..n that were looked at, in order

    def verdict(self, iteration: str) -> dict[str, Any] | None:
        """{passed, reason, checks, scale, ...} of the iteration's gate, None while it is not fresh. An iteration
        without bad cases to train on trains nothing: {passed: False, no_bad_cases: True, reason}. Where a person has
        to approve what the gate passed also `approval`: {event, by, reason, time}, None while nobody has decided; what
        was disapproved did not pass."""
        if iteration not in self._verdicts:
            self._verdicts[iteration] = self._decide(iteration)
        return self._verdicts[iteration]

    def promoted_before(self, iteration: str) -> str | None:
        """The latest earlier iteration whose gate passed; None: it starts from what the loop starts from.

        Raises Unsettled while an iteration in between has no fresh verdict.
        """
        if iteration not in self._promoted:
            self.decide_before(iteration)
            number = number_of(iteration)
            self._promoted[iteration] = self._promoted_until(key_of(number - 1)) if number > 1 else None
        return self._promoted[iteration]

    def waits(self, iteration: str) -> str | None:
        """For whom the iteration waits, which its gate passed; None: it does not, or not for a person."""
        verdict = self.verdict(iteration)
        if verdict is None or not undecided(verdict):
            return None
        people = ", ".join(self.experiment.owners) or "a person"
        return (
            f"iteration {iteration} passed its gate and waits for the approval of {people}: `apt-assets approve "
            f"{number_of(iteration)} --by NAME --reason TEXT`"
        )

    def to_approve(self, iteration: str) -> str:
        """What a person approves of an iteration with a verdict, as a digest: the verdict itself and the adapter."""
        adapter = self.fresh(iteration, "adapter_checkpoint").files
        return digest_json([self.fresh(iteration, "gate").data_version, [adapter[part] for part in ADAPTER_PARTS]])

    def withdrawn(self, iteration: str) -> bool:
        """Whether what the iteration promoted counts no more: its gate or a person refused it since, or the loop now
        ends before it. What is only out of date still counts."""
        return self.stage(iteration, "promoted_adapter").status in ("refused", "stopped")

    def scored_by(self, iteration: str) -> str:
        """The stage with the scores of what an iteration stands for: the gate, of an adapter that it passed at a
        smaller scale; else benchmark_scores, of the adapter as it was trained; base_scores of BASE. While the gate is
        not fresh, its last verdict counts if it was on the adapter that there is."""
        if iteration == BASE:
            return "base_scores"
        verdict = self.verdict(iteration)
        scale = self._last_scale(iteration) if verdict is None else verdict.get("scale", 1)
        return "benchmark_scores" if scale == 1 else "gate"

    def tells_of(self, iteration: str, promoted: Manifest) -> bool:
        """Whether the scores of `scored_by` are those of what the iteration promoted, which is in use until the
        iteration promotes another one: they may be of the one that was trained since."""
        stage = self.scored_by(iteration)
        scores, scale = self.stage(iteration, stage).manifest, promoted.facts.get("scale", 1)
        if scores is None or scores.inputs.get(TRAINED) != promoted.inputs.get(TRAINED):
            return False
        return scale == (scores.facts.get("scale", 1) if stage == "gate" else 1)

    def _last_scale(self, iteration: str) -> float:
        decided, scores = (self.stage(iteration, name).manifest for name in ("gate", "benchmark_scores"))
        if decided is None or scores is None or decided.inputs.get(TRAINED) != scores.inputs.get(TRAINED):
            return 1
        return float(decided.facts.get("scale", 1))

    def adapter_of(self, iteration: str) -> str:
        """The stage with the adapter that `scored_by` is of."""
        return "promoted_adapter" if self.scored_by(iteration) == "gate" else "adapter_checkpoint"

    def promoted_count(self, iteration: str) -> int:
        """How many earlier iterations passed their gate: the length of the adapter's chain."""
        if iteration not in self._promoted_count:
            earlier = self.promoted_before(iteration)
            self._promoted_count[iteration] = 0 if earlier is None else 1 + self.promoted_count(earlier)
        return self._promoted_count[iteration]

    def stopped(self, iteration: str) -> str | None:
        """Why the loop ends before this iteration, if it does: the one before was not promoted and
        no file landed since, so there is nothing new to learn from."""
        if iteration not in self._stopped:
            self.decide_before(iteration)
            self._stopped[iteration] = self._work_out_stopped(iteration)
        return self._stopped[iteration]

    def no_bad_cases(self, iteration: str) -> str | None:
        """The reason why the iteration trains nothing, if it found no bad case and does not train on every row."""
        if self._none_left("bad_cases", "rows", iteration):
            return f"iteration {iteration} found no bad case: there is nothing to train on"
        return None

    def all_doubtful(self, iteration: str) -> str | None:
        """Likewise, if it found some and left all of them out."""
        most = self.experiment.pairs.max_doubt
        if most is not None and self._none_left("preference_pairs", "bad_cases", iteration):
            return (
                f"iteration {iteration} leaves out all bad cases, whose golds are more doubtful than pairs.max_doubt = "
                f"{most:g}: there is nothing to train on"
            )
        return None

    def nothing_to_train(self, iteration: str) -> str | None:
        """Either of these."""
        return self.no_bad_cases(iteration) or self.all_doubtful(iteration)

    def _none_left(self, stage: str, fact: str, iteration: str) -> bool:
        """Whether a fresh stage counted no bad case, where training is on these."""
        if self.experiment.pairs.every_row:
            return False
        plan = self.stage(iteration, stage)
        return plan.status == "fresh" and plan.manifest is not None and plan.manifest.facts.get(fact) == 0

    # -- asked by the engine ---------------------------------------------------------------------

    def decide_before(self, iteration: str) -> None:
        """Look at the iterations before this one in order: each then finds the one before it decided,
        where a chain of calls down to the first one would end at Python's limit."""
        number = 0 if iteration == BASE else number_of(iteration)
        while self._decided < number - 1:
            self._decided += 1  # first: deciding it asks for its own stages
            key = key_of(self._decided)
            self.stopped(key)
            self.verdict(key)

    def shut(self, iteration: str, stage: Stage) -> tuple[Status, str] | None:
        if iteration == BASE:
            return None
        if reason := self.stopped(iteration):
            return "stopped", reason
        if "bad_cases" in BELOW[stage.name] and (nothing := self.no_bad_cases(iteration)):
            return "stopped", nothing
        if "preference_pairs" in BELOW[stage.name] and (nothing := self.all_doubtful(iteration)):
            return "stopped", nothing
        if stage.name == "promoted_adapter" and (verdict := self.verdict(iteration)):
            if not verdict["passed"]:
                return "refused", verdict["reason"]
            if waits := self.waits(iteration):
                return "held", waits
        return None

    def nothing_to_do(self, iteration: str) -> str | None:
        return None if iteration == BASE else self.nothing_to_train(iteration) or self.waits(iteration)

    # -- how it is worked out --------------------------------------------------------------------

    def _decide(self, iteration: str) -> dict[str, Any] | None:
        if nothing := self.nothing_to_train(iteration):
            return {"passed": False, "no_bad_cases": True, "reason": nothing}
        plan = self.stage(iteration, "gate")
        if plan.status != "fresh" or plan.manifest is None:
            return None
        try:
            found = json.loads((self.store.verify(plan.manifest) / "verdict.json").read_text(encoding="utf-8"))
        except (CorruptArtifact, OSError):
            return None  # damaged: the next run notices, quarantines and decides again
        if not found["passed"] or self.experiment.gate.approval == "none":
            return found
        approval = self._approvals.get(self.to_approve(iteration))
        if approval and approval["event"] == DISAPPROVED:
            found |= {"passed": False, "reason": f"{approval['by']} disapproved of it: {approval['reason']}"}
        return {**found, "approval": approval}

    @cached_property
    def _approvals(self) -> dict[str, dict[str, Any]]:
        """What people decided last in this experiment, by what they decided on."""
        return {event["of"]: event for event in decisions(self.store, self.experiment.name)}

    def _promoted_until(self, iteration: str) -> str | None:
        """As `promoted_before`, this iteration included."""
        verdict = self.verdict(iteration)
        if verdict is None:
            raise Unsettled(f"iteration {iteration} is not up to date")
        if waits := self.waits(iteration):
            raise Unsettled(waits)
        return iteration if verdict["passed"] else self.promoted_before(iteration)

    def _work_out_stopped(self, iteration: str) -> str | None:
        number = number_of(iteration)
        if number < 2:
            return None
        before = key_of(number - 1)
        if (reason := self.stopped(before)) is not None:
            return reason
        verdict = self.verdict(before)
        if verdict is None or verdict["passed"] or self.landed(iteration) != self.landed(before):
            return None
        if verdict.get("no_bad_cases"):
            return f"{verdict['reason']} and no new data has landed"
        return f"the gate refused iteration {before} ({verdict['reason']}) and no new data has landed"
