"""Models with random weights in the shapes of real ones, and rows for them. Nothing is downloaded."""

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import tiny

if TYPE_CHECKING:
    from benchmarks.gpu_checks.setup import Setup

SYSTEM_PROMPT = "Name the colour that the last thing has. Answer in one word, and say nothing else."
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# What their config.json say.
SHAPES: dict[str, dict[str, Any]] = {
    "llama-2-7b": {
        "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    },
    "mistral-7b-v0.3": {
        "model_type": "mistral", "vocab_size": 32768, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "sliding_window": None,
        "tie_word_embeddings": False,
    },
}  # fmt: skip


def make_weights(setup: "Setup") -> int:
    """Random weights of the model in its folder, made on the device; returns their number. It says letters only, which
    the tests' tokenizer of bytes can write, and never ends."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = dict(SHAPES[str(setup.model)])
    if setup.tiny:
        heads = {"num_attention_heads": 4, "num_key_value_heads": shape["num_key_value_heads"] // 8, "head_dim": 8}
        shape |= {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, **heads}
    tokenizer = tiny.make_tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config = AutoConfig.for_model(shape.pop("model_type"), **shape, **ends)
    torch.manual_seed(0)
    with torch.device(setup.device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, setup.dtype))
    letters = tokenizer.convert_tokens_to_ids(list(LETTERS))
    with torch.no_grad():
        of_letters = model.lm_head.weight[letters].clone()
        model.lm_head.weight.zero_()
        model.lm_head.weight[letters] = of_letters
    model.save_pretrained(setup.weights, max_shard_size="40KB" if setup.tiny else "5GB")
    tokenizer.save_pretrained(setup.weights)
    return int(sum(parameter.numel() for parameter in model.parameters()))


def make_headers(model: str, folder: Path) -> Path:
    """A folder with all of a model but the values of its weights: its configuration, and a file of zeros that takes no
    place on the disk."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = dict(SHAPES[model])
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    with torch.device("meta"):
        weights = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).state_dict()
    header, end = {}, 0
    for name, values in weights.items():
        begins, end = end, end + 2 * values.numel()
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [begins, end]}
    config.save_pretrained(folder)
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder


def questions(count: int) -> list[str]:
    """Of some 100 tokens each."""
    rows = [row["prompt"] for row in tiny.domain_rows(4 * count)]
    random.Random(0).shuffle(rows)
    return [" ".join(rows[4 * n : 4 * n + 4]) for n in range(count)]


def pairs(count: int) -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected), of questions."""
    colours = list(tiny.COLOURS.values())
    return [(text, colours[n % 5], f"it is {colours[(n + 1) % 5]}") for n, text in enumerate(questions(count))]


def longest_pairs(count: int, prompt_tokens: int, answer_tokens: int) -> list[tuple[str, str, str]]:
    """Of letters, each of which is a token."""
    drawn = random.Random(0)

    def text(length: int) -> str:
        return "".join(drawn.choices(LETTERS, k=length))

    return [(text(prompt_tokens), text(answer_tokens), text(answer_tokens)) for _ in range(count)]
