"""Answers of a server with OpenAI's completions interface."""

from collections.abc import Sequence

from apt_assets.engine.scope import RowScope
from apt_assets.rows import policy
from resources.store.kinds import RowKind
from resources.store.rows import Batches

ANSWERS = RowKind(
    "answers by openai",
    table="answers",
    settings=("policy.server.url", "policy.server.engine", "policy.system_prompt", "policy.max_new_tokens"),
    free=("policy.server.concurrency", "policy.server.timeout"),
    identities=("base_model",),
    libraries=policy.LIBRARIES,
    given=("adapter",),
    code=(__name__,),
)


def answer(scope: RowScope, prompts: Sequence[str]) -> Batches[str]:
    from resources.model.openai_server import Served, generate_served, served_name
    from resources.model.policy import Reader, load_tokenizer

    settings, folder, adapter = scope.settings.policy, scope.outside("base_model"), scope.given["adapter"]
    base, server = scope.identity("base_model"), settings.server
    served = Served(
        url=server.url,
        base=served_name(base, None),
        name=served_name(base, None if adapter is None else adapter.digest),
        base_folder=folder,
        adapter_folder=None if adapter is None else adapter.folder,
        concurrency=server.concurrency,
        timeout=server.timeout,
    )
    reader = Reader(load_tokenizer(folder), settings.system_prompt)
    return generate_served(reader, served, prompts, max_new_tokens=settings.max_new_tokens)
