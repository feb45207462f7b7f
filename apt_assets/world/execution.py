"""How the experiment's models are run on this machine: in packed passes or plainly, and whether a row of theirs has the
same bits in whatever company. Tried once with each number of threads, and remembered.

A trial loads the model (seconds to minutes), so nothing that only looks, such as `plan`, begins one: until then the
answer is UNTRIED, under which nothing is kept, and whoever computes has the trial made first (`find_out`).

Another number of threads was never seen to give other bits in a mode of MKL that is exact. So a look takes what is
known of one number for all, and whoever computes tries its own: the identity holds the bits, not the number.
"""

import gc
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.settings.experiment import Experiment, UsageError
from apt_assets.world.models import Models
from resources.processor import machine
from resources.store.digest import digest_json
from resources.store.kinds import installed_version
from resources.store.sealed import Damaged, read_sealed, write_sealed
from resources.threads import threads

if TYPE_CHECKING:
    from resources.model.policy import Policy, RunPath

UNTRIED = "not tried yet"
# What runs a model, by what for: the base model trains too.
TRIED_WITH = {
    "execution": ("torch", "transformers", "tokenizers", "peft", "trl"),
    "grader_execution": ("torch", "transformers", "tokenizers"),
}
MODEL = {"execution": "base_model", "grader_execution": "grader"}
SETTING = {"execution": "policy.model", "grader_execution": "assessor.rubric.model"}


@dataclass(frozen=True)
class Execution:
    """path: see RunPath (resources/model/prompts.py). why: not in packed passes; "" if it is. exact, shape_free, bits:
    see Exactness (resources/model/exactness.py). alone: whether a process of one thread gives the same rows.
    tried: what that was found by, for people."""

    path: "RunPath"
    why: str
    exact: bool
    shape_free: bool
    bits: str
    alone: bool
    tried: str

    def __str__(self) -> str:
        """What of it decides a row: two machines, or modes of one, that agree in it may share rows."""
        return f"{self.path}, {'exact' if self.exact else 'not exact'}, bits {self.bits}"


@dataclass
class Executions:
    """memory: a file for what was found. code: a module -> digests of the code that it runs."""

    experiment: Experiment
    models: Models
    memory: Path
    code: Callable[[str], dict[str, str]]
    _found: dict[str, dict[str, Execution]] = field(default_factory=dict)  # question -> number of threads -> answer

    def identity(self, name: str) -> str:
        """How a model is run, in a word, or UNTRIED; "none" where there is no such model."""
        if self.models.identity(MODEL[name]) == "none":
            return "none"
        found = self.known(name)
        return UNTRIED if found is None else str(found)

    def known(self, name: str) -> Execution | None:
        """As it was found with this number of threads or, if it was not tried with it, with another."""
        found = self._answers(name)
        return found.get(self.threads) or next(iter(found.values()), None)

    def outside(self, name: str) -> Execution:
        """How a model is run. Raises UsageError if it cannot be."""
        self.find_out([name])
        return self._answers(name)[self.threads]

    def find_out(self, names: Iterable[str]) -> list[str]:
        """Try those that are untried with this number of threads; returns a line for each, for people. Raises
        UsageError if it cannot be run."""
        lines = []
        for name in names:
            if name in MODEL and self.identity(name) != "none" and self.threads not in self._answers(name):
                found = self._try(name)
                self._recall()  # what another process found meanwhile stays
                self._found.setdefault(self.key(name), {})[self.threads] = found
                write_sealed(self.memory, "execution", self._as_json())
                lines.append(self.in_words(name, found))
        return lines

    def remarks(self) -> list[str]:
        """A line for each model that is known not to run in packed passes, or whose rows are not exact."""
        found = [(name, self.known(name)) for name in MODEL if self.identity(name) not in ("none", UNTRIED)]
        return [
            self.in_words(name, its)
            for name, its in found
            if its is not None and not (its.path == "packed" and its.exact)
        ]

    def in_words(self, name: str, found: Execution) -> str:
        model = f"{SETTING[name]}: {getattr(self.models, MODEL[name])}"
        exact = (
            "rows are exact" if found.exact else "rows are not exact: what else is in a pass may round them otherwise"
        )
        if found.path == "packed":
            return f"{model} runs in packed passes, and agrees with transformers; {exact} ({found.tried})"
        return f"{model} runs sequence by sequence, as in transformers, which is slower: {found.why}; {exact}"

    @property
    def threads(self) -> str:
        """Their number, as a key of JSON."""
        return str(threads(self.experiment.policy.threads))

    def key(self, name: str) -> str:
        """Of all that decides what a trial finds, but for the number of threads."""
        policy = self.experiment.policy
        quantization = policy.quantization if name == "execution" else "none"
        settings = [policy.dtype, quantization, policy.device, policy.batch_tokens]
        versions = [installed_version(library) for library in TRIED_WITH[name]]
        return digest_json(
            [name, self.models.identity(MODEL[name]), settings, versions, machine(), self.code(__name__)]
        )

    def _answers(self, name: str) -> dict[str, Execution]:
        """Number of threads -> what a trial with so many found; the memory is read if this one's is not known."""
        key = self.key(name)
        if self.threads not in self._found.get(key, {}):
            self._recall()
        return self._found.get(key, {})

    def _recall(self) -> None:
        try:
            for key, by_threads in read_sealed(self.memory, "execution").items():
                self._found[key] = {number: Execution(**its) for number, its in by_threads.items()}
        except (OSError, Damaged, TypeError, AttributeError):
            pass  # as good as never tried

    def _as_json(self) -> dict[str, Any]:
        return {
            key: {number: asdict(its) for number, its in by_threads.items()} for key, by_threads in self._found.items()
        }

    def _try(self, name: str) -> Execution:
        from resources.model.agreement import NotCausal, run_path
        from resources.model.exactness import alike_in_one_thread, exactness
        from resources.training.agreement import LOOK_AT_A_STEP

        folder, trains = getattr(self.models, MODEL[name]), name == "execution"
        load = partial(self._load, folder, self.experiment.policy.quantization if trains else "none")
        try:
            path, why = run_path(load, *([LOOK_AT_A_STEP] if trains else []))
            policy, batch_tokens = load(path), self.experiment.policy.batch_tokens
            found = exactness(policy, batch_tokens)
            alone = alike_in_one_thread(policy, batch_tokens, found)
            return Execution(path, why, found.exact, found.shape_free, found.bits, alone, found.reason)
        except NotCausal as error:
            raise UsageError(
                f"{SETTING[name]}: {folder} is no causal language model: {error}; name a decoder"
            ) from None
        except Exception as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
            raise UsageError(
                f"{SETTING[name]}: {folder} cannot be run by transformers {installed_version('transformers')} "
                f"here ({reason}); name another model, or save this one anew with that version"
            ) from error
        finally:
            gc.collect()  # the models that were tried hold on to themselves

    def _load(self, folder: Path, quantization: str, path: "RunPath") -> "Policy":
        from resources.model.policy import load_policy

        policy = self.experiment.policy
        return load_policy(folder, dtype=policy.dtype, quantization=quantization, device=policy.device, path=path)
