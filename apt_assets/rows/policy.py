"""The policy that computes rows: the base model with an adapter, as this process holds them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from apt_assets.engine.scope import RowScope
from apt_assets.engine.view import View
from apt_assets.settings.iterations import ADAPTER_PARTS
from resources.store.digest import digest_json

if TYPE_CHECKING:
    from resources.model.policy import Policy

# What a policy is: declared by every kind of row that it computes; the adapter is given.
SETTINGS = ("policy.dtype", "policy.quantization", "policy.device")
IDENTITIES = ("base_model", "execution")
LIBRARIES = ("torch", "transformers", "tokenizers", "peft")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: its folder, and its identity, which is the content of its two files."""

    folder: Path
    digest: dict[str, str]


def adapter_of(view: View, given: str) -> Adapter | None:
    """The adapter in an input's artifact; None if it has none: of `policy`, the base model itself."""
    parts = {name: digest for name, digest in view.files(given).items() if name in ADAPTER_PARTS}
    return Adapter(view.artifact(given, ADAPTER_PARTS[1]).parent, parts) if parts else None


def initial_adapter(view: View) -> Adapter | None:
    """The adapter that the loop starts from; None: the base model itself."""
    found = view.outside("initial_adapter")
    return None if found is None else Adapter(*found)


def open_policy(scope: RowScope, system_prompt: str | None = None) -> "Policy":
    """The base model with the adapter that is given, by the experiment's settings."""
    from resources.model.held import BaseModel, open_held
    from resources.model.no_room import set_tell

    adapter: Adapter | None = scope.given["adapter"]
    settings, execution = scope.settings.policy, scope.outside("execution")
    base = BaseModel(
        scope.outside("base_model"), settings.dtype, settings.quantization, settings.device, execution.path
    )
    held = (None, None) if adapter is None else (adapter.folder, digest_json(adapter.digest))
    policy = open_held("policy", base, execution.shape_free, *held)
    set_tell(policy.model, scope.tell)
    return replace(policy, system_prompt=system_prompt)
