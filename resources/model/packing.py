"""Many sequences that share beginnings, in one pass of a causal language model: each shared token once.

The sequences of a batch (prompts with their answers) are laid out as one packed sequence without
padding: a prefix that all of them share, then row by row a stem with its branches. A branch sees the
prefix, its stem and itself, at the positions it has in its own sequence, so its hidden states are those
of a pass of its own. It is the attention that knows of rows; every other layer sees tokens. The idea of
computing a shared prompt once is that of prefix caching in inference servers (vLLM, Kwon et al. 2023,
arXiv 2309.06180) and of tree attention (Medusa, Cai et al. 2024, arXiv 2401.10774).

A model takes part if it is loaded with attn_implementation=ATTENTION and passes keyword arguments on to
its attention, as the models of transformers do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

ATTENTION = "packed_rows"
WIDTH = 16  # tokens; rows are padded to a multiple of it, inside the attention only
UNIT = 16  # tokens; a packed sequence is filled up to a multiple of it
SHAPE_FREE = "_apt_shape_free"  # in the __dict__ of a model: nothing that is saved with it

Ids = list[int]


class Layout(Protocol):
    """Who sees whom in one pass. `attend` gets query (heads, N, size), key and value (groups, N, size)
    of one layer and returns (N, heads, size)."""

    def attend(
        self, layer: int, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scale: float
    ) -> "torch.Tensor": ...


@dataclass(frozen=True)
class Row:
    """A stem and the branches that go on from it; each a list of token ids, possibly empty. alone: it does not go on
    from what the other rows of its pack begin with."""

    stem: Ids
    branches: tuple[Ids, ...] = ()
    alone: bool = False

    @property
    def length(self) -> int:
        return len(self.stem) + sum(map(len, self.branches))


@dataclass
class Group:
    """Rows of one padded width. index: (rows, width), where each token stands in the packed sequence;
    mask: (rows, 1, width, prefix + width), 0 where a token is seen and -inf where not."""

    index: "torch.Tensor"
    mask: "torch.Tensor"


class Pack:
    """One packed sequence: `prefix`, then the rows, then filler up to `size` tokens.

    ids and positions are (1, size). `starts` tells where each row begins: its stem, then its branches.
    """

    def __init__(self, prefix: Ids, rows: Sequence[Row], size: int = 0, device: Any = "cpu"):
        import torch

        ids, positions = list(prefix), list(range(len(prefix)))
        self.prefix, self.starts = len(prefix), []
        for row in rows:
            self.starts.append(len(ids))
            begins = 0 if row.alone else len(prefix)
            ids += row.stem
            first = begins + len(row.stem)
            positions += range(begins, first)
            for branch in row.branches:
                ids += branch
                positions += range(first, first + len(branch))
        self.used = len(ids)
        self.size = max(size, round_up(self.used, UNIT))
        filler = self.size - self.used
        self.ids = torch.tensor([ids + [0] * filler], device=device)
        self.positions = torch.tensor([positions + [0] * filler], device=device)
        self.groups = group_rows(rows, self.starts, len(prefix), device)
        # The groups give their tokens back row by row, padding included; this finds each token again.
        places = torch.zeros(self.size, dtype=torch.long, device=device)
        places[: self.prefix] = torch.arange(self.prefix, device=device)
        settle_places(self.groups, places, self.prefix)
        self.places = places

    def attend(
        self, layer: int, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scale: float
    ) -> "torch.Tensor":
        import torch

        done = []
        prefix = key[:, : self.prefix], value[:, : self.prefix]
        if self.prefix:
            causal = causal_mask(self.prefix, query)
            keys, values = prefix
            done.append(attention(query[None, :, : self.prefix], keys[None], values[None], causal, scale)[0])
        for group in self.groups:
            done.append(attend_group(group, query, key, value, prefix, scale).flatten(0, 1))
        return torch.cat(done)[self.places]


def attend_group(
    group: Group,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    prefix: "tuple[torch.Tensor, torch.Tensor]",
    scale: float,
) -> "torch.Tensor":
    """The rows of a group, (rows, width, heads, size), behind a prefix whose keys and values are
    (groups, prefix, size) each."""
    import torch

    def of_rows(states: "torch.Tensor") -> "torch.Tensor":
        return states[:, group.index].transpose(0, 1)

    def behind(head: "torch.Tensor", states: "torch.Tensor") -> "torch.Tensor":
        return torch.cat([head.expand(len(group.index), *head.shape), of_rows(states)], dim=2)

    keys, values = behind(prefix[0], key), behind(prefix[1], value)
    return attention(of_rows(query), keys, values, group.mask, scale)


def attention(
    query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", mask: "torch.Tensor", scale: float
) -> "torch.Tensor":
    """Grouped-query attention: query (rows, heads, width, size), key and value (rows, groups, seen, size),
    mask (rows or 1, 1, width, seen) -> (rows, width, heads, size)."""
    import torch

    rows, heads, width, size = query.shape
    if query.device.type != "cpu":
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, mask.to(query.dtype), scale=scale, enable_gqa=heads != key.shape[1]
        )
        return mixed.transpose(1, 2)
    # Written out: torch's fused attention on CPUs is slower at such sizes, and splits a batch over
    # threads so that a row's last bits depend on its place in the batch (docs/lab-log.md).
    groups, seen = key.shape[1], key.shape[2]
    scores = query.reshape(rows, groups, -1, size) @ key.transpose(2, 3)
    scores = scores.view(rows, heads, width, seen) * scale + mask.to(query.dtype)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    mixed = weights.view(rows, groups, -1, seen) @ value
    return mixed.view(rows, heads, width, size).transpose(1, 2)


def group_rows(rows: Sequence[Row], starts: Sequence[int], prefix: int, device: Any) -> list[Group]:
    """The rows by padded width, widest first; index is -1 where a row is padded. Empty rows are in none."""
    import torch

    by_width: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        if row.length:
            by_width.setdefault(round_up(row.length, WIDTH), []).append(number)
    groups = []
    for width in sorted(by_width, reverse=True):
        members = by_width[width]
        index = torch.full((len(members), width), -1)
        seen = torch.zeros(len(members), width, width, dtype=torch.bool)
        for place, number in enumerate(members):
            row, stem = rows[number], len(rows[number].stem)
            index[place, : row.length] = torch.arange(starts[number], starts[number] + row.length)
            seen[place, :, :stem] = True
            first = stem
            for branch in row.branches:
                seen[place, first : first + len(branch), first : first + len(branch)] = True
                first += len(branch)
        # Padding sees itself, so that its softmax is over something.
        seen = (seen & torch.ones(width, width, dtype=torch.bool).tril()) | torch.eye(width, dtype=torch.bool)
        mask = torch.zeros(len(members), 1, width, prefix + width)
        mask[:, 0, :, prefix:].masked_fill_(~seen, float("-inf"))
        mask[[rows[number].alone for number in members], :, :, :prefix] = float("-inf")
        groups.append(Group(index.to(device), mask.to(device)))
    return groups


def settle_places(groups: Sequence[Group], places: "torch.Tensor", given: int) -> None:
    """Note in `places` (size,) where each token of the groups stands when they give theirs back one after
    another, `given` others before them; padding, -1 in an index until then, becomes token 0."""
    for group in groups:
        flat = group.index.flatten()
        real = (flat >= 0).nonzero().flatten()
        places[flat[real]] = given + real
        given += flat.numel()
        group.index = group.index.clamp(min=0)


def causal_mask(length: int, like: "torch.Tensor") -> "torch.Tensor":
    import torch

    return torch.full((1, 1, length, length), float("-inf"), device=like.device).triu(1)


def round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def by_prefix(sequences: Sequence[Ids], prefix: Ids) -> list[tuple[Ids, list[int]]]:
    """(prefix, positions of the sequences that go on from it), ([], positions of the others); not empty ones.

    A sequence goes with the prefix or not by what it is itself, so that others do not change its result.
    """
    those = [i for i, ids in enumerate(sequences) if len(ids) > len(prefix) and ids[: len(prefix)] == prefix]
    others = sorted(set(range(len(sequences))) - set(those))
    return [(ids, places) for ids, places in ((prefix, those), ([], others)) if places]


def shape_free(model: Any) -> bool:
    """Whether passes of `model` may have any number of tokens; if not, every pass is filled up to the same.

    A token's result must not depend on how many others are in its pass. What was found out for this model on this
    machine (resources.model.exactness) counts; before that float32 on a CPU is taken to be free.
    """
    usual = model.device.type == "cpu" and str(model.dtype) == "torch.float32"
    return vars(model).get(SHAPE_FREE, usual)


def set_shape_free(model: Any, free: bool) -> None:
    """What shape_free(model) says from now on."""
    vars(model)[SHAPE_FREE] = free


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with."""
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*sequences, strict=False)))


def packed_rows(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: Any,
    *,
    scaling: float | None = None,
    layout: Layout | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple["torch.Tensor", None]:
    """What transformers calls in each layer: (1, heads, N, size) -> ((1, N, heads, size), no weights).

    Raises NotImplementedError for attention that packed rows do not know: sliding windows shorter than
    the model's context, soft caps and sinks.
    """
    if layout is None:
        raise RuntimeError(f"a model loaded with attn_implementation={ATTENTION!r} runs on packed rows only")
    special = [name for name in ("softcap", "s_aux") if others.get(name) is not None]
    if sliding_window is not None and sliding_window < module.config.max_position_embeddings:
        special.append("sliding_window")
    if special:
        raise NotImplementedError(f"{type(module).__name__} uses {', '.join(special)}, which is not supported")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return layout.attend(module.layer_idx, query[0], key[0], value[0], scale)[None], None


def is_packed(model: Any) -> bool:
    """Whether a model was loaded for packed rows; one that was not runs plainly (resources/model/plain.py)."""
    return bool(model.config.get_text_config()._attn_implementation == ATTENTION)


def register() -> str:
    """Make the attention known to transformers; returns its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, packed_rows)
    return ATTENTION
