"""A tiny random policy, a tiny random encoder, a tiny domain and a tiny general task, made on the spot."""

import json
from pathlib import Path
from typing import Any

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"&"
COLOURS = {"sky": "blue", "grass": "green", "blood": "red", "coal": "black", "snow": "white"}
# Random models on a handful of items: what the gate says is not what most tests are about.
OPEN_GATE = {
    "domain_tolerance": 1.0, "general_tolerance": 1.0, "likelihood_tolerance": None, "perplexity_tolerance": None
}  # fmt: skip
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer():
    """Byte-level BPE without merges: 256 bytes and the special tokens, so every text can be read."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
    vocabulary = {token: number for number, token in enumerate([*specials, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    fast.add_special_tokens({"additional_special_tokens": specials[2:]})
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_policy(folder: Path, seed: int = 0, spread: float = 0.02, positions: int = 256) -> Path:
    """A two-layer Llama with random weights, about 60 thousand parameters. With a wide spread, what it
    says depends on what it was asked."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=positions,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        initializer_range=spread,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_husks(folder: Path) -> None:
    """policy/ and encoder/ with nothing in them: whole, for commands that only look."""
    for name, part, content in (("policy", "config.json", "{}"), ("encoder", "modules.json", "[]")):
        (folder / name).mkdir()
        (folder / name / part).write_text(content)
        (folder / name / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")


def make_talker(folder: Path) -> Path:
    """A policy that says letters, mostly others of other questions; sampled, it says others again."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make_policy(folder, spread=0.3)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    letters = tokenizer.convert_tokens_to_ids(list("abcdefghijklmnopqrstuvwxyz"))
    weights = model.lm_head.weight.data
    of_letters = 3 * weights[letters]
    weights.zero_()
    weights[letters] = of_letters
    model.save_pretrained(folder)
    return folder


def make_adapter(folder: Path, model: Path, seed: int = 0, spread: float = 0.2, **changes: Any) -> Path:
    """A LoRA adapter on a model as peft saves it, with random weights that change what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(**{**lora, **changes}))
    random = torch.Generator().manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if ".lora_" in name:
            weight.data = torch.randn(weight.shape, generator=random) * spread
    adapted.save_pretrained(folder)
    return folder


def make_encoder(folder: Path) -> Path:
    """A one-layer random BERT over the same bytes, with mean pooling, as sentence-transformers saves it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules
    from transformers import BertConfig, BertModel

    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    bert = folder.with_name("bert")
    BertModel(config).save_pretrained(bert)
    tokenizer.save_pretrained(bert)
    transformer = modules.Transformer(str(bert), max_seq_length=64)
    SentenceTransformer(modules=[transformer, modules.Pooling(16)], device="cpu").save(str(folder))
    return folder


SAYINGS = ["The sky is blue above the green grass.", "Coal is black, and snow is white.", "Blood is red. " * 30]


def make_task(folder: Path) -> Path:
    """Two-choice items and passages in lm-eval's format, beside their YAML. The last passage is longer than what
    the tiny policy reads at once."""
    folder.mkdir(parents=True)
    items = [{"question": f"{thing} is", "choices": [colour, "loud"], "gold": 0} for thing, colour in COLOURS.items()]
    (folder / "colours.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "colours.yaml").write_text(
        "task: colours\ndataset_path: json\ndataset_kwargs: {data_files: {test: colours.jsonl}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
        "doc_to_choice: choices\ndoc_to_target: gold\nmetric_list: [{metric: acc_norm}]\nmetadata: {version: 1.0}\n"
    )
    write_jsonl(folder / "sayings.jsonl", [{"text": text} for text in SAYINGS])
    (folder / "sayings.yaml").write_text(
        "task: sayings\ndataset_path: json\ndataset_kwargs: {data_files: {test: sayings.jsonl}}\n"
        "test_split: test\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
        "metric_list: [{metric: word_perplexity}]\nmetadata: {version: 1.0}\n"
    )
    return folder


def make_models(folder: Path) -> None:
    """policy/, encoder/ and tasks/."""
    make_policy(folder / "policy")
    make_encoder(folder / "encoder")
    make_task(folder / "tasks")


def domain_rows(count: int) -> list[dict[str, str]]:
    """Questions with one-word answers; row n is always the same."""
    things = list(COLOURS)
    return [
        {"prompt": f"Colour of {things[n % 5]} number {n}?", "answer": COLOURS[things[n % 5]]} for n in range(count)
    ]


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def land_hostile(home: Path) -> None:
    """Rows of the domain, a few of them with markup in their questions."""
    rows = [{"prompt": f"Colour of {HOSTILE} number {n}?", "answer": "red"} for n in range(4)]
    write_jsonl(home / "landing" / "colours.jsonl", [*domain_rows(60), *rows])


def open_project(home: Path, folder: Path, **changes: dict[str, Any]) -> Any:
    """A project in `home` on the models in `folder`, with these settings changed in it."""
    import pytest
    import yaml

    from apt_assets.project import Project

    content = experiment(folder)
    content["policy"]["system_prompt"] = 'Say "one" | colour.'
    content |= {section: {**content.get(section, {}), **values} for section, values in changes.items()}
    (home / "tiny.yaml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APT_HOME", str(home))
        return Project.open(home / "tiny.yaml")


def experiment(folder: Path) -> dict[str, Any]:
    """An experiment on the models and tasks that were made in `folder`."""
    return {
        "name": "tiny",
        # The questions differ in their number only, so nearly all would be near duplicates.
        "data": {"validation": 0.2, "test": 0.2, "near_duplicate_words": None},
        "policy": {"model": str(folder / "policy"), "dtype": "float32", "max_new_tokens": 4},
        "retrieval": {"encoder": str(folder / "encoder"), "per_case": 1},
        "mining": {"questions": 12},
        "training": {"batch_size": 4, "lora_rank": 2, "lora_alpha": 4, "warmup_steps": 0},
        "anchor": {"texts": 6, "tokens": 8},
        "benchmarks": {"folder": str(folder / "tasks"), "tasks": {"colours": None}},
        "gate": OPEN_GATE,
    }


def answers(policy, prompts, **settings):
    """The answers that `generate` yields, in the order of `prompts`."""
    from resources.model.generation import generate
    from resources.store.rows import collect

    return collect(len(prompts), generate(policy, prompts, **settings))


def scores(model, questions, **settings):
    """What `score_answers` yields, in the order of `questions`."""
    from resources.model.scoring import score_answers
    from resources.store.rows import collect

    return collect(len(questions), score_answers(model, questions, **settings))
