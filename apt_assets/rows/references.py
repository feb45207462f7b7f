"""Log-probabilities under the reference model, by pair; and the recipe that training and they share."""

from typing import TYPE_CHECKING, Any

from apt_assets.engine.view import View
from apt_assets.rows.policy import policy_context
from resources.store.digest import digest_json
from resources.store.rows import RowTable

if TYPE_CHECKING:
    import polars as pl

    from resources.training.trainer import TrainingRecipe


def reference_rows(view: View) -> RowTable:
    """Log-probabilities of chosen and rejected answers under the reference model, by pair."""
    settings = view.settings.training
    context = {
        **policy_context(view, view.previous_adapter() if settings.reference == "previous" else None),
        "trl": view.stage.library_versions(("trl",)),
        "system_prompt": view.settings.policy.system_prompt,
        "batch_tokens": view.settings.policy.batch_tokens,
        "max_length": settings.max_length,
        "code": view.code("resources.training.trainer", "resources.training.trainer"),
    }
    return view.row_table("references", context)


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
