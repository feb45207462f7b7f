"""A model's files, looked at without torch or transformers: whether they are whole, and of what kind of model.

Read are JSON and the headers of weights, so that this costs next to nothing.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

POINTER = b"version https://git-lfs.github.com/spec/"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# What transformers reads of a model beside its weights. Others that lie there, of whatever else, do not count.
READ = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json", INDEX,
)  # fmt: skip
ANEW = "fetch it anew (`hf download`; in a clone `git lfs pull`), or name another"

LONGEST_HEADER = 100_000_000  # bytes, of safetensors' own format

# Says what is wrong with one file, or None, as `problem_with_file` does; it may remember.
Look = Callable[[Path], str | None]


class Unusable(Exception):
    """A model cannot be used; the message says why, and what to do."""


def problem_with_file(path: Path) -> str | None:
    """Why a file of a model is not what its name says, as far as that is seen from outside; None: nothing is seen."""
    with path.open("rb") as file:
        begins = file.read(len(POINTER))
    if begins == POINTER:
        return "is a Git LFS pointer, not the file itself"
    if not begins:
        return "is empty"
    if path.suffix == ".safetensors":
        return problem_with_weights(path)
    if path.suffix == ".json":
        try:
            json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            return f"is not JSON ({error})"
    return None


def problem_with_weights(path: Path) -> str | None:
    """What of a safetensors file is not as its own header says."""
    from safetensors import SafetensorError, safe_open

    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if 8 + length <= size else b""
    wanted = 8 + length if length <= LONGEST_HEADER else 0
    with suppress(ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError):
        # What is wrong with the header itself the library knows better.
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        wanted += max(ends, default=0)
    if wanted > size:
        return f"is not whole: {size} of {wanted} bytes"
    try:
        with safe_open(path, "np"):
            return None
    except SafetensorError as error:
        return f"cannot be read as safetensors ({error})"


def check_model(folder: Path, look: Look = problem_with_file) -> None:
    """Raise Unusable if a folder does not hold a whole model of transformers' form."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise Unusable(
                "it is a LoRA adapter and no model: name it in policy.initial_adapter, and the model that it was "
                "trained on in policy.model"
            )
        raise Unusable(f"there is no config.json: it is no model of transformers' form, or not all of one; {ANEW}")
    refuse_adapter_beside(folder)
    if (folder / "modules.json").is_file():
        raise Unusable(
            "it is a sentence encoder (it has a modules.json): name it in retrieval.encoder, and a causal language "
            "model here"
        )
    check_parts(folder, look)


def refuse_adapter_beside(folder: Path) -> None:
    """Raise Unusable if an adapter lies where a model is looked for."""
    if (folder / "adapter_config.json").is_file():
        raise Unusable(
            "an adapter lies in the same folder (adapter_config.json), which transformers would put on the model, or "
            "on the one that it names: move it out, or save model and adapter as one with `merge_and_unload`"
        )


def check_encoder(folder: Path, look: Look = problem_with_file) -> None:
    """Raise Unusable if a folder does not hold a whole encoder of sentence-transformers' form."""
    if not (folder / "modules.json").is_file():
        raise Unusable(
            "there is no modules.json: it is no encoder of sentence-transformers' form, which says how its vectors are "
            "pooled; save it as one, with the pooling that it was trained for (`SentenceTransformer(modules=[...])"
            ".save(...)`), or name another"
        )
    whole(folder / "modules.json", look)
    modules = read_json(folder / "modules.json", list)
    for module in modules:
        if not isinstance(module, dict) or not isinstance(module.get("path"), str) or "type" not in module:
            raise Unusable(f"modules.json does not say of each module its type and path; {ANEW}")
        part = folder / module["path"]
        if not part.is_dir():
            # A part that has nothing to keep, such as Normalize, has no files, and git keeps no empty folder.
            if str(module["type"]).endswith(".Normalize"):
                continue
            raise Unusable(f"modules.json names {module['path']}, which is not there; {ANEW}")
        refuse_adapter_beside(part)
        if (part / "config.json").is_file() and str(module["type"]).endswith(".Transformer"):
            check_parts(part, look)
        else:
            for file in sorted(part.iterdir()):
                if file.name in ("config.json", WEIGHTS):
                    whole(file, look)


def check_adapter(folder: Path, parts: Sequence[str], look: Look = problem_with_file) -> None:
    """Raise Unusable if one of the files of an adapter is not whole. parts: their names, all of them there."""
    for part in parts:
        whole(folder / part, look)


def check_parts(folder: Path, look: Look) -> None:
    """Raise Unusable if one of the files that transformers reads in a folder is not whole, or not there."""
    for name in READ:
        if (folder / name).is_symlink() and not (folder / name).exists():
            raise Unusable(f"{name} is a link that leads nowhere; {ANEW}")
        if (folder / name).is_file():
            whole(folder / name, look)
    for path, names in weights_of(folder).items():
        whole(path, look)
        if lacking := sorted(names - shapes_in(path).keys()):
            raise Unusable(f"{path.name} lacks {lacking[0]}, which {INDEX} says is in it; {ANEW}")


def weights_of(folder: Path) -> dict[Path, set[str]]:
    """The files in which transformers looks for a model's weights -> names of what must be in each. Raises
    Unusable if one is not there."""
    if (folder / WEIGHTS).is_file():
        return {folder / WEIGHTS: set()}
    if not (folder / INDEX).is_file():
        others = sorted(path.name for path in folder.glob("*.safetensors"))
        raise Unusable(
            f"there is neither {WEIGHTS} nor {INDEX}, where transformers looks for weights"
            f"{f' (but {others[0]})' if others else ''}: save it anew with `save_pretrained`, or {ANEW}"
        )
    where = read_json(folder / INDEX, dict).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(file, str) for file in where.values()):
        raise Unusable(f"{INDEX} has no weight_map of names and files; {ANEW}")
    files = sorted(set(where.values()))
    if lacking := [file for file in files if not (folder / file).is_file()]:
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise Unusable(f"{len(lacking)} of {len(files)} files of weights are not there: {lacking[0]}{more}; {ANEW}")
    return {folder / file: {name for name, its in where.items() if its == file} for file in files}


def shapes_in(path: Path) -> dict[str, list[int]]:
    """Name -> shape of what is in a file of weights that is whole."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - it is no dict


def whole(path: Path, look: Look) -> None:
    if (problem := look(path)) is not None:
        raise Unusable(f"{path.name} {problem}; {ANEW}")


def read_json(path: Path, kind: type) -> Any:
    """What a JSON file holds that is known to be JSON. Raises Unusable if it is not of this type."""
    found = json.loads(path.read_bytes())
    if not isinstance(found, kind):
        raise Unusable(f"{path.name} holds {type(found).__name__}, not {kind.__name__}; {ANEW}")
    return found
