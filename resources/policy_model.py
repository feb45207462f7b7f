"""The policy: a causal language model with an optional LoRA adapter, and its answers.

The adapter stays an adapter (`peft.PeftModel`): merging into bf16 weights would round it away and
make the served model differ from the trained one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class Policy:
    """A loaded policy; `model` is in eval mode on `device`, `tokenizer` pads on the left."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    system_prompt: str | None

    @property
    def device(self) -> str:
        return str(self.model.device)


def load_policy(
    model_dir: Path | str,
    adapter_dir: Path | None = None,
    *,
    dtype: str = "bfloat16",
    device: str = "cpu",
    system_prompt: str | None = None,
) -> Policy:
    """Load the base model and, if given, put the LoRA adapter of `adapter_dir` on top, unmerged.

    Only safetensors are read and no code of a model folder is run. Raises OSError if `model_dir`
    holds no model, ValueError if the adapter does not fit it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype), use_safetensors=True)
    if adapter_dir is not None:
        from peft import PeftModel

        # In the dtype of the weights: peft would widen the adapter to fp32 and cast at every layer.
        model = PeftModel.from_pretrained(model, str(adapter_dir), autocast_adapter_dtype=False)
    model.to(dtype=getattr(torch, dtype), device=device)
    model.get_output_embeddings().register_forward_pre_hook(contiguous_input)
    return Policy(model.eval(), tokenizer, system_prompt)


def contiguous_input(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give the output head a contiguous input.

    After a prefill, transformers slices out the last position of each row. torch 2.13 multiplies
    such a strided 3-D tensor by first copying the whole vocabulary matrix once per row: 6.6 s of a
    batch of 64, against milliseconds for copying the slice.
    """
    return tuple(argument.contiguous() for argument in arguments)


def messages(prompt: str, system_prompt: str | None) -> list[dict[str, str]]:
    """One user turn, after the system prompt if there is one."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": prompt}]


def render(policy: Policy, prompt: str) -> str:
    """The exact text the policy reads; a tokenizer without a chat template gets the prompt itself."""
    if policy.tokenizer.chat_template is None:
        return f"{policy.system_prompt}\n{prompt}\n" if policy.system_prompt else f"{prompt}\n"
    return policy.tokenizer.apply_chat_template(
        messages(prompt, policy.system_prompt), tokenize=False, add_generation_prompt=True
    )


def generate(
    policy: Policy,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """Answer every prompt greedily; answers come in the order of `prompts`, special tokens removed.

    Batches are cut from the prompts sorted by token count, longest first, so that padding is small
    and the largest batch comes first. `progress` is called with the number of answers done.
    """
    import torch

    if not prompts:
        return []
    tokenizer = policy.tokenizer
    # The template has written the special tokens already; a second <bos> would change the answers.
    plain = tokenizer.chat_template is None
    encoded = tokenizer([render(policy, p) for p in prompts], add_special_tokens=plain)["input_ids"]
    order = sorted(range(len(prompts)), key=lambda i: (-len(encoded[i]), i))
    answers = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer.pad({"input_ids": [encoded[i] for i in rows]}, return_tensors="pt").to(policy.device)
        with torch.inference_mode():
            out = policy.model.generate(
                **batch,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        new = out[:, batch["input_ids"].shape[1] :]
        for i, text in zip(rows, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            answers[i] = text.strip()
        progress(min(start + batch_size, len(order)))
    return answers
