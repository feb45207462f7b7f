"""Memory that is foretold against memory that is taken: training, scoring and answering, in turn, on a CPU.

    python -m benchmarks.memory [MODEL ...]

Models: `tiny`, of 22M random weights, and `embedded`, of 135M. Each case has a process of its own, which has loaded
all libraries and done the same with a model of 60 thousand weights; what is measured is by how much its largest
resident set then grows (VmHWM, whose record is cleared once the weights are there: while they are loaded, pages of the
file are in it, which are given back when asked for). Told is what `apt-assets plan` works out from headers
and settings (resources/model/memory.py), for the rows of the largest pass. One thread; sizes in MB of 10^6 bytes.
"""

import ctypes
import gc
import multiprocessing
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.speed.contest import add_cases, save, say
from benchmarks.speed.workload import CACHE
from resources.model.memory import Held, Pass, Sizes, sizes_of, to_answer, to_score, to_train
from resources.model.packing import Ids
from resources.training.recipe import TrainingRecipe

PRELOADED = ["torch", "transformers", "peft", "trl", "polars", "resources.training.trainer", "benchmarks.memory"]
MODELS = ("tiny", "embedded")
DTYPES = ("float32", "bfloat16")
PAIRS, PROMPT, ANSWER = 4, 100, 24  # pairs in a batch; tokens
QUESTIONS, NEW_TOKENS, BATCH_TOKENS, ITEMS = 96, 24, 512, 24
RANK = 16
ALLOWED = 0.15  # by what share the two may differ


# -- what is done: each returns what is told for it, in bytes --------------------------------------------------


def train(folder: Path, dtype: str, checkpointing: str) -> int:
    """A step of PAIRS pairs, of whose tokens none is shared but those of the template."""
    import polars as pl

    from resources.training import shared_prompts
    from resources.training.trainer import train_adapter

    draw = random.Random(1)
    texts = [[words(draw, length) for length in (PROMPT, ANSWER, ANSWER)] for _ in range(PAIRS)]
    recipe = TrainingRecipe(
        learning_rate=1e-3, beta=0.1, nll_weight=1.0, reference="previous", lora_rank=RANK, lora_alpha=32,
        batch_size=PAIRS, epochs=1, warmup_steps=0, max_length=4096, batch_tokens=BATCH_TOKENS, seed=3, dtype=dtype,
        device="cpu", gradient_checkpointing="on" if checkpointing == "on" else "off",
    )  # fmt: skip
    passes: list[Pass] = []
    pack_pairs = shared_prompts.pack_pairs

    def watched(sequences: list[Ids], *more: Any) -> Any:
        pack, places = pack_pairs(sequences, *more)
        ends = [*pack.starts[1:], pack.used]
        passes.append(Pass(tuple(end - start for start, end in zip(pack.starts, ends, strict=True)), pack.prefix))
        return pack, places

    shared_prompts.pack_pairs = watched
    with tempfile.TemporaryDirectory() as out:
        rows = pl.DataFrame(texts, schema=["prompt", "chosen", "rejected"], orient="row")
        train_adapter(folder, None, rows, None, recipe, Path(out))
    shared_prompts.pack_pairs = pack_pairs
    return to_train(
        sizes_of(folder), Held(dtype), passes[0], rank=RANK, targets="all-linear", answers=2 * PAIRS * ANSWER,
        anchors=0, checkpointing=checkpointing == "on",
    )  # fmt: skip


def score(folder: Path, dtype: str) -> int:
    """ITEMS items of two choices, in passes of BATCH_TOKENS tokens."""
    from resources.model.policy import load_policy
    from resources.model.scoring import Question, score_answers
    from resources.store.rows import collect

    policy, draw = load_policy(folder, dtype=dtype, path="packed"), random.Random(1)
    questions = [Question(ids(draw, PROMPT), (ids(draw, ANSWER), ids(draw, ANSWER))) for _ in range(ITEMS)]
    collect(ITEMS, score_answers(policy.model, questions, batch_tokens=BATCH_TOKENS))
    row, most = questions[0].row.length, BATCH_TOKENS // 4
    at_once = max(min(BATCH_TOKENS // row, most // questions[0].targets), 1)
    return to_score(
        sizes_of(folder), Held(dtype), Pass((row,) * at_once), adapter=0, scored=at_once * questions[0].targets
    )


def answer(folder: Path, dtype: str) -> int:
    """QUESTIONS questions, of which BATCH_TOKENS / 4 are answered at once."""
    from resources.model.generation import go_on, greedy
    from resources.model.policy import load_policy
    from resources.store.rows import collect

    policy, draw = load_policy(folder, dtype=dtype, path="packed"), random.Random(1)
    asked = [ids(draw, PROMPT - n % 8) for n in range(QUESTIONS)]
    settings = {"max_new_tokens": NEW_TOKENS, "batch_tokens": BATCH_TOKENS}
    collect(QUESTIONS, go_on(policy, asked, beginning=[], end=set(), choose=greedy, **settings))
    lengths = Counter(map(len, asked))
    sizes: Sizes = sizes_of(folder)
    return to_answer(sizes, Held(dtype), lengths, adapter=0, new_tokens=NEW_TOKENS, batch_tokens=BATCH_TOKENS)


WORK: dict[str, Callable[[Path, str], int]] = {
    "train": partial(train, checkpointing="off"),
    "train, checkpointing": partial(train, checkpointing="on"),
    "score": score,
    "answer": answer,
}


def ids(draw: random.Random, count: int) -> Ids:
    return [draw.randrange(5, 250) for _ in range(count)]


def words(draw: random.Random, tokens: int) -> str:
    """About so many tokens, of a tokenizer of bytes as of one of words."""
    return " ".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(tokens // 2))


# -- how it is measured ----------------------------------------------------------------------------------------


def measure(name: str, folder: Path, small: Path, dtype: str) -> dict[str, float]:
    """{told, taken} in MB, in this process."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    WORK[name](small, dtype)
    give_back()
    before, load = memory("VmRSS"), AutoModelForCausalLM.from_pretrained

    def loaded(*arguments: Any, **named: Any) -> Any:
        model = load(*arguments, **named)
        give_back()
        Path("/proc/self/clear_refs").write_text("5")
        return model

    AutoModelForCausalLM.from_pretrained = loaded
    told = WORK[name](folder, dtype)
    return {"told": told / 1e6, "taken": (memory("VmHWM") - before) / 1e6}


def give_back() -> None:
    """What was freed and is held by the C library goes back to the system: else it is there for what comes next."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def memory(field: str) -> int:
    """Bytes, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def make(folder: Path, **changes: int) -> Path:
    """A Llama of random weights with the bytes as tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny import make_tokenizer

    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
        **changes,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def report(runs: dict[str, Any]) -> str:
    lines = ["| case | told, MB | taken, MB | told / taken |", "|---|---|---|---|"]
    for case, found in runs.items():
        lines.append(f"| {case} | {found['told']:.0f} | {found['taken']:.0f} | {found['told'] / found['taken']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    runs = {}
    with tempfile.TemporaryDirectory() as made:
        small = make(
            Path(made) / "small", vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1,
        )  # fmt: skip
        tiny = make(
            Path(made) / "tiny", vocab_size=16384, hidden_size=384, intermediate_size=1024, num_hidden_layers=10,
            num_attention_heads=6, num_key_value_heads=2,
        )  # fmt: skip
        folders = {"tiny": tiny, "embedded": CACHE / "policy"}
        for model in sys.argv[1:] or MODELS:
            for dtype in DTYPES:
                for name in WORK:
                    with server.Pool(1) as pool:
                        runs[f"{model}, {dtype}, {name}"] = pool.apply(measure, (name, folders[model], small, dtype))
                    say(report(runs).splitlines()[-1])
                    save("memory", {"runs": add_cases("memory", runs)}, ["torch", "transformers", "trl", "peft"])
    print(report(runs))


if __name__ == "__main__":
    main()
