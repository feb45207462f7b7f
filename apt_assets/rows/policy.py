"""The policy of a stage: loaded once, and what it is by content."""

from typing import TYPE_CHECKING, Any

from apt_assets.engine.view import Adapter, View
from resources.store.digest import digest_json

if TYPE_CHECKING:
    from apt_assets.engine.step import Step
    from resources.model.policy import Policy


def open_policy(step: "Step", adapter: Adapter | None) -> "Policy":
    """The base model with `adapter`, by the experiment's settings; loaded once a stage."""
    from resources.model.policy import load_policy

    settings = step.settings.policy
    key = digest_json(None if adapter is None else adapter.digest)
    if key not in step.loaded:
        step.loaded[key] = load_policy(
            step.base_model(),
            None if adapter is None else adapter.folder,
            dtype=settings.dtype,
            quantization=settings.quantization,
            device=settings.device,
            system_prompt=settings.system_prompt,
        )
    return step.loaded[key]


def policy_context(view: View, adapter: Adapter | None) -> dict[str, Any]:
    """What a policy is, by content, and what computes with it."""
    settings = view.settings.policy
    return {
        "base_model": view.identity("base_model"),
        "adapter": None if adapter is None else adapter.digest,
        "dtype": settings.dtype,
        "quantization": settings.quantization,
        "device": settings.device,
        "libraries": view.library_versions("torch", "transformers", "peft"),
    }
