"""Which adapter answers: the one that was promoted last, as the store has it now, and the one before it.

What counts as promoted says apt_assets/loop/promotions.py. What answers is a verified copy, so that neither `gc` nor a
damaged file ends it.
"""

import hashlib
import random
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from apt_assets.loop.promotions import promotions
from apt_assets.project import Project
from apt_assets.promotion import TRAINED
from apt_assets.serve.problem import Problem
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import ADAPTER_PARTS
from resources.model.openai_server import served_name
from resources.store.manifest import Manifest

NO_ADAPTER = "none"
# (iteration, what it promoted); (None, None): what the loop starts from.
Origin = tuple[str | None, Manifest | None]
HASHED = 8  # bytes of a user's hash that are read as a number


@dataclass(frozen=True, eq=False)
class Specialist:
    """The base model with one adapter. name: by the content of both, as a server is asked for it. digest: sha256 of
    the adapter's weights, or NO_ADAPTER. iteration: that promoted it; None: what the loop starts from. folder: the
    adapter's, None for the base model alone."""

    name: str
    digest: str
    iteration: str | None
    folder: Path | None

    def __str__(self) -> str:
        adapter = "the base model" if self.folder is None else f"adapter {self.digest[:12]}"
        origin = "what the loop starts from" if self.iteration is None else f"promoted by iteration {self.iteration}"
        return f"{adapter}, {origin}"


def base_of(project: Project, iteration: str, promoted: Manifest) -> str | None:
    """Digest of the base model that a promoted adapter was trained on; None: nothing in the store tells it any more.
    While its iteration is computed anew, and the pointers are of something else, the journal leads there."""
    for trained in made(project, iteration, "adapter_checkpoint"):
        if trained.files[ADAPTER_PARTS[1]] == promoted.inputs.get(TRAINED):
            policies = made(project, iteration, "policy")
            found = (one for one in policies if one.data_version == trained.inputs["policy"])
            return next((policy.identities["base_model"] for policy in found), None)
    return None


def made(project: Project, iteration: str, stage: str) -> Iterator[Manifest]:
    """What a stage is in this iteration now, and then all that it was anywhere, as far as it is kept."""
    store = project.store
    now = store.pointed(project.experiment.name, iteration, stage)
    if now is not None:
        yield now
    for event in store.events("computed"):
        if event["stage"] == stage and (before := store.lookup(stage, event["fingerprint"])) is not None:
            yield before


@dataclass
class Live:
    """The adapters that answer. previous: the one before the last promotion answers, and stays. canary: the share of
    requests that the newest one answers, the others being the previous one's; None: all.

    on_change: called with the Specialist that is new. try_on: called with it before it goes live; raises if it cannot
    answer. tell: gets what people should know.

    Raises UsageError if nothing is promoted or it is of another base model, CorruptArtifact if it is damaged.
    """

    project: Project
    previous: bool = False
    canary: float | None = None
    on_change: Callable[[Specialist], None] = lambda specialist: None
    try_on: Callable[[Specialist], None] = lambda specialist: None
    tell: Callable[[str], None] = lambda text: None
    specialists: list[Specialist] = field(default_factory=list)  # the newest; with a canary also the one before it
    changes: int = 0
    problem: Problem = field(init=False)  # why the last look found what it could not use

    def __post_init__(self) -> None:
        self.problem = Problem("what was promoted last is not live", self.tell)
        self._base = self.project.models.identity("base_model")
        self._failed: dict[str, Exception] = {}  # name of an adapter that cannot be put on -> why
        self._take(self._wanted() or ([(None, None)] if self._ever_promoted() else []))
        if not self.specialists:
            raise UsageError(f"{self.project.experiment.name} has no promoted adapter: run `apt-assets run` first")

    def look(self) -> None:
        """See whether something was promoted or refused since; where all was, what the loop starts from answers. What
        is live stays so if the new one cannot be used: `problem` says why."""
        if self.previous:
            return
        try:
            # First, so that nothing is in it that a run by other settings promotes.
            wanted = self._wanted() or [(None, None)]
            if changed := self.project.changed_since_start():
                raise UsageError(f"{changed} changed since the server started: start it anew")
            self._take(wanted)
            self.problem.clear()
        except Exception as error:  # a damaged file, a store that does not answer: what is live stays so
            self.problem.set(error)

    def choose(self, user: str | None) -> Specialist:
        """The adapter that answers a request; of one user always the same one, while none is promoted."""
        if self.canary is None:
            return self.specialists[0]
        drawn = random.random() if user is None else share_of(user)
        return self.specialists[0 if drawn < self.canary else -1]

    def named(self, name: str) -> Specialist | None:
        return next((one for one in self.specialists if one.name == name), None)

    def _ever_promoted(self) -> bool:
        store, name = self.project.store, self.project.experiment.name
        return any(store.pointed(name, key, "promoted_adapter") for key in store.iterations(name))

    def _wanted(self) -> list[Origin]:
        """Those that answer, the newest first; [] if nothing is promoted, or all was refused since."""
        found: list[Origin] = [*islice(promotions(self.project), 2), (None, None)]
        if len(found) == 1:
            return []
        newest, before = found[:2]
        if self.previous:
            return [before]
        return [newest] if self.canary is None else [newest, before]

    def _take(self, wanted: list[Origin]) -> None:
        known = {(one.name, one.iteration): one for one in self.specialists}
        taken = []
        for iteration, manifest in wanted:
            digests = self._digests(manifest)
            name = served_name(self._base, digests)
            taken.append(known.get((name, iteration)) or self._new(name, iteration, manifest, digests))
        if taken and taken != self.specialists:
            newest, self.specialists = taken[0] not in self.specialists[:1], taken
            if newest:
                self.changes += 1
                self.on_change(taken[0])

    def _new(
        self, name: str, iteration: str | None, manifest: Manifest | None, digests: dict[str, str] | None
    ) -> Specialist:
        """One that did not answer yet, tried. What failed once is not tried again: that costs a change of adapters."""
        if name in self._failed:
            raise self._failed[name].with_traceback(None)
        if iteration is not None and manifest is not None and base_of(self.project, iteration, manifest) != self._base:
            raise UsageError(
                f"the adapter that iteration {iteration} promoted is not known to be of the base model that "
                "policy.model names now: `apt-assets run` decides anew"
            )
        specialist = self._copied(name, iteration, manifest, digests)
        if self.specialists:  # those of the start are put on by it
            try:
                self.try_on(specialist)
            except Exception as error:
                self._failed[name] = error
                raise
        return specialist

    def _digests(self, manifest: Manifest | None) -> dict[str, str] | None:
        if manifest is not None:
            return {part: manifest.files[part] for part in ADAPTER_PARTS}
        initial = self.project.models.initial_adapter
        return None if initial is None else self.project.models.adapter_digests(initial)

    def _copied(
        self, name: str, iteration: str | None, manifest: Manifest | None, digests: dict[str, str] | None
    ) -> Specialist:
        if digests is None:
            return Specialist(name, NO_ADAPTER, None, None)
        if manifest is not None and manifest.collected:
            raise UsageError(f"gc removed the adapter that iteration {iteration} promoted, and it cannot be served")
        source = self.project.models.initial_adapter if manifest is None else self.project.store.verify(manifest)
        assert source is not None, "it has digests"
        folder = Path(tempfile.mkdtemp(prefix="apt-serve-"))
        specialist = Specialist(name, digests[ADAPTER_PARTS[1]], iteration, folder)
        weakref.finalize(specialist, shutil.rmtree, folder, ignore_errors=True)  # once no request wants it any more
        for part in ADAPTER_PARTS:
            shutil.copyfile(source / part, folder / part)
        return specialist


def share_of(user: str) -> float:
    """A number in [0, 1) that is the user's own."""
    return int.from_bytes(hashlib.sha256(user.encode()).digest()[:HASHED]) / 2 ** (8 * HASHED)
