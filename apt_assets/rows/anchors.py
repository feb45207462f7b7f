"""Texts that the model which the loop starts from writes unasked, and what it expects in each of their places."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apt_assets.engine.scope import RowScope
from apt_assets.engine.spread import spread
from apt_assets.engine.view import View
from apt_assets.rows import policy
from resources.store.digest import digest_json
from resources.store.kinds import RowKind
from resources.store.rows import Batches, renumber

if TYPE_CHECKING:
    import polars as pl
    import torch

    from apt_assets.engine.step import Step
    from resources.model.packing import Ids
    from resources.model.unprompted import Origin

WRITTEN = RowKind(
    "written",
    table="anchors",
    settings=(*policy.SETTINGS, "policy.batch_tokens", "anchor.tokens", "anchor.temperature"),
    identities=policy.IDENTITIES,
    libraries=policy.LIBRARIES,
    given=("adapter",),
    code=(__name__,),
    memory="anchors",
)
LIKELY = RowKind(
    "likely",
    table="anchors",
    settings=(*policy.SETTINGS, "policy.batch_tokens"),
    identities=policy.IDENTITIES,
    libraries=policy.LIBRARIES,
    given=("adapter",),
    code=(__name__,),
    memory="scores",
)
KINDS = (WRITTEN, LIKELY)
PARTS = ("int32", "float32")  # of a row of LIKELY: tokens, and their log-probabilities in nats


@dataclass(frozen=True)
class Text:
    """origin: where it begins, or "file" of one's own. given: how many of its token ids it begins with, unscored."""

    origin: str
    ids: "Ids"
    given: int
    said: str  # what stands behind that


def origins(texts: int, chat_share: float) -> "list[Origin]":
    """Where each text begins. A longer list begins with a shorter one: more texts are the same ones and others."""
    return ["chat" if int((n + 1) * chat_share) > int(n * chat_share) else "document" for n in range(texts)]


def written_keys(origins: "Sequence[Origin]") -> list[str]:
    return [f"{origin}-{n}" for n, origin in enumerate(origins)]


def missing(view: View, begins: "Sequence[Origin]") -> int:
    """How many rows `written_texts` and `save_likely` would compute."""
    adapter, tokens = policy.initial_adapter(view), view.settings.anchor.tokens
    keys = written_keys(begins)
    written = view.rows(WRITTEN, adapter=adapter).read(keys)
    unwritten = len(keys) - len(written)
    if view.settings.anchor.form != "kl":
        return unwritten
    likely = [likely_key(ids, len(ids) - tokens) for ids in written.values()]
    return 2 * unwritten + view.rows(LIKELY, adapter=adapter).missing(likely)


def likely_key(ids: "Ids", given: int) -> str:
    return digest_json((ids, given))[:32]


def written_texts(step: "Step") -> list[Text]:
    """As many as `anchor.texts` says, each sampled by its place in the list."""
    from resources.model.policy import load_tokenizer
    from resources.model.unprompted import headers, vocabulary

    settings = step.settings.anchor
    begins = origins(settings.texts, settings.chat_share)
    if not begins:
        return []
    keys = written_keys(begins)
    found = step.fill(
        WRITTEN,
        keys,
        lambda scope, missing: renumber(spread(write, scope, [(begins[n], keys[n]) for n in missing]), missing),
        "anchor texts",
        "texts",
        adapter=policy.initial_adapter(step),
    ).values
    base_model = step.outside("base_model")
    tokenizer = load_tokenizer(base_model)
    begun = headers(tokenizer, vocabulary(base_model)).keys()
    begins = [origin if origin in begun else "document" for origin in begins]
    return [
        as_text(tokenizer, origin, ids, len(ids) - settings.tokens) for origin, ids in zip(begins, found, strict=True)
    ]


def own_texts(step: "Step") -> list[Text]:
    """Pieces of the files of `anchor.folder`. Raises UnreadableText."""
    from resources.model.own_texts import pieces
    from resources.model.policy import load_tokenizer
    from resources.model.unprompted import vocabulary

    settings, base_model = step.settings.anchor, step.outside("base_model")
    tokenizer, known = load_tokenizer(base_model), vocabulary(base_model)
    found = pieces(step.outside("anchor_folder"), tokenizer, known, settings.tokens, settings.texts)
    # The first token is predicted by nothing.
    return [as_text(tokenizer, "file", ids, max(len(ids) - settings.tokens, 1)) for ids in found]


def as_text(tokenizer: Any, origin: str, ids: "Ids", given: int) -> Text:
    return Text(origin, ids, given, tokenizer.decode(ids[given:]))


def as_table(texts: Sequence[Text]) -> "pl.DataFrame":
    """AnchorTexts."""
    import polars as pl

    from schemas.tables import AnchorTexts

    rows = [(text.origin, text.said, text.ids, text.given) for text in texts]
    return pl.DataFrame(rows, schema=AnchorTexts.empty().schema, orient="row")


def write(scope: RowScope, begun: "Sequence[tuple[Origin, str]]") -> "Batches[Ids]":
    """begun: (where it begins, seed) of each text."""
    from resources.model import unprompted

    settings = scope.settings
    return unprompted.say(
        policy.open_policy(scope),
        [origin for origin, _ in begun],
        seeds=[seed for _, seed in begun],
        tokens=settings.anchor.tokens,
        temperature=settings.anchor.temperature,
        batch_tokens=settings.policy.batch_tokens,
    )


def save_likely(step: "Step", texts: Sequence[Text]) -> None:
    """Write likely.safetensors: tokens and log_probs of all texts, one after another, (places, likeliest)."""
    import torch
    from safetensors.torch import save_file

    found = [unpacked(row) for row in likely_rows(step, [(text.ids, text.given) for text in texts])] if texts else []
    names = dict(zip(("tokens", "log_probs"), zip(*found, strict=True), strict=False))
    save_file({name: torch.cat(parts) for name, parts in names.items()}, step.out / "likely.safetensors")


def likely_rows(step: "Step", texts: "Sequence[tuple[Ids, int]]") -> list[dict[str, Any]]:
    return step.fill(
        LIKELY,
        [likely_key(*text) for text in texts],
        lambda scope, missing: renumber(spread(expect, scope, [texts[n] for n in missing]), missing),
        "what they make likely",
        "texts",
        adapter=policy.initial_adapter(step),
    ).values


def expect(scope: RowScope, texts: "Sequence[tuple[Ids, int]]") -> Batches[dict[str, Any]]:
    from resources.model.likely import likely_tokens

    opened = policy.open_policy(scope)
    for places, found in likely_tokens(opened, texts, batch_tokens=scope.settings.policy.batch_tokens):
        yield places, [packed(*its) for its in found]


def packed(*tensors: "torch.Tensor") -> dict[str, Any]:
    """{shape, parts} of tensors of one shape: a row is JSON, and these are thousands of numbers."""
    arrays = [tensor.cpu().numpy().astype(f"<{dtype[0]}4") for tensor, dtype in zip(tensors, PARTS, strict=True)]
    return {"shape": list(arrays[0].shape), "parts": [base64.b64encode(array.tobytes()).decode() for array in arrays]}


def unpacked(row: dict[str, Any]) -> "tuple[torch.Tensor, torch.Tensor]":
    import torch

    tokens, log_probs = (
        torch.frombuffer(bytearray(base64.b64decode(part)), dtype=getattr(torch, dtype)).view(row["shape"])
        for part, dtype in zip(row["parts"], PARTS, strict=True)
    )
    return tokens, log_probs
