"""Units of work, counted where they are done: in the primitives that every tool calls.

`install` wraps them in this process. Each unit becomes one JSON line of the log:

    kind    generate (one answer), grade (one answer), embed (one text), train (one training),
            score (one log-likelihood request)
    key     sha256 of everything that decides the result, by content: two units with one key are the
            same work done twice
    amount  generate: tokens of the answer (at least 1); train: optimiser steps; else 1
"""

import ast
import functools
import hashlib
import importlib.machinery
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from resources.store.rows import Batches

LM_EVAL = "lm_eval.models.huggingface"


def install(log: Path) -> None:
    """Wrap the primitives so that their work is appended to `log`.

    lm_eval is wrapped when it is imported, if ever: importing it takes seconds, and a run that has
    nothing to score must not pay for it.
    """
    # The trial of a model is no work on rows: what makes it keeps the function as it is.
    from resources.model import agreement, exactness  # noqa: F401 # isort: skip
    from resources.assessors import labels
    from resources.model import generation
    from resources.retrieval import encoder
    from resources.training import trainer

    write = functools.partial(append, log)
    generation.generate = counted_generate(generation.generate, write)  # type: ignore[assignment]
    labels.grade_rows = counted_grades(labels.grade_rows, write, Path(labels.__file__))
    encoder.Encoder.embed = counted_embed(encoder.Encoder.embed, write)  # type: ignore[method-assign]
    trainer.train_adapter = counted_training(trainer.train_adapter, write)
    sys.meta_path.insert(0, AfterImport(LM_EVAL, functools.partial(count_requests, write=write)))


def append(log: Path, kind: str, units: Iterable[tuple[str, int]]) -> None:
    """Append (key, amount) units in one write, so that processes sharing a log do not mix lines."""
    lines = [json.dumps({"kind": kind, "key": key, "amount": amount}) + "\n" for key, amount in units]
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, "".join(lines).encode())
    finally:
        os.close(descriptor)


# -- what a unit is made of ------------------------------------------------------------------------


def digest(*parts: Any) -> str:
    """sha256 of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def digest_folder(folder: Path | None) -> str | None:
    """Names and bytes of the files below a folder; None for no folder.

    A model is what its files hold, so notes beside them count too; the tools write none.
    """
    if folder is None:
        return None
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return digest([[str(p.relative_to(folder)), hashlib.sha256(p.read_bytes()).hexdigest()] for p in files])


def digest_weights(model: Any) -> str:
    """sha256 over the names and bytes of all weights as they are now, adapters included: one loaded model takes one
    adapter after another."""
    import torch

    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def code_of(source: Path) -> str:
    """The file's syntax tree without docstrings: comments, layout and docstrings decide no result."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


# -- the five wrappers -----------------------------------------------------------------------------

Write = Callable[[str, Iterable[tuple[str, int]]], None]


def counted_generate(original: Callable, write: Write) -> Callable:
    @functools.wraps(original)
    def generate(policy: Any, prompts: Any, *, max_new_tokens: int, **more: Any) -> Batches[str]:
        common = [digest_weights(policy.model), policy.system_prompt, max_new_tokens]
        for places, answers in original(policy, prompts, max_new_tokens=max_new_tokens, **more):
            units = [
                (digest(common, prompts[place]), max(1, len(policy.tokenizer(answer)["input_ids"])))
                for place, answer in zip(places, answers, strict=True)
            ]
            write("generate", units)
            yield places, answers

    return generate


def counted_grades(original: Callable, write: Write, source: Path) -> Callable:
    rubric = digest(code_of(source))

    @functools.wraps(original)
    def grade_rows(
        questions: Any, predictions: Any, golds: Any, labels: Any, also: Any = None
    ) -> list[tuple[int, bool]]:
        rows = list(zip(questions, predictions, golds, strict=True))
        grades = original(questions, predictions, golds, labels, also)
        write("grade", [(digest(rubric, row, list(labels)), 1) for row in rows])
        return grades

    return grade_rows


def counted_embed(original: Callable, write: Write) -> Callable:
    @functools.wraps(original)
    def embed(self: Any, texts: Any) -> Batches[Any]:
        weights = digest_weights(self._model)
        for places, vectors in original(self, texts):
            write("embed", [(digest(weights, texts[place]), 1) for place in places])
            yield places, vectors

    return embed


def counted_training(original: Callable, write: Write) -> Callable:
    @functools.wraps(original)
    def train_adapter(
        model_dir: Any, previous_adapter: Any, pairs: Any, system_prompt: Any, recipe: Any, *more: Any, **named: Any
    ) -> Any:
        adapter = None if previous_adapter is None else adapter_content(Path(previous_adapter))
        rows = [list(row) for row in pairs.select("prompt", "chosen", "rejected").iter_rows()]
        key = digest(digest_folder(Path(model_dir)), adapter, rows, system_prompt, asdict(recipe))
        log = original(model_dir, previous_adapter, pairs, system_prompt, recipe, *more, **named)
        write("train", [(key, log.height)])
        return log

    return train_adapter


def adapter_content(folder: Path) -> str:
    """Weights and configuration of an adapter, whatever else its folder holds."""
    files = ("adapter_model.safetensors", "adapter_config.json")
    return digest([hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files])


def count_requests(module: ModuleType, write: Write) -> None:
    """Wrap the one method through which every log-likelihood request of lm-eval goes."""
    original = module.HFLM.loglikelihood

    @functools.wraps(original)
    def loglikelihood(self: Any, requests: Any, *more: Any, **named: Any) -> Any:
        answers = original(self, requests, *more, **named)
        weights = digest_weights(self.model)
        write("score", [(digest(weights, *request.args), 1) for request in requests])
        return answers

    module.HFLM.loglikelihood = loglikelihood


class AfterImport:
    """A finder that calls `then` on the named module as soon as it has been imported."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]):
        self._name, self._then = name, then

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self._name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute, then = spec.loader.exec_module, self._then

        def exec_module(module: ModuleType) -> None:
            execute(module)
            then(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
