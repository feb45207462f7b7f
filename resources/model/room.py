"""How many tokens a model reads at once."""

from pathlib import Path
from typing import Any

# Recurrent: what its configuration names is the length of the texts that it was trained on.
UNBOUNDED = ("rwkv",)


def most_tokens(folder: Path) -> int | None:
    """Positions that the model of a folder has, with the scaling of its positions that its configuration names;
    None: it has no such limit. A sliding window is none: what is behind it is only not looked at."""
    from transformers import AutoConfig

    return positions_of(AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config())


def positions_of(config: Any) -> int | None:
    positions = getattr(config, "max_position_embeddings", None)
    # ALiBi weighs by distance, whatever the distance is. Below 1 is how XLNet says that it has no limit.
    if config.model_type in UNBOUNDED or getattr(config, "alibi", False) or not positions or positions < 1:
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    kind, factor = rope.get("rope_type"), rope.get("factor") or 1.0
    # Of these the positions are those before the scaling; of all others, such as llama3 and longrope, those after it.
    if kind in ("linear", "dynamic"):
        return int(positions * factor)
    if kind == "yarn":
        return max(positions, int((rope.get("original_max_position_embeddings") or positions) * factor))
    return int(positions)
