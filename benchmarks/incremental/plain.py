"""The loop as one script, with the caches such scripts have: `python -m benchmarks.incremental.plain`.

    python -m benchmarks.incremental.plain config.yaml

Answers are cached in out/answers.json by model path, adapter path and prompt; embeddings in
out/embeddings.json by text; an adapter or a score that is there is kept if the settings it was made
with, stored beside it, are still those of the configuration. Models are loaded only when a cache
has to be filled. Grades and pairs are cheap and made anew. Exit code 1: the gate refused.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from benchmarks.incremental import steps
from benchmarks.incremental.steps import Config

OUT = Path("out")
BASE = OUT / "base"


class JsonCache:
    """A dict kept in a JSON file; written whole, after every batch of new values."""

    def __init__(self, path: Path):
        self._path = path
        self.values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(self.values))
        temporary.replace(self._path)


class Policies:
    """The policy of an adapter, loaded when first asked for."""

    def __init__(self, config: Config):
        self._config = config
        self._loaded: dict[Path | None, Any] = {}

    def open(self, adapter: Path | None) -> Any:
        if adapter not in self._loaded:
            self._loaded = {adapter: steps.open_policy(self._config, adapter)}
        return self._loaded[adapter]

    def forget(self) -> None:
        self._loaded.clear()


def ask(config: Config, policies: Policies, cache: JsonCache, adapter: Path | None, prompts: list[str]) -> list[str]:
    """Answers in the order of `prompts`; only those not in the cache are generated."""
    keys = [f"{config['model']}|{adapter}|{prompt}" for prompt in prompts]
    new = [(key, prompt) for key, prompt in zip(keys, prompts, strict=True) if key not in cache.values]
    if new:
        answers = steps.answer(config, policies.open(adapter), [prompt for _, prompt in new])
        cache.values.update(zip([key for key, _ in new], answers, strict=True))
        cache.save()
    return [cache.values[key] for key in keys]


def embed(config: Config, cache: JsonCache, texts: list[str]) -> Any:
    """One vector per text; only texts not in the cache are embedded."""
    import numpy as np

    new = [text for text in dict.fromkeys(texts) if text not in cache.values]
    if new:
        vectors = steps.embed(config, new)
        cache.values.update((text, vector.tolist()) for text, vector in zip(new, vectors, strict=True))
        cache.save()
    return np.array([cache.values[text] for text in texts], dtype=np.float32)


def made_with(record: Path, settings: Config) -> bool:
    """Whether the settings stored beside an output are these."""
    return record.exists() and json.loads(record.read_text()) == settings


def train(config: Config, iteration: int, pairs: pl.DataFrame, previous: Path | None, out: Path) -> bool:
    """Train unless the adapter is there with the same settings; returns whether it was trained."""
    sections = ("model", "encoder", "data", "policy", "assessor", "retrieval", "pairs", "training")
    settings = {name: config[name] for name in sections}
    settings |= {"files": config["files"][iteration - 1], "previous": str(previous)}
    if (out / "adapter_model.safetensors").exists() and made_with(out / "training.json", settings):
        return False
    steps.train(config, iteration, pairs, previous, out)
    (out / "training.json").write_text(json.dumps(settings, indent=1))
    return True


def score(
    config: Config, policies: Policies, answers: JsonCache, files: list[str], adapter: Path | None, out: Path
) -> None:
    """Held-out rows and general tasks, unless their scores are there with the same settings."""
    settings = {name: value for name, value in config.items() if name not in ("files", "gate")}
    settings |= {"files": files, "adapter": str(adapter)}
    tables = [out / "domain_items.parquet", out / "general_items.parquet"]
    if all(path.exists() for path in tables) and made_with(out / "scores.json", settings):
        return
    out.mkdir(parents=True, exist_ok=True)
    domain = steps.read_domain(files, config)
    said = ask(config, policies, answers, adapter, steps.heldout_prompts(domain))
    steps.graded_heldout(domain, said).write_parquet(tables[0])
    steps.score_tasks(config, policies.open(adapter)).write_parquet(tables[1])
    (out / "scores.json").write_text(json.dumps(settings, indent=1))


def main(config: Config) -> int:
    answers, embeddings = JsonCache(OUT / "answers.json"), JsonCache(OUT / "embeddings.json")
    policies = Policies(config)
    score(config, policies, answers, config["files"][-1], None, BASE)
    adapter, promoted = None, BASE
    for iteration, files in enumerate(config["files"], start=1):
        out = OUT / f"{iteration:04d}"
        out.mkdir(parents=True, exist_ok=True)
        rows = steps.read_domain(files, config)["train"]
        said = ask(config, policies, answers, adapter, rows["prompt"].to_list())
        predictions = steps.graded(rows, said, rows)
        predictions.write_parquet(out / "eval_predictions.parquet")
        vectors = embed(config, embeddings, rows["prompt"].to_list())
        pairs = steps.find_pairs(config, rows, predictions, vectors)
        pairs.write_parquet(out / "preference_pairs.parquet")
        if train(config, iteration, pairs, adapter, out / "adapter"):
            policies.forget()
            (out / "scores.json").unlink(missing_ok=True)
        adapter = out / "adapter"
        score(config, policies, answers, files, adapter, out)
        verdict = steps.gate(config, out, promoted, BASE)
        print(f"iteration {iteration}: {pairs.height} pairs; {verdict['reason']}")
        if not verdict["passed"]:
            return 1
        promoted = out
    return 0


if __name__ == "__main__":
    sys.exit(main(yaml.safe_load(Path(sys.argv[1]).read_text())))
