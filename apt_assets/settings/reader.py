"""Where an experiment file is, and how it is read: YAML, checked against `experiment.Experiment`."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from apt_assets.settings.experiment import REPOSITORY, Experiment, UsageError
from resources.yaml_file import NotYaml, read_yaml

DEFAULT_EXPERIMENT = REPOSITORY / "experiments" / "embedded.yaml"
OF_A_STUDY = ("domains", "arms")  # sections that a study file has and no experiment file


def expanded(named: Path | str, what: str) -> Path:
    """A path as someone named it, with `~` a home folder. what: who named it. Raises UsageError if there is none."""
    try:
        return Path(named).expanduser()
    except RuntimeError:
        raise UsageError(f"{what}: {named}: no home folder is known for this; write it out") from None


def path_of(named: Path | str, what: str, below: Path | None = None) -> Path:
    """The absolute path that someone named, where links lead to. below: what a relative one counts from; None: the
    current folder.

    Raises UsageError for what `expanded` does, links that lead in a circle, and bytes that are not UTF-8: what is kept
    about such a file could not be written.
    """
    path = expanded(named, what)
    try:
        str(path).encode("utf-8")
        return (path if below is None else below / path).resolve()
    except UnicodeEncodeError:
        raise UsageError(f"{what}: {path}: a name that is not UTF-8; rename it") from None
    except RuntimeError:
        raise UsageError(f"{what}: {path}: leads in a circle of links") from None


def file_to_write(named: Path) -> Path:
    """Where a file that someone named is written: through a link, to where it leads. Raises UsageError for what is
    no place for a file."""
    path = expanded(named, "the file")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UsageError(f"{path}: is a pipe or a device; name a file")
    path = path_of(path, "the file")
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{path}: name a file in a folder that is there")
    return path


def find_home(named: Path | str | None = None) -> Path:
    """The folder that a program named, or $APT_HOME, or else the repository. Raises UsageError if it is a file."""
    home = path_of(named or os.environ.get("APT_HOME") or REPOSITORY, "home" if named else "$APT_HOME")
    if home.exists() and not home.is_dir():
        if named:
            raise UsageError(f"home: {home}: is no folder; name one, or leave it out")
        raise UsageError(f"$APT_HOME: {home}: is no folder; name one, or unset it")
    if re.search(r"\?|%[0-9A-Fa-f]{2}", str(home)):
        # Dagster writes it into addresses of databases as it is.
        raise UsageError(f"{home}: a folder for Dagster's records cannot have ? or % and two hex digits in its path")
    return home


def find_store() -> tuple[str, str] | None:
    """(address, lock server) of the shared store that $APT_STORE and $APT_LOCKS name; None: the store is a folder below
    $APT_HOME. They are no settings of an experiment: a place decides no result, and a server's address may hold a
    password. Raises UsageError."""
    address, locks = os.environ.get("APT_STORE", "").strip().rstrip("/"), os.environ.get("APT_LOCKS", "").strip()
    if not address:
        return None
    if not re.fullmatch(r"s3://[^/\s]+(/\S*)?", address):
        raise UsageError(f"$APT_STORE: {address}: name s3://BUCKET/PREFIX, or unset it: the store is then a folder")
    if not locks.startswith(("postgresql://", "postgres://")):
        raise UsageError(
            f"$APT_LOCKS: names no lock server, and the store {address} is shared: name one as "
            "postgresql://USER@HOST/DATABASE, the same one for every machine that uses this store"
        )
    return address, locks


def read_mapping(path: Path, absent: UsageError, other: UsageError) -> dict[str, Any]:
    """What a YAML file of settings says. Raises `absent` if there is none, `other` if it is no mapping, and
    UsageError or OSError if it cannot be read."""
    try:
        if path.exists() and not path.is_file() and not path.is_fifo():
            raise UsageError(f"{path}: is {'a folder' if path.is_dir() else 'a device'}; name a file")
        content = read_yaml(path)
    except FileNotFoundError:
        raise absent from None
    except NotYaml as error:
        raise UsageError(str(error)) from None
    if not isinstance(content, dict):
        raise other
    return content


def load_experiment(path: Path) -> Experiment:
    """Read and check an experiment file.

    Raises UsageError naming the file, the key, what is wrong and the nearest valid key.
    """
    return checked(read_experiment(path), path)


def read_experiment(path: Path) -> dict[str, Any]:
    """What an experiment file says, unchecked. Raises UsageError if it is none."""
    content = read_mapping(
        path,
        UsageError(f"no experiment file {path}: check --experiment or $APT_EXPERIMENT"),
        UsageError(f"{path}: must be a mapping with at least `name: <word>`"),
    )
    if set(OF_A_STUDY) <= content.keys():
        raise UsageError(f"{path}: is a study file: `apt-assets study {path}` runs it; name an experiment file here")
    return content


def checked(content: Mapping[str, Any], where: Path | str) -> Experiment:
    """The experiment that these settings are; where: they stand. Raises UsageError as `load_experiment` does."""
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise UsageError("\n".join(f"{where}: {explain(e)}" for e in error.errors())) from None


def explain(error: Any) -> str:
    """One validation error as `key: what is wrong (did you mean ...)`."""
    where = ".".join(str(part) for part in error["loc"] if not str(part).startswith(("list[", "literal[")))
    if error["type"] != "extra_forbidden":
        return f"{where or 'experiment'}: {error['msg']}, got {shortened(error['input'])}"
    return f"{where}: {unknown(where)}"


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]} ..."


def unknown(key: str) -> str:
    """What is said of a dotted key that no experiment file may hold."""
    if key in valid_keys():
        names = key.split(".")
        return f"unknown key; a section is no part of a name: write `{': {'.join(names)}: ...{'}' * (len(names) - 1)}`"
    return f"unknown key; the nearest valid key is {difflib.get_close_matches(key, valid_keys(), n=1, cutoff=0)[0]}"


def nearest(name: str, names: Iterable[str]) -> str:
    """What is said of a name that is none of these: ` (did you mean ...?)`, or nothing if it is like none of them."""
    found = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {found[0]}?)" if found else ""


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
    """--experiment, else $APT_EXPERIMENT, else ./experiment.yaml, else the embedded default. Raises UsageError."""
    if named is not None:
        return path_of(named, "--experiment")
    if from_environment := os.environ.get("APT_EXPERIMENT"):
        return path_of(from_environment, "$APT_EXPERIMENT")
    local = Path("experiment.yaml")
    return local.resolve() if local.is_file() else DEFAULT_EXPERIMENT
