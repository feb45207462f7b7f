"""Which adapter answers: the one that was promoted last, as the store has it now, and the one before it.

Read are pointers alone, and not a plan: while an iteration is computed anew, what it promoted before goes on answering
until its gate has decided. What answers is a verified copy, so that neither `gc` nor a damaged file ends it.
"""

import hashlib
import random
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from apt_assets.project import Project
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


def promotions(project: Project) -> Iterator[tuple[str, Manifest]]:
    """(iteration, what it promoted), the latest first, of those whose gate did not refuse since. Of what `gc` removed
    the manifest is there and not the files."""
    store, name = project.store, project.experiment.name
    for key in reversed(store.iterations(name)):
        verdict, promoted = store.pointed(name, key, "gate"), store.pointed(name, key, "promoted_adapter")
        if verdict is not None and promoted is not None and verdict.facts["passed"]:
            yield key, promoted


@dataclass
class Live:
    """The adapters that answer. previous: the one before the last promotion answers, and stays. canary: the share of
    requests that the newest one answers, the others being the previous one's; None: all.

    on_change: called with the Specialist that is new. Raises UsageError if nothing is promoted, CorruptArtifact if it
    is damaged.
    """

    project: Project
    previous: bool = False
    canary: float | None = None
    on_change: Callable[[Specialist], None] = lambda specialist: None
    specialists: list[Specialist] = field(default_factory=list)  # the newest; with a canary also the one before it
    changes: int = 0
    problem: str | None = None  # why the last look found what it could not use

    def __post_init__(self) -> None:
        self._base = self.project.models.identity("base_model")
        self._take(self._wanted())
        if not self.specialists:
            raise UsageError(f"{self.project.experiment.name} has promoted no adapter yet: run `apt-assets run` first")

    def look(self) -> None:
        """See whether something was promoted or refused since. What is live stays so if the new one cannot be used:
        `problem` says why."""
        if self.previous:
            return
        try:
            self._take(self._wanted())
            self.problem = None
        except Exception as error:  # a damaged file, a store that does not answer: what is live stays so
            self.problem = f"{type(error).__name__}: {error}"

    def choose(self, user: str | None) -> Specialist:
        """The adapter that answers a request; of one user always the same one, while none is promoted."""
        if self.canary is None:
            return self.specialists[0]
        drawn = random.random() if user is None else share_of(user)
        return self.specialists[0 if drawn < self.canary else -1]

    def named(self, name: str) -> Specialist | None:
        return next((one for one in self.specialists if one.name == name), None)

    def _wanted(self) -> list[Origin]:
        """Those that answer, the newest first; [] while nothing is promoted."""
        found: list[Origin] = [*promotions(self.project), (None, None)]
        if len(found) == 1:
            return []
        newest, before = found[:2]
        if self.previous:
            return [before]
        return [newest] if self.canary is None else [newest, before]

    def _take(self, wanted: list[Origin]) -> None:
        known = {one.name: one for one in self.specialists}
        taken = []
        for iteration, manifest in wanted:
            digests = self._digests(manifest)
            name = served_name(self._base, digests)
            taken.append(known.get(name) or self._copied(name, iteration, manifest, digests))
        if taken and taken != self.specialists:
            newest, self.specialists = taken[0] not in self.specialists[:1], taken
            if newest:
                self.changes += 1
                self.on_change(taken[0])

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
