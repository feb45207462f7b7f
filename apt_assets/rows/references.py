"""Log-probabilities under the reference model, by pair."""

from typing import TYPE_CHECKING, Any

from apt_assets.engine.view import View
from apt_assets.rows import policy
from resources.store.digest import digest_json
from resources.store.kinds import RowKind
from resources.store.rows import RowTable

if TYPE_CHECKING:
    import polars as pl

    from resources.training.trainer import TrainingRecipe

REFERENCES = RowKind(
    "references",
    table="references",
    settings=(*policy.SETTINGS, "policy.system_prompt", "policy.batch_tokens", "training.max_length"),
    identities=("base_model",),
    libraries=(*policy.LIBRARIES, "trl"),
    given=("adapter",),
    code=(__name__,),
)


def reference_rows(view: View) -> RowTable:
    """Log-probabilities of chosen and rejected answers under the reference model, by pair."""
    return view.rows(REFERENCES, adapter=reference_adapter(view))


def reference_adapter(view: View) -> policy.Adapter | None:
    """Of the reference model: the policy's, or none."""
    return policy.adapter_of(view, "policy") if view.settings.training.reference == "previous" else None


def recipe_of(training: Any, policy: Any, learning_rate: float) -> "TrainingRecipe":
    """The recipe of these sections of an experiment, or of a stage's view of them, at this peak learning rate."""
    from resources.training.trainer import TrainingRecipe

    return TrainingRecipe(
        **training.model_dump(exclude={"learning_rate", "learning_rate_decay"}),
        learning_rate=learning_rate,
        batch_tokens=policy.batch_tokens,
        dtype=policy.dtype,
        quantization=policy.quantization,
        device=policy.device,
    )


def pair_keys(pairs: "pl.DataFrame") -> list[str]:
    return [digest_json(list(row))[:32] for row in pairs.select("prompt", "chosen", "rejected").iter_rows()]
