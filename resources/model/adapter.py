"""A LoRA adapter that was made elsewhere: whether the loop can go on training it, on this model.

Read are its configuration and its weights; of the model only the shape is built.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from resources.model.capabilities import linear_layers, skeleton
from resources.model.files import shapes_in

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# What makes a LoRA the one it is. Whatever else peft can do to a model changes the base model's own weights, or
# adds some that training, answering and export here do not handle.
LORA = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out",
)  # fmt: skip
# What only tells of its making, or decides nothing by itself.
ASIDE = (
    "peft_type", "task_type", "init_lora_weights", "auto_mapping", "base_model_name_or_path", "revision",
    "inference_mode", "peft_version", "megatron_core", "qalora_group_size", "runtime_config",
)  # fmt: skip
# Values of init_lora_weights that leave the base model's weights as they are.
BEGINNINGS = (True, False, None, "gaussian", "orthogonal")


def problem_with(folder: Path, model_dir: Path) -> str | None:
    """Why the adapter of `folder`, whose files are whole, cannot be trained further on the model of `model_dir`; None:
    it can."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        found = config.get("peft_type") if isinstance(config, dict) else None
        return f"peft_type in adapter_config.json is {found}, not LORA"
    if config.get("task_type") not in ("CAUSAL_LM", None):
        return f"task_type in adapter_config.json is {config['task_type']}, not CAUSAL_LM"
    if config.get("init_lora_weights") not in BEGINNINGS:
        return f"init_lora_weights is {config['init_lora_weights']}, which changes the base model's own weights"
    for name in sorted(config.keys() - {*LORA, *ASIDE}):
        if config[name] and config[name] != "none":
            return f"it uses {name}, and not only a LoRA"
    return misfit(config, folder / "adapter_model.safetensors", model_dir)


def scale(folder: Path, factor: float, out: Path) -> None:
    """Write the adapter of `folder` to `out` with its update of every layer multiplied by `factor`: a point on the
    line from the model that it was trained on to the trained one (Wise-FT, Wortsman et al. 2022, arXiv 2109.01903).
    Of a DoRA the trained magnitudes stay as they are, so that it is near that line and does not end at the model."""
    from safetensors.torch import load_file, save_file

    config, weights = ADAPTER_FILES
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / config, out / config)
    scaled = {name: factor * it if ".lora_B." in name else it for name, it in load_file(folder / weights).items()}
    save_file(scaled, out / weights, metadata={"format": "pt"})


def misfit(config: dict[str, Any], weights: Path, model_dir: Path) -> str | None:
    """What of the weights' names and shapes is not as a LoRA of this configuration has it on the model."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import load_file

    model = skeleton(model_dir)
    linear = set(linear_layers(model))
    try:
        with torch.device("meta"):
            lora = LoraConfig(**{name: config[name] for name in LORA if name in config}, init_lora_weights=False)
            adapted = get_peft_model(model, lora)
    except Exception as error:  # whatever peft says to a configuration that it cannot take
        return f"peft cannot put it on that model ({error})"
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    needed = {name: list(weight.shape) for name, weight in state.items()}
    found = shapes_in(weights)
    adapted_layers = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in needed}
    if others := sorted(adapted_layers - linear):
        return f"it adapts {others[0]}, which is the output head or no linear layer"
    for name in sorted(needed.keys() | found.keys()):
        if needed.get(name) != found.get(name):
            return f"{name} has the shape {found.get(name)} where that model needs {needed.get(name)}"
    for name, weight in load_file(weights).items():
        if not weight.isfinite().all():
            return f"{name} has values that are not finite numbers"
    return None
