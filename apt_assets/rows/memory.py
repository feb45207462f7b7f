"""What is heavy of the stages, and how much memory it needs on the experiment's device: worked out before anything is
loaded, from files of the models, lengths of landed rows, and settings."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial

from apt_assets.engine.spread import most_workers
from apt_assets.landing.folder import LandingFolder
from apt_assets.rows.lengths import Lengths, lengths_of
from apt_assets.settings.experiment import Experiment, UsageError
from apt_assets.settings.iterations import ADAPTER_PARTS
from apt_assets.world.models import Models
from resources.model.device_memory import free_memory
from resources.model.files import Unusable
from resources.model.memory import (
    Held,
    Pass,
    Sizes,
    UnknownSizes,
    lora_of,
    lora_weights,
    sizes_of,
    to_answer,
    to_score,
    to_train,
    weights,
)
from resources.model.policy import is_merged
from resources.model.scoring import TARGET_SHARE

# Bytes that Python and its libraries take beside, or a context on a GPU.
LIBRARIES = {"cpu": 700_000_000, "cuda": 500_000_000}
HEADER = 4  # tokens, nearly, that a text which the model writes unasked begins with
SMALLER = "name a smaller model in policy.model, a dtype of fewer bits, or policy.quantization: nf4"


@dataclass(frozen=True)
class Need:
    """peak: bytes, as all is set. least: bytes where all is split that can be. helps: what to change where that is too
    much. otherwise: what may be changed where only the peak is, for which passes become smaller by themselves.
    spreads: whether several processes may do it at once, each of which needs as much (engine/spread.py)."""

    peak: int
    least: int
    helps: str
    otherwise: str
    spreads: bool = True

    def warning(self, free: int | None, device: str) -> str | None:
        """What to do, if there is less memory; None: there is not, or it is not known how much there is."""
        left = None if free is None else free - LIBRARIES[device]
        if left is None or self.peak <= left:
            return None
        room = in_words(max(left, 0))
        if self.least > left:
            return f"needs {in_words(self.least)} at least, and {device} has {room} left for it: {self.helps}"
        return (
            f"needs {in_words(self.peak)}, and {device} has {room} left for it: it will go on in smaller passes; "
            f"{self.otherwise}"
        )


def in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


@dataclass
class Needs:
    """Of one experiment; each asked for by its name, which stages declare (`@stage(memory=...)`)."""

    experiment: Experiment
    models: Models
    landing: LandingFolder

    def of(self, names: Iterable[str]) -> list[Need]:
        """Of what is named; nothing where a model's files do not tell."""
        try:
            return [need for name in names if (need := getattr(self, name)) is not None]
        except (UnknownSizes, Unusable, UsageError):
            return []

    def in_all(self, need: Need) -> int:
        """Bytes of all processes that do it at once, at most; what Python takes in the first of them aside."""
        if not need.spreads:
            return need.peak
        libraries = LIBRARIES[self.held.device]
        return most_workers(self.experiment.policy, need.peak + libraries) * (need.peak + libraries) - libraries

    @property
    def answers(self) -> Need | None:
        """Answers by transformers here; None: something else answers."""
        policy = self.experiment.policy
        if policy.backend != "transformers":
            return None
        return self._answering(self.lengths.prompts, policy.max_new_tokens, "policy.max_new_tokens")

    @property
    def scores(self) -> Need:
        """Items, pairs or texts of which log-probabilities are computed."""
        policy = self.experiment.policy
        longest = sum(self.lengths.longest)
        score = partial(to_score, self.sizes, self.held, adapter=self.beside)
        return Need(
            peak=score(rows_of(policy.batch_tokens, longest), scored=policy.batch_tokens // TARGET_SHARE),
            least=score(Pass((longest,)), scored=self.lengths.longest[1]),
            helps=SMALLER,
            otherwise="a lower policy.batch_tokens has them from the start",
        )

    @property
    def references(self) -> Need:
        """Pairs of which log-probabilities are computed by what trains, and nothing else."""
        return replace(self.scores, spreads=False)

    @property
    def grades(self) -> Need | None:
        """Answers that a model here grades; None: none does."""
        if self.models.grader is None:
            return None
        tokens, held = self.experiment.policy.batch_tokens, Held(self.held.dtype)
        peak = to_score(sizes_of(self.models.grader), held, Pass((tokens,)), adapter=0, scored=tokens // TARGET_SHARE)
        return Need(peak, self.grader, helps="name a smaller model in assessor.rubric.model", otherwise="")

    @property
    def anchors(self) -> Need | None:
        """Texts that the model writes unasked; None: there are none."""
        anchor = self.experiment.anchor
        if not anchor.texts or anchor.folder is not None:
            return None
        return self._answering({HEADER: anchor.texts}, anchor.tokens, "anchor.tokens")

    @property
    def training(self) -> Need:
        """Of one worker, if there are several; with fsdp2 it is less, by weights of the others."""
        training, anchor = self.experiment.training, self.experiment.anchor
        prompt, answer = self.lengths.longest
        pair = min(prompt + answer, training.max_length) + (answer if training.objective == "dpo" else 0)
        answers = answer * (2 if training.objective == "dpo" else 1)
        texts = min(anchor.texts_per_step, anchor.texts)
        along = (HEADER + anchor.tokens,) * texts
        rank, targets = self.lora

        def step(pairs: int, checkpointing: bool) -> int:
            return to_train(
                self.sizes, self.held, Pass((pair,) * pairs + along), rank=rank, targets=targets,
                answers=pairs * answers, anchors=anchor.tokens * texts, checkpointing=checkpointing,
            )  # fmt: skip

        setting, free = training.gradient_checkpointing, self.free
        may = setting != "off"
        share = -(-training.batch_size // training.workers)
        at_once = step(share, setting == "on")
        if setting == "auto" and free is not None and at_once > free - LIBRARIES[self.held.device]:
            at_once = step(share, True)
        return Need(
            peak=at_once,
            least=step(1, may),
            helps=("" if may else "set training.gradient_checkpointing to auto, ")
            + f"lower training.max_length, {SMALLER}",
            otherwise="a lower training.max_length or training.batch_size changes what is trained",
            spreads=False,
        )

    def _answering(self, lengths: dict[int, int], new_tokens: int, setting: str) -> Need:
        answer = partial(to_answer, self.sizes, self.held, lengths, adapter=self.beside, new_tokens=new_tokens)
        return Need(
            peak=answer(batch_tokens=self.experiment.policy.batch_tokens) + self.grader,
            least=answer(batch_tokens=1) + self.grader,
            helps=f"lower {setting}, {SMALLER}",
            otherwise="a lower policy.batch_tokens has them from the start",
        )

    # -- what these are worked out from -----------------------------------------------------------------------

    @cached_property
    def sizes(self) -> Sizes:
        return sizes_of(self.models.base_model)

    @cached_property
    def held(self) -> Held:
        policy = self.experiment.policy
        return Held(policy.dtype, policy.quantization, policy.device)

    @cached_property
    def lengths(self) -> Lengths:
        return lengths_of(self.landing, self.models.base_model, self.experiment.policy.system_prompt)

    @cached_property
    def lora(self) -> tuple[int, str | list[str]]:
        """(rank, targets) of the adapter."""
        initial, training = self.models.initial_adapter, self.experiment.training
        return (training.lora_rank, training.lora_targets) if initial is None else lora_of(initial / ADAPTER_PARTS[1])

    @cached_property
    def beside(self) -> int:
        """Weights that an adapter needs beside those of the model: its own, or, where it is added to them, what they
        were before (resources/model/held.py)."""
        rank, targets = self.lora
        if is_merged(self.held.dtype, self.held.quantization):
            return sum(inputs * outputs for _, inputs, outputs in self.sizes.adapted(targets))
        return lora_weights(self.sizes, rank, targets)

    @cached_property
    def grader(self) -> int:
        """Bytes of a local model that grades beside the one that answers."""
        folder = self.models.grader
        return 0 if folder is None else weights(sizes_of(folder), Held(self.held.dtype))

    @cached_property
    def free(self) -> int | None:
        return free_memory(self.held.device)


def rows_of(tokens: int, longest: int) -> Pass:
    """A pass full of rows as long as the longest, or that one."""
    return Pass((longest,) * max(tokens // max(longest, 1), 1))
