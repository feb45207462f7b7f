"""Tiny models that are damaged, or of a kind that cannot be used: how each comes about, and what is said of it."""

import json
import shutil
import struct

from safetensors.torch import load_file, save_file

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 12345\n"


def change(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_weights(folder, changed):
    weights = load_file(folder / "model.safetensors")
    changed(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def shards(folder):
    """The same model in several files and an index."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    return sorted(folder.glob("model-*.safetensors"))


def template(text):
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def pointer(name):
    return lambda folder: (folder / name).write_text(POINTER)


def cut(name, part):
    """The first part of a file."""

    def prepare(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * part)])

    return prepare


def lost_shard(folder):
    shards(folder)[1].unlink()


def half_a_shard(folder):
    last = shards(folder)[-1]
    last.write_bytes(last.read_bytes()[:-8])


def shard_of_another_model(folder):
    first, second, *_ = shards(folder)
    shutil.copyfile(first, second)


def index_without_map(folder):
    shards(folder)
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')


def offsets_beyond_the_file(folder):
    header = json.dumps({"w": {"dtype": "F32", "shape": [9999], "data_offsets": [0, 39996]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(40))


def garbage_for_a_header(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 20) + b"\xff" * 200)


def shape_that_is_not_its_length(folder):
    header = json.dumps({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


def no_number(folder):
    change_weights(folder, lambda weights: weights["model.layers.1.mlp.up_proj.weight"][3, 4].fill_(float("nan")))


def lost_weight(folder):
    change_weights(folder, lambda weights: weights.pop("model.layers.0.self_attn.q_proj.weight"))


def classifier(folder):
    """What `AutoModelForSequenceClassification` saves: the same body with another head, which a config may hide."""
    change(folder / "config.json", architectures=["LlamaForSequenceClassification"])


def headless(folder):
    change_weights(folder, lambda weights: weights.pop("lm_head.weight"))


def as_t5(folder):
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"vocab_size": 261, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(**sizes)).save_pretrained(folder)


def as_bert(folder):
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"vocab_size": 261, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    BertForMaskedLM(BertConfig(**sizes, num_attention_heads=2)).save_pretrained(folder)


def as_bart(folder):
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {"vocab_size": 261, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
    BartForConditionalGeneration(BartConfig(**sizes, **heads)).save_pretrained(folder)


def without_tokenizer(folder):
    for file in folder.glob("*token*"):
        file.unlink()
    (folder / "chat_template.jinja").unlink()


def tokenizer_of_a_larger_model(folder):
    from transformers import AutoTokenizer

    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"word{n}": 1000 + n for n in range(9)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert len(AutoTokenizer.from_pretrained(folder)) > 261


def without_end(folder):
    change(folder / "config.json", eos_token_id=None, pad_token_id=None)
    change(folder / "generation_config.json", eos_token_id=None)
    change(folder / "tokenizer_config.json", eos_token=None)


def end_of_another_model(folder):
    change(folder / "generation_config.json", eos_token_id=[0, 128001])


def tokenizer_without_end(folder):
    change(folder / "tokenizer_config.json", eos_token=None, pad_token=None)
    (folder / "chat_template.jinja").unlink()


def quantised(folder):
    change(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})


def of_its_own_code(folder):
    change(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config"})


def link_to_nowhere(folder):
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").symlink_to(folder / "gone")


def adapter_in_place(folder):
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")


def only(name):
    """Of all its files only the weights, under another name."""
    return lambda folder: (folder / "model.safetensors").rename(folder / name)


BROKEN = {
    "weights are a pointer": (pointer("model.safetensors"), "model.safetensors is a Git LFS pointer.*git lfs pull"),
    "tokenizer is a pointer": (pointer("tokenizer.json"), "tokenizer.json is a Git LFS pointer"),
    "config is a pointer": (pointer("config.json"), "config.json is a Git LFS pointer"),
    "template is a pointer": (pointer("chat_template.jinja"), "chat_template.jinja is a Git LFS pointer"),
    "half of the weights": (cut("model.safetensors", 0.5), r"model.safetensors is not whole: \d+ of \d+ bytes"),
    "half of a header": (cut("model.safetensors", 0.01), "model.safetensors .*not whole"),
    "three bytes of weights": (cut("model.safetensors", 0.00002), "model.safetensors .*not whole"),
    "empty weights": (cut("model.safetensors", 0), "model.safetensors is empty"),
    "offsets beyond the file": (offsets_beyond_the_file, "model.safetensors is not whole"),
    "garbage for a header": (garbage_for_a_header, "model.safetensors cannot be read as safetensors"),
    "a shape that is not its length": (shape_that_is_not_its_length, "cannot be read as safetensors"),
    "a shard is lost": (lost_shard, r"1 of \d files of weights are not there: model-00002-of"),
    "half of a shard": (half_a_shard, r"model-0000\d-of-\d+.safetensors is not whole"),
    "a shard of another model": (shard_of_another_model, "model-00002-of.*lacks .*, which model.safetensors.index"),
    "an index without a map": (index_without_map, "model.safetensors.index.json has no weight_map"),
    "weights under another name": (only("mine.safetensors"), "neither model.safetensors nor .*but mine.safetensors"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "there is no config.json"),
    "half of a config": (cut("config.json", 0.5), "config.json is not JSON"),
    "a config that is a list": (lambda folder: (folder / "config.json").write_text("[1]"), "config.json"),
    "an adapter beside it": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"), "an adapter lies in the same folder",
    ),
    "an adapter": (adapter_in_place, "is a LoRA adapter and no model: name it in policy.initial_adapter"),
    "an unknown kind": (lambda folder: change(folder / "config.json", model_type="llama9"), "cannot be used .*llama9"),
    "code of its own": (of_its_own_code, "needs code of its own"),
    "sizes that do not fit": (
        lambda folder: change(folder / "config.json", vocab_size=300),
        r"another shape than config.json tells, such as lm_head.weight: \[261, 32\] where \[300, 32\]",
    ),
    "fewer heads": (lambda folder: change(folder / "config.json", num_key_value_heads=2), "another shape .*k_proj"),
    "another layer": (
        lambda folder: change(folder / "config.json", num_hidden_layers=3),
        r"9 weights that a LlamaForCausalLM needs are not there \(model.layers.2.input_layernorm.weight, .* and 6 more",
    ),
    "a lost weight": (lost_weight, r"1 weights that .* not there \(model.layers.0.self_attn.q_proj.weight\)"),
    "no head": (headless, r"not there \(lm_head.weight\)"),
    "not a number": (no_number, "model.layers.1.mlp.up_proj.weight in model.safetensors has values that are not fin"),
    "a classifier": (classifier, "is a LlamaForSequenceClassification, and no causal language model"),
    "t5": (as_t5, "is a T5ForConditionalGeneration, and no causal"),
    "bert": (as_bert, "is a BertForMaskedLM, and no causal"),
    "bart": (as_bart, "is a BartForConditionalGeneration, and no causal"),
    "quantised": (quantised, "weights are quantised, and cannot be loaded here .*policy.quantization: nf4"),
    "an empty quantisation": (lambda folder: change(folder / "config.json", quantization_config={}), "quantised, and"),
    "a size that is no number": (lambda folder: change(folder / "config.json", vocab_size="many"), "'vocab_size'.*str"),
    "a link to nowhere": (link_to_nowhere, "chat_template.jinja is a link that leads nowhere"),
    "an end that is no number": (
        lambda folder: change(folder / "generation_config.json", eos_token_id="</s>"),
        "generation_config.json cannot be used .*invalid literal",
    ),
    "a list for a generation config": (
        lambda folder: (folder / "generation_config.json").write_text("[1]"),
        "generation_config.json cannot be used ",
    ),
    "no tokenizer": (without_tokenizer, "its tokenizer "),
    "half of a tokenizer": (cut("tokenizer.json", 0.5), "tokenizer.json is not JSON"),
    "a larger tokenizer": (tokenizer_of_a_larger_model, "writes tokens up to 1008, and its embedding has 261 rows"),
    "a template that is no template": (template("{% for m in %}"), "template cannot be written with a question "),
    "a template that forgets the question": (template("{{ bos_token }}<|user|>"), "leaves out what is said"),
    "a template for questions alone": (
        template("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"),
        "template leaves out what is said, of a question and its answer",
    ),
    "a template that refuses answers": (
        template("{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('only you') }}{% endif %}"
                 "{{ m.content }}{% endfor %}"),
        r"cannot be written with a question and its answer \(only you\)",
    ),
}  # fmt: skip
WITHOUT_ANSWERS = {
    "no end": (without_end, "no end token, at which an answer ends"),
    "an end of another model": (end_of_another_model, "its end token 128001 .* none of its 261 tokens"),
    "a tokenizer without end": (tokenizer_without_end, "its tokenizer has no end token .*which training needs"),
}
