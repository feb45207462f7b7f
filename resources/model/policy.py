"""Loading a policy: the base model with an optional LoRA adapter, to be run as it agrees with transformers."""

from functools import cache
from pathlib import Path
from typing import Any

from resources.model.agreement import run_path
from resources.model.packing import register, set_shape_free
from resources.model.prompts import (
    Policy,
    Reader,
    RunPath,
    beginning,
    encode,
    end_tokens,
    load_tokenizer,
    messages,
    render,
)

# How it reads a prompt stands in prompts.py, below what tries a model; whoever loads one gets it here.
__all__ = [
    "Policy", "Reader", "RunPath", "beginning", "encode", "end_tokens", "load_base", "load_policy", "load_tokenizer",
    "messages", "render",
]  # fmt: skip


def load_policy(
    model_dir: Path | str,
    adapter_dir: Path | None = None,
    *,
    dtype: str = "bfloat16",
    quantization: str = "none",
    device: str = "cpu",
    system_prompt: str | None = None,
    path: RunPath | None = None,
    shape_free: bool | None = None,
) -> Policy:
    """Load the base model and, if given, the LoRA adapter of `adapter_dir`, to be run on `path`; None: on the one that
    a trial finds, which loads the base model twice more, once in a process (resources/model/agreement.py). shape_free:
    what was found out of its passes (resources/model/exactness.py).

    Only safetensors are read and no code of a model folder is run. Raises OSError if `model_dir`
    holds no model, ValueError if the adapter does not fit it.
    """
    path = path or tried(str(model_dir), newest_file(Path(model_dir)), dtype, quantization, device)
    model, tokenizer = load_base(model_dir, dtype, quantization, device, path)
    if adapter_dir is not None:
        beside = with_adapter(model, adapter_dir)
        if is_merged(dtype, quantization):
            beside.merge_and_unload()
    if shape_free is not None:
        set_shape_free(model, shape_free)
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

    from resources.model.products import use_faster_products

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
    if quantization == "none":
        model = model.to(device)  # not also to the dtype: that would round the frequencies of the positions
    # lm-eval ties head and embedding by what the configuration says, also where the checkpoint has both, which
    # transformers leaves apart: the model stays what was read.
    model.tie_weights = lambda *_, **__: None
    if path == "packed":  # on the plain one it is as in transformers
        use_faster_products(model)
    return model, load_tokenizer(model_dir)


def with_adapter(model: Any, folder: Path) -> Any:
    """Put the LoRA adapter of `folder` beside the weights of the model, which computes with it from then on; returns
    peft's model around it, to take it off again. That one is not asked for answers: peft would leave a configuration of
    its own on the model, and reads one of an adapter without task_type otherwise."""
    from peft import PeftModel

    # In the dtype of the weights: peft would widen the adapter to fp32 and cast at every layer.
    return PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)


def is_merged(dtype: str, quantization: str) -> bool:
    """Whether an adapter is added to the weights: in float32 that loses nothing that matters (about 1e-7 of a weight)
    and makes a pass a fifth faster; in fewer bits it would be rounded away."""
    return dtype == "float32" and quantization == "none"


@cache
def tried(model_dir: str, changed: int, dtype: str, quantization: str, device: str) -> RunPath:
    """The path on which a base model gives what transformers gives. changed: when its folder was, in nanoseconds."""

    def load(path: RunPath) -> Policy:
        return load_policy(model_dir, dtype=dtype, quantization=quantization, device=device, path=path)

    return run_path(load)[0]


def newest_file(folder: Path) -> int:
    """Nanoseconds of the last change in it, which no program can put back."""
    return max((path.stat().st_ctime_ns for path in folder.glob("*")), default=0)
