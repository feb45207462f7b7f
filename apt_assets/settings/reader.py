"""Where an experiment file is, and how it is read: YAML, checked against `experiment.Experiment`."""

import difflib
import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from apt_assets.settings.experiment import REPOSITORY, Experiment, UsageError

DEFAULT_EXPERIMENT = REPOSITORY / "experiments" / "embedded.yaml"


class Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 1e-3 is a number, as people who set learning rates expect."""


Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+"), list("-+0123456789"))


def read_mapping(path: Path, absent: UsageError, other: UsageError) -> dict[str, Any]:
    """What a YAML file of settings says. Raises `absent` if there is none, `other` if it is no mapping, and
    UsageError if it cannot be read."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        raise absent from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(content, dict):
        raise other
    return content


def load_experiment(path: Path) -> Experiment:
    """Read and check an experiment file.

    Raises UsageError naming the file, the key, what is wrong and the nearest valid key.
    """
    content = read_mapping(
        path,
        UsageError(f"no experiment file {path}: check --experiment or $APT_EXPERIMENT"),
        UsageError(f"{path}: must be a mapping with at least `name: <word>`"),
    )
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise UsageError("\n".join(f"{path}: {explain(e)}" for e in error.errors())) from None


def explain(error: Any) -> str:
    """One validation error as `key: what is wrong (did you mean ...)`."""
    where = ".".join(str(part) for part in error["loc"] if not str(part).startswith(("list[", "literal[")))
    if error["type"] != "extra_forbidden":
        return f"{where or 'experiment'}: {error['msg']}, got {error['input']!r}"
    return f"{where}: {unknown(where)}"


def unknown(key: str) -> str:
    """What is said of a dotted key that no experiment file may hold."""
    return f"unknown key; the nearest valid key is {difflib.get_close_matches(key, valid_keys(), n=1, cutoff=0)[0]}"


def valid_keys(model: type[BaseModel] = Experiment, prefix: str = "") -> list[str]:
    """Every dotted key an experiment file may hold, sections included."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += valid_keys(kind, f"{prefix}{name}.")
    return keys


def find_experiment(named: Path | None) -> Path:
    """--experiment, else $APT_EXPERIMENT, else ./experiment.yaml, else the embedded default."""
    if named is not None:
        return named.resolve()
    if from_environment := os.environ.get("APT_EXPERIMENT"):
        return Path(from_environment).resolve()
    local = Path("experiment.yaml").resolve()
    return local if local.is_file() else DEFAULT_EXPERIMENT
