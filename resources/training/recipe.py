"""What decides a training run beside its pairs and its model."""

from dataclasses import dataclass
from typing import Literal

from resources.model.prompts import RunPath


@dataclass(frozen=True)
class TrainingRecipe:
    """Settings of one training run; learning_rate is the peak of this very run."""

    learning_rate: float
    beta: float
    nll_weight: float
    reference: Literal["previous", "base"]
    lora_rank: int
    lora_alpha: int
    batch_size: int
    epochs: int
    warmup_steps: int
    max_length: int
    batch_tokens: int
    seed: int
    dtype: str
    device: str
    quantization: str = "none"
    lora_targets: str | list[str] = "all-linear"
    objective: Literal["dpo", "sft"] = "dpo"
    loss: Literal["sigmoid", "sigmoid_norm"] = "sigmoid"
    path: RunPath = "packed"
    shape_free: bool | None = None
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
