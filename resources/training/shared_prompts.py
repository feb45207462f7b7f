"""TRL's DPOTrainer with each prompt computed once, and reference log-probs that are given.

TRL's batch holds every pair as two sequences, prompt + chosen and prompt + rejected. Here the model's
backbone is called on packed rows instead (resources/model/packing.py): what all sequences of the batch begin
with once, what a pair's two have in common once, and no padding. What it returns has the shape that TRL
asked for, so TRL's losses, metrics, logging, callbacks and checkpoints are its own.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import MethodType
from typing import TYPE_CHECKING, Any

from resources.model.packing import Ids, Pack, Row, common_prefix

if TYPE_CHECKING:
    import torch


@dataclass
class Along:
    """Texts that go through the next pass beside the pairs: their token ids, and then the states of each but the last,
    (tokens - 1, size). output: what the backbone returned."""

    texts: list[Ids] = field(default_factory=list)
    states: "list[torch.Tensor]" = field(default_factory=list)
    output: Any = None

    def logits(self, model: Any, states: "torch.Tensor") -> "torch.Tensor":
        """What the head of a causal model makes of states (tokens, size): (tokens, vocabulary). The model's own forward
        does it, with whatever scale or cap it has, over a backbone that has these states at hand."""
        import torch

        decoder, ids = model.get_decoder(), torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        forward, found = decoder.forward, type(self.output)(last_hidden_state=states[None])
        decoder.forward = lambda *arguments, **named: found
        try:
            return model(input_ids=ids, use_cache=False).logits[0]
        finally:
            decoder.forward = forward


def share_prompts(backbone: Any, along: Along | None = None) -> None:
    """Let a backbone that is called with (2 x pairs, length) ids and mask compute shared tokens once, and the texts of
    `along` with them.

    Padding must stand on the right and the second half hold the pairs' other answers, as in TRL's
    batches. The hidden states of padding, and of the last token of each sequence, which predicts
    nothing, are those of some other token.
    """
    original, along = backbone.forward, along or Along()

    def forward(self: Any, input_ids: "torch.Tensor", attention_mask: "torch.Tensor", **others: Any) -> Any:
        lengths = attention_mask.sum(1).tolist()
        sequences = [ids[:length] for ids, length in zip(input_ids.tolist(), lengths, strict=True)]
        pack, places = pack_pairs(sequences, input_ids.shape[1], input_ids.device, along.texts)
        output = original(input_ids=pack.ids, position_ids=pack.positions, layout=pack, **others)
        along.output, found = output, output.last_hidden_state[0]
        starts = pack.starts[len(pack.starts) - len(along.texts) :]
        along.states = [found[start : start + len(ids) - 1] for start, ids in zip(starts, along.texts, strict=True)]
        output.last_hidden_state = found[places]
        return output

    backbone.forward = MethodType(forward, backbone)


def pack_pairs(
    sequences: list[Ids], length: int, device: Any, along: Sequence[Ids] = ()
) -> "tuple[Pack, torch.Tensor]":
    """The pack of pairs (i, i + half), and (sequences, length): where each token's state stands in it.

    along: sequences that are the pack's last rows, alone, each without its last token.
    """
    import torch

    half = len(sequences) // 2
    # The last token predicts nothing, so nobody needs its state.
    sequences = [ids[:-1] for ids in sequences]
    prefix = common_prefix(sequences)
    pairs = [(one[prefix:], other[prefix:]) for one, other in zip(sequences, sequences[half:], strict=False)]
    stems = [common_prefix(pair) for pair in pairs]
    rows = [
        Row(one[:stem], tuple(rest for rest in (one[stem:], other[stem:]) if rest))
        for (one, other), stem in zip(pairs, stems, strict=True)
    ]
    rows += [Row(ids[:-1], alone=True) for ids in along]
    pack = Pack(sequences[0][:prefix], rows, device=device)
    places = torch.zeros(len(sequences), length, dtype=torch.long)
    places[:, :prefix] = torch.arange(prefix)
    for number, (start, stem) in enumerate(zip(pack.starts, stems, strict=False)):
        first = start + stem
        for place, ids in ((number, sequences[number]), (number + half, sequences[number + half])):
            places[place, prefix : prefix + stem] = torch.arange(start, start + stem)
            rest = len(ids) - prefix - stem
            places[place, prefix + stem : len(ids)] = torch.arange(first, first + rest)
            first += rest
    return pack, places.to(device)


def give_reference(trainer: Any, chosen: list[float], rejected: list[float]) -> None:
    """Train against these reference log-probs, one of each per row of the training set, and compute none.

    The columns are the ones TRL makes itself for `precompute_ref_log_probs`; its own cache of them is
    keyed by a digest that a fresh LoRA changes, so it would not be found again.
    """
    trainer.train_dataset = trainer.train_dataset.add_column("ref_chosen_logps", chosen).add_column(
        "ref_rejected_logps", rejected
    )
    trainer.precompute_ref_logps = True


@contextlib.contextmanager
def completion_positions_only() -> Iterator[None]:
    """Let TRL's fused head score completion tokens only, also on a CPU.

    TRL 1.16 does so on GPUs (`compact` in trl.trainer.utils) and scores every position elsewhere,
    for the sake of compilers that need fixed shapes. On a CPU the head is then most of a step. The
    masked positions contribute zero either way. Raises AttributeError if TRL no longer has the switch.
    """
    from trl.trainer import utils

    original = utils._use_triton
    utils._use_triton = lambda device: True
    try:
        yield
    finally:
        utils._use_triton = original
