"""Answers by vLLM in this process."""

from collections.abc import Sequence

from apt_assets.engine.scope import RowScope
from apt_assets.rows import policy
from resources.store.kinds import RowKind
from resources.store.rows import Batches

ANSWERS = RowKind(
    "answers by vllm",
    table="answers",
    # The back end brings in vLLM's own version (resources/store/kinds.py, CHOSEN).
    settings=("policy.backend", "policy.dtype", "policy.system_prompt", "policy.max_new_tokens"),
    identities=("base_model",),
    libraries=policy.LIBRARIES,
    given=("adapter",),
    code=(__name__,),
)


def answer(scope: RowScope, prompts: Sequence[str]) -> Batches[str]:
    from resources.model.policy import Reader, load_tokenizer
    from resources.model.vllm import generate_in_vllm

    settings, folder, adapter = scope.settings.policy, scope.outside("base_model"), scope.given["adapter"]
    assert settings.backend == "vllm"
    return generate_in_vllm(
        Reader(load_tokenizer(folder), settings.system_prompt),
        folder,
        None if adapter is None else adapter.folder,
        prompts,
        dtype=settings.dtype,
        max_new_tokens=settings.max_new_tokens,
    )
