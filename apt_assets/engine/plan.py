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
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from apt_assets.engine.stage import SOURCES, STAGES, Stage
from apt_assets.settings.experiment import Experiment
from apt_assets.settings.iterations import BASE, key_of
from resources.store.digest import digest_json
from resources.store.manifest import Manifest
from resources.store.store import Store

if TYPE_CHECKING:
    from apt_assets.engine.world import World

Status = Literal["fresh", "stale", "missing", "waiting", "refused", "held", "stopped"]
# Raised when artifacts get another meaning without their inputs, settings or code saying so. 1: the first. 2: code
# counts by module, and modules have other names: everything is computed once more.
ENGINE_VERSION = 2
# (stage, digest of what is declared, inputs) -> the fingerprint: a digest of the same, worked out once.
FINGERPRINTS: dict[tuple[Any, ...], str] = {}


class Unsettled(Exception):
    """An input has no present content; the message says which."""


@dataclass(frozen=True)
class Change:
    """One fact behind a fingerprint that differs from the last time.

    kind: settings, inputs, identities, libraries, code or engine. old or new is None where it was not there.
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
        it is refused, held or stopped.
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

    What carries over from one iteration to the next, and what stops a stage, is up to a subclass.

    forced: (iteration, stage) of what is to be computed although it may be fresh; emptied as that is done.
    """

    experiment: Experiment
    store: Store
    world: "World"
    forced: set[tuple[str, str]] = field(default_factory=set)
    _plans: dict[tuple[str, str], StagePlan] = field(default_factory=dict)
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
            self.decide_before(iteration)
            self._plans[key] = self._work_out(iteration, STAGES[name])
        return self._plans[key]

    def out_of_date(self, iteration: str) -> list[StagePlan]:
        """Stages of the iteration that have to run: stale, missing, or waiting for one that has to."""
        plans = [self.stage(iteration, name) for name in stages_of(iteration)]
        return [plan for plan in plans if plan.status in ("stale", "missing", "waiting")]

    # -- what the loop decides (apt_assets/promotion.py) -----------------------------------------

    def decide_before(self, iteration: str) -> None:
        """Work out what earlier iterations came to, as far as this one depends on it."""

    def shut(self, iteration: str, stage: Stage) -> tuple[Status, str] | None:
        """(stopped, refused or held, why) of a stage that is not to run whatever its inputs are; None: it may."""
        return None

    def nothing_to_do(self, iteration: str) -> str | None:
        """Why the iteration ends before its last stage; None: it does not."""
        return None

    # -- one stage -------------------------------------------------------------------------------

    def landed(self, iteration: str) -> dict[str, str]:
        """Landed file -> digest of the iteration's snapshot, asked of the world once."""
        if iteration not in self._landed:
            self._landed[iteration] = self.world.landing_files(iteration, self._file_digests)
        return self._landed[iteration]

    def declared(self, stage: Stage) -> dict[str, Any]:
        """The facts behind a fingerprint that do not depend on the iteration."""
        if stage.name not in self._declared:
            self._declared[stage.name] = {
                "settings": stage.settings_slice(self.experiment),
                "identities": {name: self.world.identity(name) for name in stage.identities},
                "libraries": stage.library_versions(self.experiment),
                "code": self.world.code(stage.code),
            }
        return self._declared[stage.name]

    def _work_out(self, iteration: str, stage: Stage) -> StagePlan:
        where = (iteration, stage.name)
        if shut := self.shut(iteration, stage):
            return StagePlan(*where, *shut, manifest=self._last(*where))
        inputs: dict[str, str] = {}
        unsettled = ""
        for name in stage.inputs:
            try:
                inputs[name] = self._input(iteration, name)
            except Unsettled as error:
                unsettled = unsettled or str(error)
        facts = {**self.declared(stage), "inputs": inputs}
        if unsettled:
            last = self._last(*where)
            own = differences(last, facts, known_inputs_only=True) if last else ()
            return StagePlan(*where, "waiting", unsettled, own, manifest=last)
        fingerprint = self._fingerprint(stage, facts)
        if where in self.forced:
            return StagePlan(
                *where, "stale", "it was asked for (run --force)", (), fingerprint, facts, self._last(*where)
            )
        if found := self.store.lookup(stage.name, fingerprint):
            return StagePlan(*where, "fresh", fingerprint=fingerprint, facts=facts, manifest=found)
        last = self._last(*where)
        if last is None:
            lost = self.store.unreadable(self.experiment.name, *where)
            note = "its manifest is damaged, or of another version" if lost else "never computed"
            return StagePlan(*where, "missing", note, (), fingerprint, facts)
        changes = differences(last, facts)
        note = "" if changes else "its artifact is gone from the store"
        if last.engine != ENGINE_VERSION:
            note = "made by an earlier version: all is computed once more"
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
        if name in SOURCES:
            return SOURCES[name].version(self, iteration)
        producer, _, part = name.partition("/")
        manifest = self.fresh(*made_by(iteration, producer))
        return manifest.files[part] if part else manifest.data_version

    def producer(self, iteration: str, given: str) -> tuple[str, str] | None:
        """(iteration, stage) that an input, named without a part, is a result of; None: it comes from outside the
        store. Raises Unsettled while that is not known."""
        return made_by(iteration, given) if given in STAGES else SOURCES[given].came_from(self, iteration)

    def produced(self, iteration: str, given: str) -> Manifest | None:
        """The present manifest of what `producer` names, up to date or not."""
        where = self.producer(iteration, given)
        return None if where is None else self.stage(*where).manifest

    def fresh(self, iteration: str, name: str) -> Manifest:
        """The manifest of a stage that is up to date. Raises Unsettled if it is not."""
        plan = self.stage(iteration, name)
        if plan.status != "fresh" or plan.manifest is None:
            raise Unsettled(f"{name} of {iteration} is {plan.status}")
        return plan.manifest


class _Below(dict):
    """Stage -> every stage it depends on within its iteration, worked out when first asked."""

    def __missing__(self, name: str) -> set[str]:
        direct = STAGES[name].input_stages()
        self[name] = set(direct).union(*(self[stage] for stage in direct))
        return self[name]


BELOW: dict[str, set[str]] = _Below()


def made_by(iteration: str, name: str) -> tuple[str, str]:
    """(iteration, stage) of the stage that one of an iteration reads under this name."""
    return (iteration if STAGES[name].partitioned else BASE), name


def stages_of(iteration: str) -> list[str]:
    """Stage names of an iteration, or of BASE, in an order in which they can run."""
    return [name for name in in_order() if STAGES[name].partitioned == (iteration != BASE)]


def in_order() -> tuple[str, ...]:
    """All stages, each after its inputs; among the ready ones, in order of declaration."""
    return order_of(tuple(STAGES))


@cache  # a plan asks for it once for each iteration
def order_of(names: tuple[str, ...]) -> tuple[str, ...]:
    done: list[str] = []
    while len(done) < len(names):
        ready = (n for n in names if n not in done and all(i in done for i in STAGES[n].input_stages()))
        if (following := next(ready, None)) is None:
            raise ValueError(f"the stages depend on each other in a circle: {set(names) - set(done)}")
        done.append(following)
    return tuple(done)


def differences(last: Manifest, facts: dict[str, Any], *, known_inputs_only: bool = False) -> tuple[Change, ...]:
    """What differs between the facts behind `last` and those of now; of an earlier engine that alone, since all
    that it noted has other names."""
    if last.engine != ENGINE_VERSION:
        return (Change("engine", "engine", str(last.engine), str(ENGINE_VERSION)),)
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
