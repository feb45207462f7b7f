"""What this machine, and the packages on it, can do: asked before anything is computed."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def lacking(device: str, quantization: str) -> str | None:
    """What an experiment asks for that is not here, and what to do; None if all is here."""
    if device != "cpu":
        import torch

        show_one_gpu()
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
    return None


def show_one_gpu() -> None:
    """Of several GPUs, have this process and those that it starts see the first, unless someone chose. CUDA reads the
    variable once, when it is first used."""
    import torch

    if "CUDA_VISIBLE_DEVICES" not in os.environ and torch.cuda.device_count() > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = "0"


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


def unsuited_layers(model: Any) -> list[str] | None:
    """Full names of linear layers that LoRA cannot be added to although they look like any other; None: there are none.

    A layer of a model's own making that gives something else than its product (the routers of Llama 4 and
    Phi-3.5-MoE), and the output projection of a Mamba layer, whose kernels take its weight and not the layer.
    """
    import torch

    found = []
    for name, layer in model.named_modules():
        its_own = type(layer).__module__.startswith("transformers.models.")
        if isinstance(layer, torch.nn.Linear) and its_own and not gives_its_product(layer):
            found.append(name)
        if isinstance(getattr(layer, "conv1d", None), torch.nn.Conv1d) and hasattr(layer, "out_proj"):
            found.append(f"{name}.out_proj")
    return found or None


def gives_its_product(layer: Any) -> bool:
    import torch

    try:
        with torch.no_grad():
            product = layer(layer.weight.new_zeros(1, layer.in_features))
    except Exception:  # it wants more than a token's state
        return False
    return isinstance(product, torch.Tensor) and product.shape == (1, layer.out_features)
