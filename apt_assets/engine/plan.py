"""What decides that a stage is stale, and why.

    fingerprint = H(stage, code, settings, {input: data version}, identities, library versions)

A stage of an iteration is fresh if a trace for its present fingerprint is in the store
(constructive traces, Mokhov et al., "Build systems a la carte", 2018). Because an input counts by
the content it has, a stage that recomputes to the same content leaves everything below it fresh
(early cut-off). If an input is itself not fresh, the fingerprint cannot be known yet: the stage
waits for it.

Pure: reads the store's manifests and the world's digests, changes nothing.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from apt_assets.engine.stage import STAGES, Stage
from apt_assets.settings.experiment import Experiment
from apt_assets.settings.iterations import ADAPTER_PARTS, BASE, key_of, number_of
from resources.store.digest import digest_json
from resources.store.manifest import CorruptArtifact, Manifest
from resources.store.store import Store

Status = Literal["fresh", "stale", "missing", "waiting", "refused", "stopped"]
# Raised when artifacts get another meaning without their inputs, settings or code saying so. 1: the first. 2: code
# counts by module, and modules have other names: everything is computed once more.
ENGINE_VERSION = 2
# (stage, digest of what is declared, inputs) -> the fingerprint: a digest of the same, worked out once.
FINGERPRINTS: dict[tuple[Any, ...], str] = {}


class World(Protocol):
    """What lies outside the store, by content digest."""

    def landing_files(self, iteration: str, known: dict[str, str]) -> dict[str, str]:
        """Landed file -> digest, of the iteration's snapshot, or of all files now for BASE.

        known: digests of files that were looked up before, which are taken from there; it is added to.
        """
        ...

    def identity(self, name: str) -> str:
        """Digest of the base model, the initial adapter, the encoder, the grader or the benchmark tasks."""
        ...

    def code(self, start: str) -> dict[str, str]:
        """Module -> digest of all code that the module `start` imports, its own included."""
        ...


class Unsettled(Exception):
    """An input has no present content; the message says which."""


@dataclass(frozen=True)
class Change:
    """One fact behind a fingerprint that differs from the last time.

    kind: settings, inputs, identities, libraries or code. old or new is None where it was not there.
    """

    kind: str
    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        label = f"code of {self.name}" if self.kind == "code" else self.name
        return f"{label}: {shorten(self.old)} -> {shorten(self.new)}"


@dataclass(frozen=True)
class StagePlan:
    """One stage of one iteration: its status, why, and what it would reuse.

    note: why it is not fresh, where no change is the reason: never computed, what it waits for, why
        it is refused or stopped.
    changes: what differs from when the stage was last computed here; empty when fresh.
    facts: what the fingerprint is of (settings, inputs, identities, libraries, code); None, as the
        fingerprint is, while an input has no present content.
    manifest: of the artifact it has: of this fingerprint if fresh, else the last one.
    """

    iteration: str
    stage: str
    status: Status
    note: str = ""
    changes: tuple[Change, ...] = ()
    fingerprint: str | None = None
    facts: dict[str, Any] | None = None
    manifest: Manifest | None = None

    @property
    def causes(self) -> list[str]:
        """One line each, such as `training.beta: 0.1 -> 0.2`; empty when fresh."""
        return [*([self.note] if self.note else []), *(str(change) for change in self.changes)]

    @property
    def inputs(self) -> dict[str, str]:
        return self.facts["inputs"] if self.facts else {}

    def as_json(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "stage": self.stage,
            "status": self.status,
            "causes": self.causes,
            "fingerprint": self.fingerprint,
            "data_version": self.manifest.data_version if self.manifest else None,
        }


@dataclass
class Planner:
    """Plans of one experiment over one store; every answer is worked out once and kept.

    Iterations are decided in order, the lowest first, so that the time of a plan grows with their number
    and the depth of the calls does not.
    """

    experiment: Experiment
    store: Store
    world: World
    _plans: dict[tuple[str, str], StagePlan] = field(default_factory=dict)
    _verdicts: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    _stopped: dict[str, str | None] = field(default_factory=dict)
    _promoted: dict[str, str | None] = field(default_factory=dict)
    _promoted_count: dict[str, int] = field(default_factory=dict)
    _decided: int = 0  # iterations 1..n that were looked at, in order
    _landed: dict[str, dict[str, str]] = field(default_factory=dict)
    _file_digests: dict[str, str] = field(default_factory=dict)
    _declared: dict[str, dict[str, Any]] = field(default_factory=dict)
    _declared_digest: dict[str, str] = field(default_factory=dict)

    def plan(self, iterations: int) -> list[StagePlan]:
        """Every stage of base and of iterations 1..n, in the order in which they would run."""
        keys = [BASE, *(key_of(t) for t in range(1, iterations + 1))]
        return [self.stage(key, name) for key in keys for name in stages_of(key)]

    def stage(self, iteration: str, name: str) -> StagePlan:
        """The plan of one stage; `name` must be a stage of that kind of iteration."""
        key = (iteration, name)
        if key not in self._plans:
            self._decide_before(iteration)
            self._plans[key] = self._work_out(iteration, STAGES[name])
        return self._plans[key]

    def out_of_date(self, iteration: str) -> list[StagePlan]:
        """Stages of the iteration that have to run: stale, missing, or waiting for one that has to."""
        plans = [self.stage(iteration, name) for name in stages_of(iteration)]
        return [plan for plan in plans if plan.status in ("stale", "missing", "waiting")]

    # -- the loop --------------------------------------------------------------------------------

    def verdict(self, iteration: str) -> dict[str, Any] | None:
        """{passed, reason, ...} of the iteration's gate, None while it is not fresh. An iteration
        without bad cases trains nothing, unless it trains on every row: {passed: False, no_bad_cases: True, reason}."""
        if iteration not in self._verdicts:
            self._verdicts[iteration] = self._decide(iteration)
        return self._verdicts[iteration]

    def promoted_before(self, iteration: str) -> str | None:
        """The latest earlier iteration whose gate passed; None: it starts from what the loop starts from.

        Raises Unsettled while an iteration in between has no fresh verdict.
        """
        if iteration not in self._promoted:
            self._decide_before(iteration)
            number = number_of(iteration)
            self._promoted[iteration] = self._promoted_until(key_of(number - 1)) if number > 1 else None
        return self._promoted[iteration]

    def _promoted_until(self, iteration: str) -> str | None:
        """As `promoted_before`, this iteration included."""
        verdict = self.verdict(iteration)
        if verdict is None:
            raise Unsettled(f"iteration {iteration} is not up to date")
        return iteration if verdict["passed"] else self.promoted_before(iteration)

    def promoted_count(self, iteration: str) -> int:
        """How many earlier iterations passed their gate: the length of the adapter's chain."""
        if iteration not in self._promoted_count:
            earlier = self.promoted_before(iteration)
            self._promoted_count[iteration] = 0 if earlier is None else 1 + self.promoted_count(earlier)
        return self._promoted_count[iteration]

    def reference(self, iteration: str) -> tuple[str, str]:
        """(stage, iteration) of the scores that the gate's domain check compares with."""
        earlier = self.promoted_before(iteration)
        return ("base_scores", BASE) if earlier is None else ("benchmark_scores", earlier)

    def stopped(self, iteration: str) -> str | None:
        """Why the loop ends before this iteration, if it does: the one before was not promoted and
        no file landed since, so there is nothing new to learn from."""
        if iteration not in self._stopped:
            self._decide_before(iteration)
            self._stopped[iteration] = self._work_out_stopped(iteration)
        return self._stopped[iteration]

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

    def _decide_before(self, iteration: str) -> None:
        """Look at the iterations before this one in order: each then finds the one before it decided,
        where a chain of calls down to the first one would end at Python's limit."""
        number = 0 if iteration == BASE else number_of(iteration)
        while self._decided < number - 1:
            self._decided += 1  # first: deciding it asks for its own stages
            key = key_of(self._decided)
            self.stopped(key)
            self.verdict(key)

    def landed(self, iteration: str) -> dict[str, str]:
        """Landed file -> digest of the iteration's snapshot, asked of the world once."""
        if iteration not in self._landed:
            self._landed[iteration] = self.world.landing_files(iteration, self._file_digests)
        return self._landed[iteration]

    # -- one stage -------------------------------------------------------------------------------

    def declared(self, stage: Stage) -> dict[str, Any]:
        """The facts behind a fingerprint that do not depend on the iteration."""
        if stage.name not in self._declared:
            self._declared[stage.name] = {
                "settings": stage.settings_slice(self.experiment),
                "identities": {name: self.world.identity(name) for name in stage.identities},
                "libraries": {**stage.library_versions(), **stage.chosen_versions(self.experiment)},
                "code": self.world.code(stage.code),
            }
        return self._declared[stage.name]

    def _work_out(self, iteration: str, stage: Stage) -> StagePlan:
        where = (iteration, stage.name)
        if iteration != BASE and (reason := self.stopped(iteration)):
            return StagePlan(*where, "stopped", reason, manifest=self._last(*where))
        inputs: dict[str, str] = {}
        unsettled = ""
        for name in stage.inputs:
            try:
                inputs[name] = self._input(iteration, name)
            except Unsettled as error:
                unsettled = unsettled or str(error)
        if "bad_cases" in BELOW[stage.name] and (nothing := self.no_bad_cases(iteration)):
            return StagePlan(*where, "stopped", nothing, manifest=self._last(*where))
        facts = {**self.declared(stage), "inputs": inputs}
        if unsettled:
            last = self._last(*where)
            own = differences(last, facts, known_inputs_only=True) if last else ()
            return StagePlan(*where, "waiting", unsettled, own, manifest=last)
        if stage.name == "promoted_adapter":
            verdict = self.verdict(iteration)
            if verdict is not None and not verdict["passed"]:
                return StagePlan(*where, "refused", verdict["reason"])
        fingerprint = self._fingerprint(stage, facts)
        if found := self.store.lookup(stage.name, fingerprint):
            return StagePlan(*where, "fresh", fingerprint=fingerprint, facts=facts, manifest=found)
        last = self._last(*where)
        if last is None:
            lost = self.store.unreadable(self.experiment.name, *where)
            note = "its manifest is damaged, or of another version" if lost else "never computed"
            return StagePlan(*where, "missing", note, (), fingerprint, facts)
        changes = differences(last, facts)
        note = "" if changes else "its artifact is gone from the store"
        return StagePlan(*where, "stale", note, changes, fingerprint, facts, last)

    def _fingerprint(self, stage: Stage, facts: dict[str, Any]) -> str:
        if stage.name not in self._declared_digest:
            self._declared_digest[stage.name] = digest_json([ENGINE_VERSION, self.declared(stage)])
        known = (stage.name, self._declared_digest[stage.name], *facts["inputs"].items())
        if known not in FINGERPRINTS:
            FINGERPRINTS[known] = digest_json({"stage": stage.name, "engine": ENGINE_VERSION, **facts})
        return FINGERPRINTS[known]

    def _last(self, iteration: str, stage: str) -> Manifest | None:
        return self.store.pointed(self.experiment.name, iteration, stage)

    def _input(self, iteration: str, name: str) -> str:
        """The present data version of an input. Raises Unsettled if it has none yet."""
        match name:
            case "iteration":
                return iteration
            case "landing_files":
                return digest_json(self.landed(iteration))
            case "landing_folder":
                return digest_json(self.landed(BASE))
            case "promoted_count":
                return str(self.promoted_count(iteration))
            case "previous_adapter":
                return self.adapter_version(iteration)
            case "reference_scores":
                stage, where = self.reference(iteration)
                return self._fresh(where, stage).files["domain_items.parquet"]
        producer, _, part = name.partition("/")
        manifest = self._fresh(iteration if STAGES[producer].partitioned else BASE, producer)
        return manifest.files[part] if part else manifest.data_version

    def adapter_version(self, iteration: str) -> str:
        """Content of the adapter that the iteration starts from; "none": the base model itself."""
        earlier = self.promoted_before(iteration)
        if earlier is None:
            return self.initial_adapter
        files = self._fresh(earlier, "adapter_checkpoint").files
        return digest_json([files[part] for part in ADAPTER_PARTS])

    @cached_property
    def initial_adapter(self) -> str:
        """Content of the adapter that the loop starts from; "none": it starts from the base model."""
        return self.world.identity("initial_adapter")

    def _fresh(self, iteration: str, name: str) -> Manifest:
        plan = self.stage(iteration, name)
        if plan.status != "fresh" or plan.manifest is None:
            raise Unsettled(f"{name} of {iteration} is {plan.status}")
        return plan.manifest

    def no_bad_cases(self, iteration: str) -> str | None:
        """The reason why the iteration trains nothing, if it found no bad case and does not train on every row."""
        if self.experiment.pairs.every_row:
            return None
        plan = self.stage(iteration, "bad_cases")
        if plan.status == "fresh" and plan.manifest and plan.manifest.facts.get("rows") == 0:
            return f"iteration {iteration} found no bad case: there is nothing to train on"
        return None

    def _decide(self, iteration: str) -> dict[str, Any] | None:
        if nothing := self.no_bad_cases(iteration):
            return {"passed": False, "no_bad_cases": True, "reason": nothing}
        plan = self.stage(iteration, "gate")
        if plan.status != "fresh" or plan.manifest is None:
            return None
        try:
            return json.loads((self.store.verify(plan.manifest) / "verdict.json").read_text(encoding="utf-8"))
        except (CorruptArtifact, OSError):
            return None  # damaged: the next run notices, quarantines and decides again


class _Below(dict):
    """Stage -> every stage it depends on within its iteration, worked out when first asked."""

    def __missing__(self, name: str) -> set[str]:
        direct = [stage for stage in STAGES[name].input_stages() if stage in STAGES]
        self[name] = set(direct).union(*(self[stage] for stage in direct))
        return self[name]


BELOW: dict[str, set[str]] = _Below()


def stages_of(iteration: str) -> list[str]:
    """Stage names of an iteration, or of BASE, in an order in which they can run."""
    return [name for name in in_order() if STAGES[name].partitioned == (iteration != BASE)]


def in_order() -> list[str]:
    """All stages, each after its inputs; among the ready ones, in order of declaration."""
    done: list[str] = []
    while len(done) < len(STAGES):
        for name, stage in STAGES.items():
            ready = all(i not in STAGES or i in done for i in stage.input_stages())
            if name not in done and ready:
                done.append(name)
                break
        else:
            raise ValueError(f"the stages depend on each other in a circle: {set(STAGES) - set(done)}")
    return done


def differences(last: Manifest, facts: dict[str, Any], *, known_inputs_only: bool = False) -> tuple[Change, ...]:
    """What differs between the facts behind `last` and those of now."""
    changes = []
    for kind in ("settings", "inputs", "identities", "libraries", "code"):
        old, new = getattr(last, kind), facts[kind]
        names = new.keys() if kind == "inputs" and known_inputs_only else old.keys() | new.keys()
        changes += [Change(kind, n, old.get(n), new.get(n)) for n in sorted(names) if old.get(n) != new.get(n)]
    return tuple(changes)


def shorten(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    is_digest = len(text) in (16, 64) and all(c in "0123456789abcdef" for c in text)
    return text[:8] if is_digest else text[:60] + ("..." if len(text) > 60 else "")
