"""Checks of what we have alone: on a GPU as on a CPU, in memory, and from end to end."""

import os
import tempfile
from collections import Counter
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from apt_assets.settings.experiment import REPOSITORY
from benchmarks.gpu_checks.made import SYSTEM_PROMPT, longest_pairs, make_weights, pairs, questions
from benchmarks.gpu_checks.setup import (
    BATCH,
    BATCH_TOKENS,
    NEW_TOKENS,
    QUESTIONS,
    Setup,
    answer_packed,
    furthest,
    judged,
    load,
    measured,
    recipe,
)
from tests import tiny

if TYPE_CHECKING:
    from apt_assets.settings.experiment import Experiment
    from resources.model.memory import Held, Sizes

ALLOWED = 0.15  # by what share memory that is told may differ from what was taken
LIBRARIES = ("torch", "transformers", "peft", "trl", "datasets", "lm-eval", "bitsandbytes")
LONGEST_ANSWER = 64  # tokens, of the pairs whose memory is measured


def device(setup: Setup) -> dict[str, Any]:
    """What all others run on; without it none does."""
    import torch

    found: dict[str, Any] = {
        "libraries": {name: metadata.version(name) for name in LIBRARIES if find_spec(name.replace("-", "_"))}
    }
    if setup.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"name": card.name, "memory_gb": round(card.total_memory / 1e9, 1), "cuda": torch.version.cuda}
    return judged(True, **found)


def parity(setup: Setup) -> dict[str, Any]:
    """Losses of four steps, and log-probabilities of answers, in float32: those of the CPU."""
    from benchmarks.speed.training import train_ours
    from resources.model.agreement import NATS

    with tempfile.TemporaryDirectory() as folder:
        model = tiny.make_policy(Path(folder) / "policy", spread=0.3, positions=512)
        found = {
            where: (
                train_ours(model, SYSTEM_PROMPT, pairs(4 * BATCH), recipe(setup, dtype="float32", device=where)),
                log_probs(model, where),
            )
            for where in ("cpu", setup.device)
        }
    (ours, scored), (there, scored_there) = found["cpu"], found[setup.device]
    off = {"losses": furthest(ours["losses"], there["losses"]), "log_probs": furthest(scored, scored_there)}
    return judged(max(off.values()) <= NATS["float32"], bound=NATS["float32"], **off)


def log_probs(model: Path, where: str) -> list[float]:
    """Of the colours, after each question."""
    from resources.model.policy import encode, load_policy
    from resources.model.scoring import Question

    policy = load_policy(model, dtype="float32", device=where, system_prompt=SYSTEM_PROMPT, path="packed")
    colours = tuple(policy.tokenizer(colour)["input_ids"] for colour in tiny.COLOURS.values())
    each = [Question(encode(policy, text), colours) for text in questions(8)]
    return [nats for found in tiny.scores(policy.model, each, batch_tokens=BATCH_TOKENS) for nats, _ in found]


def loop(setup: Setup) -> dict[str, Any]:
    """Two iterations from landing to promotion with policy.device as it is here: they come to their end."""
    import yaml

    from apt_assets.engine.display import Display
    from apt_assets.orchestration.run import run_loop
    from apt_assets.project import Project

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        tiny.make_models(home)
        content = tiny.experiment(home)
        content["policy"] |= {"device": setup.device, "dtype": setup.dtype}
        (home / "tiny.yaml").write_text(yaml.safe_dump(content))
        tiny.write_jsonl(home / "landing" / "colours.jsonl", tiny.domain_rows(60))
        os.environ["APT_HOME"] = folder
        result = run_loop(Project.open(home / "tiny.yaml"), 2, Display())
    return judged(result.passed, reason=result.reason, computed=len(result.computed))


def weights(setup: Setup) -> dict[str, Any]:
    """Makes the model that the checks below load, in several files."""
    number = make_weights(setup)
    sizes = [file.stat().st_size for file in setup.weights.glob("*.safetensors")]
    return judged(len(sizes) > 1, parameters=number, files=len(sizes), gb=round(sum(sizes) / 1e9, 3))


def memory(setup: Setup) -> dict[str, Any]:
    """Peak of the stages that run the model, at the experiment file's settings and the longest pairs that they take:
    what `plan` tells of them, within ALLOWED."""
    from apt_assets.rows.references import recipe_of
    from apt_assets.settings.reader import load_experiment
    from benchmarks.speed.training import train_ours
    from resources.model.memory import Held, sizes_of
    from resources.model.prompts import Reader, encode, load_tokenizer

    experiment = load_experiment(REPOSITORY / "experiments" / f"{setup.model}.yaml")
    policy = experiment.policy.model_copy(update={"device": setup.device, "dtype": setup.dtype})
    its = experiment.training
    how = SimpleNamespace(path="packed", shape_free=None)
    around = len(encode(Reader(load_tokenizer(setup.weights), policy.system_prompt), ""))
    rows = longest_pairs(2 * its.batch_size, its.max_length - around - LONGEST_ANSWER, LONGEST_ANSWER)
    stages = {}
    with measured(setup) as stages["adapter_checkpoint"]:
        train_ours(setup.weights, policy.system_prompt, rows, recipe_of(its, policy, its.learning_rate, how))
    with measured(setup) as stages["eval_predictions"]:
        answer_packed(setup)
    for stage, told in told_of(sizes_of(setup.weights), experiment, Held(setup.dtype, device=setup.device)).items():
        stages[stage]["told_gb"] = round(told / 1e9, 3)
    off = [its["told_gb"] / its["peak_gb"] - 1 for its in stages.values() if "peak_gb" in its]  # none on a CPU
    return judged(all(abs(one) <= ALLOWED for one in off), bound=ALLOWED, stages=stages)


def told_of(sizes: "Sizes", experiment: "Experiment", held: "Held") -> dict[str, int]:
    """Bytes that `plan` would tell of what `memory` measures. Gradient checkpointing is on, as it is for 7B weights on
    a GPU of less than 160 GB."""
    from resources.model.memory import Pass, to_answer, to_train
    from resources.model.prompts import Reader, encode

    its, reader = experiment.training, Reader(tiny.make_tokenizer(), SYSTEM_PROMPT)
    row = its.max_length + LONGEST_ANSWER  # one prompt, two answers
    trained = to_train(
        sizes, held, Pass((row,) * its.batch_size), rank=its.lora_rank, targets=its.lora_targets,
        answers=its.batch_size * 2 * LONGEST_ANSWER, anchors=0, checkpointing=True,
    )  # fmt: skip
    lengths = Counter(len(encode(reader, text)) for text in questions(QUESTIONS))
    answered = to_answer(sizes, held, lengths, adapter=0, new_tokens=NEW_TOKENS, batch_tokens=BATCH_TOKENS)
    return {"adapter_checkpoint": trained, "eval_predictions": answered}


def execution(setup: Setup) -> dict[str, Any]:
    """How a run would find this model to run: in packed passes. Whether its rows are exact is told, not judged."""
    from resources.model.agreement import run_path
    from resources.model.exactness import exactness
    from resources.training.agreement import LOOK_AT_A_STEP

    path, why = run_path(partial(load, setup), LOOK_AT_A_STEP)
    found = exactness(load(setup, path), BATCH_TOKENS)
    return judged(path == "packed", path=path, why=why, exact=found.exact, reason=found.reason)
