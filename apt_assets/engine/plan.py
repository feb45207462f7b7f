"""What decides that a stage is stale, and why.

    fingerprint = H(stage, version, settings, {input: data version}, identities, library versions)

A stage of an iteration is fresh if a trace for its present fingerprint is in the store
(constructive traces, Mokhov et al., "Build systems a la carte", 2018). Because an input counts by
the content it has, a stage that recomputes to the same content leaves everything below it fresh
(early cut-off). If an input is itself not fresh, the fingerprint cannot be known yet: the stage
waits for it.

Pure: reads the store's manifests and the world's digests, changes nothing.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from apt_assets.engine.stages import BASE, STAGES, Stage
from apt_assets.experiment import Experiment
from apt_assets.partitions import key_of, number_of
from resources.artifact_store import ArtifactStore, Manifest
from resources.digest import digest_json

Status = Literal["fresh", "stale", "missing", "waiting", "refused", "stopped"]


class World(Protocol):
    """What lies outside the store, by content digest."""

    def landing_files(self, iteration: str) -> dict[str, str]:
        """Landed file -> digest, of the iteration's snapshot, or of all files now for BASE."""
        ...

    def identity(self, name: str) -> str:
        """Digest of the model, the encoder or the benchmark tasks."""
        ...


@dataclass(frozen=True)
class StagePlan:
    """One stage of one iteration: its status, why, and what it would reuse.

    causes: one line each, such as `training.beta: 0.1 -> 0.2`; empty when fresh.
    facts: what the fingerprint is of (version, settings, inputs, identities, libraries); None, as
        the fingerprint is, while an input has no present content.
    """

    iteration: str
    stage: str
    status: Status
    causes: tuple[str, ...]
    fingerprint: str | None
    facts: dict[str, Any] | None
    manifest: Manifest | None

    @property
    def inputs(self) -> dict[str, str]:
        return self.facts["inputs"] if self.facts else {}

    def as_json(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "stage": self.stage,
            "status": self.status,
            "causes": list(self.causes),
            "fingerprint": self.fingerprint,
            "data_version": self.manifest.data_version if self.manifest else None,
        }


@dataclass
class Planner:
    """Plans of one experiment over one store; every answer is worked out once and kept."""

    experiment: Experiment
    store: ArtifactStore
    world: World
    _plans: dict[tuple[str, str], StagePlan] = field(default_factory=dict)

    def plan(self, iterations: int) -> list[StagePlan]:
        """Every stage of base and of iterations 1..n, in the order in which they would run."""
        keys = [BASE, *(key_of(t) for t in range(1, iterations + 1))]
        return [self.stage(key, name) for key in keys for name in stages_of(key)]

    def stage(self, iteration: str, name: str) -> StagePlan:
        """The plan of one stage; `name` must be a stage of that kind of iteration."""
        key = (iteration, name)
        if key not in self._plans:
            self._plans[key] = self._work_out(iteration, STAGES[name])
        return self._plans[key]

    def gate(self, iteration: str) -> dict[str, Any] | None:
        """The verdict of the iteration's gate, or None while it is not fresh."""
        manifest = self.stage(iteration, "gate").manifest
        if manifest is None or self.stage(iteration, "gate").status != "fresh":
            return None
        try:
            return json.loads((self.store.folder(manifest) / "verdict.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None  # damaged: the next run notices, quarantines and decides again

    def promoted_before(self, iteration: str) -> str | None:
        """The latest earlier iteration whose gate passed; None: the base model itself.

        Raises Unsettled while an iteration in between has no fresh verdict.
        """
        for number in range(number_of(iteration) - 1, 0, -1):
            earlier = key_of(number)
            verdict = self.gate(earlier)
            if verdict is None:
                raise Unsettled(f"iteration {earlier} is not up to date")
            if verdict["passed"]:
                return earlier
        return None

    def promoted_count(self, iteration: str) -> int:
        """How many earlier iterations passed their gate: the length of the adapter's chain."""
        earlier = self.promoted_before(iteration)
        return 0 if earlier is None else 1 + self.promoted_count(earlier)

    def stopped(self, iteration: str) -> str | None:
        """Why the loop ends before this iteration, if it does: the gate of the one before refused
        and no file landed since, so there is nothing new to learn from."""
        number = number_of(iteration)
        if number < 2:
            return None
        before = key_of(number - 1)
        if (reason := self.stopped(before)) is not None:
            return reason
        verdict = self.gate(before)
        if verdict is None or verdict["passed"]:
            return None
        if self.world.landing_files(iteration) != self.world.landing_files(before):
            return None
        return f"the gate refused iteration {before} ({verdict['reason']}) and no new data has landed"

    def _work_out(self, iteration: str, stage: Stage) -> StagePlan:
        last = self.store.pointed(self.experiment.name, iteration, stage.name)
        if iteration != BASE and (reason := self.stopped(iteration)):
            return StagePlan(iteration, stage.name, "stopped", (reason,), None, None, last)
        try:
            inputs = {name: self._input(iteration, name) for name in stage.inputs}
        except Unsettled as error:
            return StagePlan(iteration, stage.name, "waiting", (str(error),), None, None, last)
        verdict = self.gate(iteration) if stage.name == "promoted_adapter" else None
        if verdict is not None and not verdict["passed"]:
            return StagePlan(iteration, stage.name, "refused", (verdict["reason"],), None, None, None)
        facts = {
            "version": stage.version,
            "settings": stage.settings_slice(self.experiment),
            "inputs": inputs,
            "identities": {name: self.world.identity(name) for name in stage.identities},
            "libraries": stage.library_versions(),
        }
        fingerprint = digest_json({"stage": stage.name, **facts})
        if found := self.store.lookup(stage.name, fingerprint):
            return StagePlan(iteration, stage.name, "fresh", (), fingerprint, facts, found)
        if last is None:
            never = ("never computed",)
            return StagePlan(iteration, stage.name, "missing", never, fingerprint, facts, None)
        causes = differences(last, facts) or ("its artifact is gone from the store",)
        return StagePlan(iteration, stage.name, "stale", causes, fingerprint, facts, last)

    def _input(self, iteration: str, name: str) -> str:
        """The present data version of an input. Raises Unsettled if it has none yet."""
        if name == "iteration":
            return iteration
        if name in ("landing_files", "landed_now"):
            return digest_json(self.world.landing_files(BASE if name == "landed_now" else iteration))
        if name in ("previous_adapter", "promoted_scores"):
            earlier = self.promoted_before(iteration)
            if earlier is None:
                return "none"
            return self._fresh(earlier, "adapter_checkpoint" if name == "previous_adapter" else "benchmark_scores")
        producer, _, part = name.partition("/")
        manifest_key = iteration if STAGES[producer].partitioned else BASE
        if not part:
            return self._fresh(manifest_key, producer)
        self._fresh(manifest_key, producer)
        manifest = self.stage(manifest_key, producer).manifest
        assert manifest is not None
        return manifest.files[part]

    def _fresh(self, iteration: str, name: str) -> str:
        plan = self.stage(iteration, name)
        if plan.status != "fresh" or plan.manifest is None:
            raise Unsettled(f"{name} of {iteration} is {plan.status}")
        return plan.manifest.data_version


class Unsettled(Exception):
    """An input has no present content; the message says which."""


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


def differences(last: Manifest, facts: dict[str, Any]) -> tuple[str, ...]:
    """What differs between the facts behind `last` and those of now, as `name: old -> new`."""
    lines = []
    if last.version != facts["version"]:
        lines.append(f"code version: {last.version} -> {facts['version']}")
    for kind in ("settings", "inputs", "identities", "libraries"):
        old, new = getattr(last, kind), facts[kind]
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                lines.append(f"{name}: {shorten(old.get(name))} -> {shorten(new.get(name))}")
    return tuple(lines)


def shorten(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    is_digest = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return text[:8] if is_digest else text[:60] + ("..." if len(text) > 60 else "")
