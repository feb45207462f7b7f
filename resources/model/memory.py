"""How much memory a model needs on its device for what is asked of it, worked out from its files before it is loaded.

Read are config.json and the headers of weights. What is counted is what is there at the peak: the weights, what of the
layers is kept for the way back or is under way, logits of the whole vocabulary, and keys and values of answers in the
making. Of layers it is what a Llama's keep (resources/model/packing.py); other architectures differ in parts of them.
What Python and its libraries take themselves is not in it. Checked against measured peaks: benchmarks/memory.py, on a
GPU benchmarks/gpu.py.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

from resources.model.files import shapes_in, weights_of
from resources.model.generation import CACHE_WIDTH, RUNNING_SHARE
from resources.model.packing import WIDTH, round_up

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4 = 0.516  # bytes a weight: 4 bits, and a scale for each 64 that is itself in 8 bits (arXiv 2305.14314)
PLACES = 1.12  # times what comes and goes on a CPU: freed tensors leave places that others do not fit into (measured)
ADAM = 4  # numbers a trained weight: itself, its gradient, and two moments
HEAD_TOKENS, HEAD_COLUMNS = 4096, 32768  # of a tile in which TRL's head is computed

# Names under which configurations have what decides the size of a layer.
NAMES = {
    "hidden": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "groups": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "inner": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
}


class UnknownSizes(ValueError):
    """A configuration does not say how large a layer is, under any name that is known here."""


@dataclass(frozen=True)
class Sizes:
    """What of a model decides the memory that it needs; all but `linear` and `hidden` are numbers of elements.

    weights: all. kept_whole: those of them that are never quantised, embeddings and output head. linear: (name, inputs,
    outputs) of each linear layer but the head. inner: of the feed-forward part of a layer, of all experts that a token
    goes to.
    """

    weights: int
    kept_whole: int
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    groups: int
    head_size: int
    inner: int
    linear: tuple[tuple[str, int, int], ...]

    def adapted(self, targets: str | Sequence[str]) -> list[tuple[str, int, int]]:
        """The linear layers to which LoRA is added."""
        if targets == "all-linear":
            return list(self.linear)
        return [layer for layer in self.linear if f".{layer[0]}".endswith(tuple(f".{one}" for one in targets))]


@dataclass(frozen=True)
class Held:
    """How weights are held. quantization: see policy.quantization."""

    dtype: str
    quantization: str = "none"
    device: str = "cpu"

    @property
    def element(self) -> int:
        return BYTES[self.dtype]


@dataclass(frozen=True)
class Pass:
    """The rows of a pass: `prefix` tokens that all begin with, and how many more each has."""

    rows: tuple[int, ...]
    prefix: int = 0

    @property
    def tokens(self) -> int:
        return self.prefix + sum(self.rows)

    @cached_property
    def seen(self) -> int:
        """Pairs of a token and one that its row lets it look at, padding included."""
        widths = [round_up(row, WIDTH) for row in self.rows]
        return self.prefix**2 + sum(width * (self.prefix + width) for width in widths)

    @property
    def states(self) -> int:
        """Keys, and as many values, that the rows look at: what they begin with is there once for each."""
        return self.prefix + sum(self.prefix + round_up(row, WIDTH) for row in self.rows)


def sizes_of(folder: Path) -> Sizes:
    """Of the model in a folder of transformers' form. Raises UnknownSizes, and Unusable if there are no weights."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {**config, **config.get("text_config", {})}
    found: dict[str, int] = {
        what: next((config[name] for name in names if config.get(name)), 0) for what, names in NAMES.items()
    }
    vocabulary: int = config.get("vocab_size") or 0
    if not (vocabulary and found["hidden"] and found["layers"] and found["heads"]):
        raise UnknownSizes(f"{folder / 'config.json'} does not say how large a layer is")
    shapes = {name: shape for file in weights_of(folder) for name, shape in shapes_in(file).items()}
    tables = {name for name, shape in shapes.items() if (len(shape) == 2 and vocabulary in shape) or "embed" in name}
    linear = tuple(
        (name.removesuffix(".weight"), shape[1], shape[0])
        for name, shape in sorted(shapes.items())
        if len(shape) == 2 and name not in tables and name.endswith(".weight") and ".experts." not in name
    )
    experts = config.get("num_experts_per_tok") or 1
    return Sizes(
        weights=sum(map(prod, shapes.values())),
        kept_whole=sum(prod(shapes[name]) for name in tables),
        vocabulary=vocabulary,
        hidden=found["hidden"],
        layers=found["layers"],
        heads=found["heads"],
        groups=found["groups"] or found["heads"],
        head_size=config.get("head_dim") or found["hidden"] // found["heads"],
        inner=(found["inner"] or 4 * found["hidden"]) * experts,
        linear=linear,
    )


# -- in bytes ------------------------------------------------------------------------------------------------


def weights(sizes: Sizes, held: Held) -> int:
    if held.quantization == "nf4":
        return int(NF4 * (sizes.weights - sizes.kept_whole)) + held.element * sizes.kept_whole
    return held.element * sizes.weights


def lora_weights(sizes: Sizes, rank: int, targets: str | Sequence[str]) -> int:
    """How many weights an adapter has."""
    return sum(rank * (inputs + outputs) for _, inputs, outputs in sizes.adapted(targets))


def lora_of(adapter: Path) -> tuple[int, list[str]]:
    """(largest rank, names of the layers) of the weights of an adapter, as peft saves them."""
    ranks = {name.split(".lora_A")[0].removeprefix("base_model.model."): shape[0]
             for name, shape in shapes_in(adapter).items() if ".lora_A" in name}  # fmt: skip
    return max(ranks.values(), default=0), sorted(ranks)


def kept_of_a_layer(sizes: Sizes, held: Held, its: Pass, lora: Sequence[tuple[str, int, int]], rank: int) -> int:
    """What one layer keeps of a training pass for the way back. lora: the layers of the whole model that it is added
    to."""
    element, inputs = held.element, sum(inputs for _, inputs, _ in lora) // sizes.layers
    attended = sizes.heads * sizes.head_size
    if held.dtype == "float32":
        # Norms keep what comes in, and what comes out is the input of several products, which keep it once.
        states = 4 * (4 * sizes.hidden + attended + sizes.inner)
    else:
        # Norms are in float32, and so is an adapter, which has a copy of its own of each input: under the autocast of
        # a GPU's training in the dtype of the weights.
        states = 4 * 2 * sizes.hidden + (4 if held.device == "cpu" else element) * inputs
    states += 4 * rank * len(lora) // sizes.layers
    states += element * (attended + 3 * sizes.inner)  # queries; gate, its activation, and what it is multiplied with
    looked_at = 2 * sizes.head_size * element * its.states
    if held.device == "cpu":
        scores = element if held.dtype == "float32" else 4 + element
        return its.tokens * states + sizes.groups * looked_at + its.seen * sizes.heads * scores
    # torch's fused attention keeps what came out, a sum for each head, the mask, and keys and values for every head.
    fused = element * attended + 4 * sizes.heads
    return its.tokens * (states + fused) + sizes.heads * looked_at + its.seen * element


def of_head(sizes: Sizes, held: Held, answers: int, anchors: int) -> int:
    """Logits while answer tokens are scored by TRL's head, tile by tile, and anchor tokens whole."""
    tile = min(answers, HEAD_TOKENS) * min(sizes.vocabulary, HEAD_COLUMNS)
    # On a GPU a kernel writes over the tile; elsewhere its gradient is made of eight more of it, in float32.
    scored = tile * (held.element + (8 * 4 if held.device == "cpu" else 0))
    whole = 4 * anchors * sizes.vocabulary
    return 2 * whole + max(scored, 3 * whole)


def to_train(
    sizes: Sizes,
    held: Held,
    its: Pass,
    *,
    rank: int,
    targets: str | Sequence[str],
    answers: int,
    anchors: int,
    checkpointing: bool,
) -> int:
    """A training step on packed rows. its: the rows of its largest pass, anchor texts among them. answers, anchors:
    tokens of answers and of anchor texts in it, whose likelihood counts."""
    lora = sizes.adapted(targets)
    trained = lora_weights(sizes, rank, targets) * ADAM * (BYTES["bfloat16"] if held.quantization == "nf4" else 4)
    layer = kept_of_a_layer(sizes, held, its, lora, rank)
    between = its.tokens * sizes.hidden * held.element
    back = its.tokens * 4 * (3 * sizes.inner + 4 * sizes.hidden)
    head = of_head(sizes, held, answers, anchors)
    # Of layers that are computed once more one is there at a time, when the head is done.
    layers = (
        sizes.layers * between + max(layer + back, head) if checkpointing else sizes.layers * layer + max(back, head)
    )
    ends = 6 * its.tokens * sizes.hidden * 4  # what is kept before the first layer and behind the last
    return weights(sizes, held) + trained + placed(held, layers + ends)


def to_score(sizes: Sizes, held: Held, its: Pass, *, adapter: int, scored: int) -> int:
    """Answers, or texts, scored in packed passes. its: the rows of the largest. adapter: how many weights one has that
    stands beside the model's. scored: answer tokens in a pass."""
    logits = scored * sizes.vocabulary * (held.element + (0 if held.element == 4 else 4) + 4)
    return weights(sizes, held) + adapter * held.element + placed(held, under_way(sizes, held, its) + logits)


def to_answer(
    sizes: Sizes, held: Held, lengths: Mapping[int, int], *, adapter: int, new_tokens: int, batch_tokens: int
) -> int:
    """Questions answered in packed passes. lengths: how many questions there are of each length in tokens. adapter: as
    in `to_score`."""
    running = max(batch_tokens // RUNNING_SHARE, 1)
    a_token = 2 * sizes.layers * sizes.groups * sizes.head_size * held.element
    cached = a_token * most_cached(lengths, running, new_tokens)
    longest = max(lengths, default=0)
    its = Pass((longest,) * max(batch_tokens // max(longest, 1), 1))
    logits = running * sizes.vocabulary * held.element
    come_and_go = cached + under_way(sizes, held, its) + logits
    return weights(sizes, held) + adapter * held.element + placed(held, come_and_go)


def placed(held: Held, size: int) -> int:
    """The memory that tensors of so many bytes in all are in, which come and go."""
    return int(size * PLACES) if held.device == "cpu" else size


def most_cached(lengths: Mapping[int, int], running: int, new_tokens: int) -> int:
    """Tokens that there is room for in the caches of the answers in the making, when there are most. Questions are
    answered longest first; those of one length rounded up have their room together, as many as may run at once."""
    by_width: dict[int, int] = {}
    for length, count in lengths.items():
        width = round_up(length, CACHE_WIDTH)
        by_width[width] = by_width.get(width, 0) + count
    most, widths = 0, sorted(by_width, reverse=True)
    for first, _ in enumerate(widths):
        room, left = 0, running
        for width in widths[first:]:
            if left <= 0:
                break
            room += min(by_width[width], running) * (width + new_tokens)
            left -= by_width[width]
        most = max(most, room)
    return most


def under_way(sizes: Sizes, held: Held, its: Pass) -> int:
    """What is there at once of a layer that keeps nothing."""
    attended = sizes.heads * sizes.head_size
    feeding = its.tokens * 3 * (sizes.hidden + sizes.inner)
    attending = its.tokens * (2 * sizes.hidden + 6 * attended)
    attending += 2 * sizes.groups * sizes.head_size * its.states
    scores = its.seen * (sizes.heads * (2 * held.element + 4) if held.device == "cpu" else held.element)
    return max(held.element * feeding, held.element * attending + scores)
