"""Tokenizers with merges, made on the spot, and chat templates as the well-known models have them."""

from itertools import chain
from types import SimpleNamespace
from typing import Any

from resources.model.policy import Policy

CORPUS = [
    "The colour of the sky is blue, and the grass is green.", "What is the colour of snow? red white black",
    "my ticket: user assistant end system think\n\n", "it's <b>bold</b> | <|end|> <think> answer\nanswer: 42",
]  # fmt: skip

# Llama 3's and Qwen's: the ends of lines stay together.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TINY = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' "
    "+ m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim "
    "+ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content | trim + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# What precedes an answer in a conversation is another text than what an answer is asked with.
OPEN_THOUGHT = CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'")
EMPTY_THOUGHT = CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n\n</think>\n\n'")
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<\uff5cUser\uff5c>' + m.content }}"
    "{% elif m.role == 'assistant' %}{{ '<\uff5cAssistant\uff5c>' + m.content.split('</think>')[-1] + eos_token }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c><think>\n' }}{% endif %}"
)
# Writes an empty thought before the last answer, with which nobody is asked.
QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if loop.last and m.role == 'assistant' %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Template -> (itself, special tokens, added tokens that are not special, the end token).
TEMPLATES: dict[str, tuple[str | None, list[str], list[str], str]] = {
    "none": (None, ["<s>", "</s>"], [], "</s>"),
    "tiny": (TINY, ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], [], "<|end|>"),
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], [], "<|im_end|>"),
    "llama3": (LLAMA3, ["<s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], [], "<|eot_id|>"),
    "gemma": (GEMMA, ["<s>", "<start_of_turn>", "<end_of_turn>"], ["<b>", "</b>", "\n\n"], "<end_of_turn>"),
    "llama2": (LLAMA2, ["<s>", "</s>"], [], "</s>"),
    "open thought": (OPEN_THOUGHT, ["<|im_start|>", "<|im_end|>"], ["<think>", "</think>"], "<|im_end|>"),
    "empty thought": (EMPTY_THOUGHT, ["<|im_start|>", "<|im_end|>"], ["<think>", "</think>"], "<|im_end|>"),
    "deepseek": (DEEPSEEK, ["<s>", "</s>"], ["<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<think>", "</think>"],
                 "</s>"),
    "qwen3": (QWEN3, ["<|im_start|>", "<|im_end|>"], ["<think>", "</think>", "<tool_call>"], "<|im_end|>"),
}  # fmt: skip


def make_tokenizer(template: str, kind: str = "bytes") -> Any:
    """A BPE tokenizer with one of TEMPLATES. kind: bytes, as GPT-2, Llama 3 and Qwen have it, or sentencepiece, as
    Llama 2, Mistral and Gemma: spaces are letters, and one is put before a text that begins."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    chat_template, special, added, end = TEMPLATES[template]
    alphabet = pre_tokenizers.ByteLevel.alphabet() if kind == "bytes" else []
    byte_tokens = [] if kind == "bytes" else [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=kind != "bytes", unk_token=None if kind == "bytes" else "<0x00>"))
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(WORDS), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*special, *byte_tokens], initial_alphabet=list(alphabet), show_progress=False,
        max_token_length=8,
    )  # fmt: skip
    tokenizer.train_from_iterator(chain.from_iterable([CORPUS] * 4), trainer)
    if "<s>" in special and chat_template is None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    named = {"bos_token": "<s>"} if "<s>" in special else {}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end, **named)
    fast.add_special_tokens({"additional_special_tokens": special})
    fast.add_tokens([AddedToken(text, normalized=False) for text in added])
    fast.chat_template = chat_template
    return fast


def reader(tokenizer: Any, system_prompt: str | None = None, end: int | list[int] | None = None) -> Any:
    """A policy that can be asked how it reads, and nothing else. end: eos_token_id of its generation config."""
    return Policy(SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=end)), tokenizer, system_prompt)
