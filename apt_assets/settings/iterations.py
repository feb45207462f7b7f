"""Iteration keys: zero-padded, because Dagster submits the runs of a backfill in string order."""

import re

BASE = "base"  # the iteration key of what is not partitioned
ADAPTER_PARTS = ("adapter_config.json", "adapter_model.safetensors")  # what an adapter is, by content


def key_of(number: int) -> str:
    """1 -> "0001". Raises ValueError outside 1..9999."""
    if not 1 <= number <= 9999:
        raise ValueError(f"an iteration is 1 to 9999, got {number}")
    return f"{number:04d}"


def number_of(key: str) -> int:
    """ "0001" -> 1. Raises ValueError for any other shape: partition keys are untrusted input."""
    if not is_key(key):
        raise ValueError(f"an iteration key is four digits such as 0001, got {key!r}")
    return int(key)


def is_key(key: str) -> bool:
    return re.fullmatch(r"[0-9]{4}", key) is not None and key != "0000"
