"""What is wrong with the models that an experiment names, said before anything is computed."""

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from apt_assets.settings.experiment import Experiment, UsageError
from apt_assets.settings.iterations import ADAPTER_PARTS
from apt_assets.world.models import Models
from resources.model import files as model_files
from resources.store.digest import digest_json
from resources.store.kinds import installed_version

# Raised when what is asked of a model changes, so that one that was found sound is asked again.
CHECKS = 1
LIBRARIES = ("transformers", "tokenizers", "sentence-transformers", "safetensors")


@dataclass
class ModelChecks:
    experiment: Experiment
    models: Models
    _adapter_problems: dict[str, str | None] = field(default_factory=dict)

    def files(self) -> None:
        """Raise UsageError if the files of a model are not whole, or of another kind of model than the setting that
        names it asks for. Loads no library that takes its time."""
        self._check("policy.model", self.models.base_model, model_files.check_model)
        if (adapter := self.models.initial_adapter) is not None:
            self._check("policy.initial_adapter", adapter, partial(model_files.check_adapter, parts=ADAPTER_PARTS))
        self._check("retrieval.encoder", self.models.encoder, model_files.check_encoder)
        if self.models.grader is not None:
            self._check("assessor.rubric.model", self.models.grader, model_files.check_model)

    def all(self) -> None:
        """Raise UsageError if a model that the experiment names cannot be used as it is set, on this machine, the base
        model lacks a layer that `training.lora_targets` names, or the initial adapter cannot be trained on with it.
        Of a model, its libraries are asked once for its content, by whichever process; what is wrong, each time."""
        self.files()
        if self._problem is not None:
            raise UsageError(self._problem)
        self._check_language_model("policy.model", self.models.base_model, self.experiment.policy.system_prompt)
        if self._unknown_target is not None:
            raise UsageError(self._unknown_target)
        self._check_adapter()
        if self.models.grader is not None:
            self._check_language_model("assessor.rubric.model", self.models.grader, None, answers=False)
        self._check_encoder()

    def _check(self, key: str, folder: Path, check: Callable[..., None]) -> None:
        try:
            check(folder, look=self._look)
        except model_files.Unusable as error:
            raise UsageError(f"{key}: {folder}: {error}") from None

    def _look(self, path: Path) -> str | None:
        """`model_files.problem_with_file`, asked once for a file's content."""
        return json.loads(
            self.models.digests.derived(
                path, f"model file {CHECKS}", lambda its: json.dumps(model_files.problem_with_file(its))
            )
        )

    def _check_language_model(self, key: str, folder: Path, system_prompt: str | None, *, answers: bool = True) -> None:
        def ask() -> None:
            from resources.model.checks import check_language_model

            check_language_model(folder, system_prompt, answers=answers)

        self._check_loads(key, folder, ask, system_prompt, answers)

    def _check_encoder(self) -> None:
        device = self.experiment.policy.device

        def ask() -> None:
            from resources.retrieval.checks import check_sentence_encoder

            check_sentence_encoder(self.models.encoder, device)

        self._check_loads("retrieval.encoder", self.models.encoder, ask, device)

    def _check_loads(self, key: str, folder: Path, ask: Callable[[], None], *given: Any) -> None:
        """Raise UsageError if its libraries cannot load a model and use it: ask once what content, versions and what is
        given decide. What is wrong is not remembered."""
        content = [
            CHECKS,
            key,
            self.models.digests.folder(folder),
            given,
            [installed_version(name) for name in LIBRARIES],
        ]

        def sound() -> str:
            ask()
            return "sound"

        try:
            self.models.digests.once(f"model {digest_json(content)}", sound)
        except model_files.Unusable as error:
            raise UsageError(f"{key}: {folder}: {error}") from None

    def _check_adapter(self) -> None:
        folder, content = self.models.initial_adapter, self.models.identity("initial_adapter")
        if folder is None:
            return
        if content not in self._adapter_problems:
            from resources.model.adapter import problem_with

            self._adapter_problems[content] = problem_with(folder, self.models.base_model)
        if (problem := self._adapter_problems[content]) is not None:
            raise UsageError(
                f"policy.initial_adapter: {folder} cannot be trained further on {self.experiment.policy.model}: "
                f"{problem}; name another, or merge it where it was made (peft's `merge_and_unload`, then "
                "`save_pretrained`) and name the merged model in policy.model"
            )

    @cached_property
    def _problem(self) -> str | None:
        from resources.model.capabilities import lacking

        policy = self.experiment.policy
        return lacking(policy.device, policy.quantization)

    @cached_property
    def _unknown_target(self) -> str | None:
        policy, targets = self.experiment.policy, self.experiment.training.lora_targets
        # An initial adapter has targets of its own.
        if targets == "all-linear" or policy.initial_adapter is not None:
            return None
        from resources.model.capabilities import linear_layers, skeleton

        layers = linear_layers(skeleton(self.models.base_model))
        for target in targets:
            if not any(f".{layer}".endswith(f".{target}") for layer in layers):
                names = sorted({layer.rpartition(".")[2] for layer in layers})
                nearest = difflib.get_close_matches(target, names, n=1, cutoff=0)[0]
                return (
                    f"training.lora_targets: {self.experiment.policy.model} has no linear layer {target!r}; "
                    f"the nearest is {nearest!r}, of {', '.join(names)}"
                )
        return None
