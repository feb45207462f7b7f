"""A policy, a causal language model with an optional LoRA adapter, and how it reads a prompt."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resources.model.control_tokens import RowTexts, without_merge_dropout
from resources.model.packing import common_prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# packed: many sequences in one pass, on packed rows (resources/model/packing.py). plain: each alone, as transformers
# runs it (resources/model/plain.py). uncached: plain, and every token of an answer by a pass over the whole.
RunPath = Literal["packed", "plain", "uncached"]
# What a template that tells the day is told, so that a question is read tomorrow as it is today. It is the day that
# Llama 3's templates tell where they are told none. transformers hands a template data and no functions, so that the
# name of its own is taken by a macro.
DAY = datetime(2024, 7, 26)
CLOCK = "strftime_now"
PARTS = (*(f"-{part}" for part in "deHIjklmMSUVWyw"), *"aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyYzZ%")
SAID = "".join(f" | replace('%{part}', '{DAY.strftime(f'%{part}')}')" for part in PARTS)
# The line's end is taken by the block before it, so that the template begins a line.
ON_THAT_DAY = f"{{% macro {CLOCK}(format) %}}{{{{ format{SAID} }}}}{{% endmacro %}}\n"


@dataclass
class Reader:
    """How a policy reads a prompt, without its weights: for back ends that hold them elsewhere."""

    tokenizer: "PreTrainedTokenizerBase"
    system_prompt: str | None


@dataclass
class Policy:
    """A loaded policy; `model` is in eval mode on `device`, loaded to be run on `path`."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    system_prompt: str | None
    path: RunPath = "packed"

    @property
    def device(self) -> str:
        return str(self.model.device)


def load_tokenizer(model_dir: Path | str) -> Any:
    """The model's tokenizer, padding with its end token if it has none for that. It reads a text the same way each
    time, and writes what was said as it was said, whatever its files ask for."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.clean_up_tokenization_spaces = False  # which writes " .5" as ".5", and "a != b" as "a!= b"
    without_merge_dropout(tokenizer)
    return tokenizer


def messages(prompt: str, system_prompt: str | None) -> list[dict[str, str]]:
    """One user turn, after the system prompt if there is one."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": prompt}]


def render(texts: RowTexts, prompt: str, system_prompt: str | None) -> str:
    """The exact text that is read of a prompt, marked; without a chat template that is the prompt itself."""
    prompt, system_prompt = texts.marked(prompt), system_prompt and texts.marked(system_prompt)
    if texts.tokenizer.chat_template is None:
        return f"{system_prompt}\n{prompt}\n" if system_prompt else f"{prompt}\n"
    return written(texts.tokenizer, messages(prompt, system_prompt), asks=True)


def written(tokenizer: Any, turns: list[dict[str, str]], *, asks: bool) -> str:
    """A conversation as the chat template writes it, on DAY. asks: whether the header of an answer follows. Raises what
    the template, which is a program, does."""
    template = tokenizer.get_chat_template()
    dated = {"chat_template": ON_THAT_DAY + template} if CLOCK in template else {}
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asks, **dated)
    return text


def encode(policy: Policy | Reader, prompt: str) -> list[int]:
    """Token ids of what the policy reads for a prompt; what spells a control token in it, or in the system prompt,
    is text (resources/model/control_tokens.py)."""
    texts = RowTexts(policy.tokenizer, prompt, policy.system_prompt)
    return texts.tokenise(render(texts, prompt, policy.system_prompt))


def end_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Token ids at which an answer ends; none of a model that names none."""
    end = model.generation_config.eos_token_id
    end = tokenizer.eos_token_id if end is None else end
    return set(end) if isinstance(end, list) else {end} - {None}


def beginning(policy: Policy) -> list[int]:
    """Token ids that prompts begin with whatever they ask: template and system prompt.

    A prompt may still begin otherwise, if its first characters merge with what stands before them.
    """
    probes = [encode(policy, probe) for probe in ("a", "B", "7", "(")]
    return probes[0][: min(common_prefix(probes), min(map(len, probes)) - 1)]
