"""Log-probabilities under the reference model, by pair."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.engine.scope import RowScope
from apt_assets.engine.view import View
from apt_assets.rows import policy
from resources.store.digest import digest_rows
from resources.store.kinds import RowKind
from resources.store.rows import Batches, Compute, RowTable

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step
    from resources.training.trainer import TrainingRecipe

REFERENCES = RowKind(
    "references",
    table="references",
    settings=(*policy.SETTINGS, "policy.system_prompt", "policy.batch_tokens", "training.max_length"),
    identities=policy.IDENTITIES,
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


def references_of(
    step: "Step", pairs: "pl.DataFrame", recipe: "TrainingRecipe", made_of: tuple[Path, str | None], compute: Compute
) -> list[list[float]]:
    """[log p(chosen), log p(rejected)] in nats of every pair. compute: of the trainer that was made of this recipe,
    base model and system prompt."""
    return step.fill(
        REFERENCES,
        pair_keys(pairs),
        lambda scope, missing: log_probs(scope, recipe, made_of, compute, missing),
        "reference model",
        "pairs",
        adapter=reference_adapter(step),
    ).values


def log_probs(
    scope: RowScope, recipe: "TrainingRecipe", made_of: tuple[Path, str | None], compute: Compute, missing: list[int]
) -> Batches[list[float]]:
    """What the trainer computes, once it is sure that it was made of what the key of these rows says."""
    policy, max_length = scope.settings.policy, scope.settings.training.max_length
    said = (policy.dtype, policy.quantization, policy.device, policy.batch_tokens, max_length)
    made = (recipe.dtype, recipe.quantization, recipe.device, recipe.batch_tokens, recipe.max_length)
    assert (said, (scope.outside("base_model"), policy.system_prompt)) == (made, made_of), "a trainer of its own"
    execution = scope.outside("execution")
    assert (execution.path, execution.shape_free) == (recipe.path, recipe.shape_free), "a trainer that is run otherwise"
    return compute(missing)


def recipe_of(training: Any, policy: Any, learning_rate: float, execution: Any) -> "TrainingRecipe":
    """The recipe of these sections of an experiment, or of a stage's view of them, at this peak learning rate."""
    from resources.training.trainer import TrainingRecipe

    return TrainingRecipe(
        **training.model_dump(exclude={"learning_rate", "learning_rate_decay", "workers", "strategy"}),
        learning_rate=learning_rate,
        batch_tokens=policy.batch_tokens,
        dtype=policy.dtype,
        quantization=policy.quantization,
        device=policy.device,
        path=execution.path,
        shape_free=execution.shape_free,
    )


def pair_keys(pairs: "pl.DataFrame") -> list[str]:
    return digest_rows(*(pairs[name].to_list() for name in ("prompt", "chosen", "rejected")), digits=32)
