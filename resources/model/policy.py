"""The policy: a causal language model with an optional LoRA adapter, and how it reads a prompt."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resources.model.control_tokens import RowTexts
from resources.model.packing import common_prefix, register

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# packed: many sequences in one pass, on packed rows (resources/model/packing.py). plain: each alone, as transformers
# runs it (resources/model/plain.py). uncached: plain, and every token of an answer by a pass over the whole.
RunPath = Literal["packed", "plain", "uncached"]


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


def load_policy(
    model_dir: Path | str,
    adapter_dir: Path | None = None,
    *,
    dtype: str = "bfloat16",
    quantization: str = "none",
    device: str = "cpu",
    system_prompt: str | None = None,
    path: RunPath = "packed",
) -> Policy:
    """Load the base model and, if given, the LoRA adapter of `adapter_dir`.

    In float32 the adapter is added to the weights, which loses nothing that matters (about 1e-7 of a
    weight) and makes a pass a fifth faster. In fewer bits that would round it away, so it stays beside them.

    Only safetensors are read and no code of a model folder is run. Raises OSError if `model_dir`
    holds no model, ValueError if the adapter does not fit it.
    """
    model, tokenizer = load_base(model_dir, dtype, quantization, device, path)
    if adapter_dir is not None:
        from peft import PeftModel

        # In the dtype of the weights: peft would widen the adapter to fp32 and cast at every layer.
        model = PeftModel.from_pretrained(model, str(adapter_dir), autocast_adapter_dtype=False)
        if dtype == "float32" and quantization == "none":
            model = model.merge_and_unload()
    return Policy(model.eval(), tokenizer, system_prompt, path)


def load_base(
    model_dir: Path | str, dtype: str, quantization: str, device: str, path: RunPath = "packed"
) -> tuple[Any, Any]:
    """(base model on `device`, its tokenizer), for answering, scoring and training alike.

    quantization: none, or nf4: linear layers in 4 bits, their products in `dtype` (QLoRA, Dettmers et al.
    2023, arXiv 2305.14314). Raises OSError if `model_dir` holds no model.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    named: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if path == "packed":
        named["attn_implementation"] = register()
    if quantization == "nf4":
        named["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=named["dtype"],
        )
        named["device_map"] = {"": device}  # weights are quantised where they end up
    model = AutoModelForCausalLM.from_pretrained(model_dir, use_safetensors=True, trust_remote_code=False, **named)
    # Not also to the dtype: that would round the frequencies of the positions, which stay in float32.
    return (model if quantization != "none" else model.to(device)), load_tokenizer(model_dir)


def load_tokenizer(model_dir: Path | str) -> Any:
    """The model's tokenizer, padding with its end token if it has none for that."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
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
    turns = messages(prompt, system_prompt)
    return texts.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


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
