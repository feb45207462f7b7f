"""What this machine, and the packages on it, can do: asked before anything is computed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any


def lacking(device: str, quantization: str, backend: str) -> str | None:
    """What an experiment asks for that is not here, and what to do; None if all is here."""
    if device != "cpu":
        import torch

        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            return f"policy.device: {device} cannot be used here ({reason}); set it to cpu, or install a build for it"
        # transformers' Trainer would spread a batch over all of them; packed sequences cannot be split.
        if (cards := torch.cuda.device_count()) > 1:
            return f"policy.device: cuda would be {cards} GPUs; set CUDA_VISIBLE_DEVICES to the number of one of them"
    if quantization == "nf4" and find_spec("bitsandbytes") is None:
        return "policy.quantization: nf4 needs bitsandbytes: `pip install apt-assets[qlora]`, or set it to none"
    if backend == "vllm" and find_spec("vllm") is None:
        return "policy.backend: vllm is not installed: `pip install apt-assets[vllm]`, or set it to transformers"
    return None


def skeleton(model_dir: Path) -> Any:
    """A model's modules and shapes as its configuration has them; no weights are read."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        config = AutoConfig.from_pretrained(model_dir, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def linear_layers(model: Any) -> list[str]:
    """Full names of the linear layers of a model, its output head left out."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    layers = model.named_modules()
    return [name for name, layer in layers if isinstance(layer, torch.nn.Linear | Conv1D) and layer is not head]
