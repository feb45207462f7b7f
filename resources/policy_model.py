"""The policy: a causal language model with an optional LoRA adapter, and its answers.

The adapter stays an adapter (`peft.PeftModel`): merging into bf16 weights would round it away and
make the served model differ from the trained one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WIDTH = 16  # tokens; batches are padded to a multiple of it


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
    model = AutoModelForCausalLM.from_pretrained(
        model_dir,
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        # torch's fused attention splits a batch over CPU threads so that a row's last bits depend on its
        # place in the batch; the plain one does not (see `generate`).
        attn_implementation="eager" if device == "cpu" else None,
    )
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
    on_batch: Callable[[list[int], list[str]], None] = lambda rows, answers: None,
) -> list[str]:
    """Answer every prompt greedily; answers come in the order of `prompts`, special tokens removed.

    An answer depends on its prompt alone, to the last bit on a CPU, and not on what else is asked:
    every batch has exactly `batch_size` rows (the last one is filled up) and is padded to a width
    that follows from a row's own length, so a row always meets the same shapes. That is what makes
    answers reusable row by row. tests/test_embedded.py holds it to that.

    `on_batch` gets the positions and answers of each batch; `progress` the number of answers done.
    """
    import torch

    tokenizer = policy.tokenizer
    # The template has written the special tokens already; a second <bos> would change the answers.
    plain = tokenizer.chat_template is None
    encoded = [tokenizer(render(policy, p), add_special_tokens=plain)["input_ids"] for p in prompts]
    answers = [""] * len(prompts)
    done = 0
    for width, rows in batches_by_width([len(ids) for ids in encoded], batch_size):
        filled = rows + rows[:1] * (batch_size - len(rows))
        batch = tokenizer.pad(
            {"input_ids": [encoded[i] for i in filled]}, padding="max_length", max_length=width, return_tensors="pt"
        ).to(policy.device)
        with torch.inference_mode():
            out = policy.model.generate(
                **batch,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        texts = tokenizer.batch_decode(out[: len(rows), width:], skip_special_tokens=True)
        for i, text in zip(rows, texts, strict=True):
            answers[i] = text.strip()
        on_batch(rows, [answers[i] for i in rows])
        done += len(rows)
        progress(done)
    return answers


def batches_by_width(lengths: Sequence[int], batch_size: int) -> Iterator[tuple[int, list[int]]]:
    """(padded width, positions) batches: width is a length rounded up to 16, widest first.

    Rows of one width only share a batch, at most `batch_size` of them.
    """
    by_width: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        by_width.setdefault(-(-max(length, 1) // WIDTH) * WIDTH, []).append(position)
    for width in sorted(by_width, reverse=True):
        rows = by_width[width]
        for start in range(0, len(rows), batch_size):
            yield width, rows[start : start + batch_size]
