"""Whether a row of a model has the same bits in whatever company it is computed, found out on the machine at hand.

Two checks. Products: every distinct matrix of the model times every number of rows that a pass may have, against the
same rows among the most. Company: the same questions answered and scored alone and among others, in real passes. If
the products depend on the number of rows, passes of one size are tried (resources.model.packing.shape_free). What
decides the bits is told by the bits themselves (`bits`): two machines, or modes of MKL, that agree in them may share
rows, and two that do not must not.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resources.model.generation import generate, greedy
from resources.model.mkl import in_words, mkl_mode
from resources.model.packing import UNIT, Ids, set_shape_free, shape_free
from resources.model.policy import is_merged
from resources.model.prompts import Policy, beginning, encode
from resources.model.scoring import TARGET_SHARE, Question, score_answers
from resources.store.rows import collect

if TYPE_CHECKING:
    import torch

    from resources.model.generation import Request

PRODUCT_WORK = 3e11  # multiplications; a matrix that needs more is tried with fewer numbers of rows
COMPANY_TOKENS = 512  # in one pass of the second check
FEW_TOKENS = 256  # so many of a large model; so many rows are tried one by one: MKL changes kernels mostly below
LARGE = 1e9  # weights
RANKS = (4, 16, 64)  # of adapters that lie beside the weights
STEP = 128  # rows, above FEW_TOKENS, where not all are tried
SHIFTS = (1, 13)  # rows; kernels take them in blocks of a multiple of 2
NEW_TOKENS = 3  # a question's own pass, and two in which it goes on
WORDS = ("Which", "of", "these", "is", "it", "and", "why", "do", "they", "say", "so", "in", "the", "end")

Bits = dict[int, str]  # of each question: a digest of all logits of its answer and of its scores


@dataclass(frozen=True)
class Exactness:
    """What was found out. mode: of MKL, as it says itself; "no MKL" where torch has none. threads: of torch, on a CPU.

    exact: a row's bits do not depend on its company. shape_free: see resources.model.packing. bits: 12 hex digits of
    what a few questions give; decides, with exact, which rows can be shared. reason: a sentence for people.
    """

    mode: str
    threads: int
    exact: bool
    shape_free: bool
    bits: str
    reason: str


def exactness(policy: Policy, batch_tokens: int) -> Exactness:
    """Find out for a loaded policy whose passes have up to `batch_tokens` tokens, and run it so from now on.

    Takes the time of some passes of `batch_tokens` tokens, and about as long again for the products.
    """
    import torch

    from resources.model.products import uses_faster_products

    model = policy.model
    mode, threads = mkl_mode(), torch.get_num_threads()
    if policy.path != "packed":
        return Exactness(mode, threads, True, True, company(policy, UNIT)[1], "each sequence is alone in its pass")
    library = f"oneDNN beside {in_words(mode)}" if uses_faster_products(model) else in_words(mode)
    said, bits, trouble = [f"{library}, {threads} thread{'s' * (threads > 1)}"], "", ""
    for free in (True, False) if may_be_free(model) else (False,):
        set_shape_free(model, free)
        trouble, tried = products(model, batch_tokens, free)
        if not (trouble and free):
            other, bits = company(policy, batch_tokens)
            trouble = trouble or other or varying(model)
        said.append(trouble or f"{tried}, and the same questions alone and among others have the same bits")
        if not free:
            said[-1] = f"all passes have one size: {said[-1]}"
        if not trouble:
            break
    return Exactness(mode, threads, not trouble, shape_free(model), bits, "; ".join(said))


def bits(policy: Policy, batch_tokens: int) -> str:
    """Those of `exactness`, for a policy that is run as it was found there."""
    return company(policy, batch_tokens if policy.path == "packed" else UNIT)[1]


def alike_in_one_thread(policy: Policy, batch_tokens: int, found: Exactness) -> bool:
    """Whether rows are exact in one thread, too, with the bits that were found with as many as there are."""
    import torch

    if found.threads == 1 or policy.model.device.type != "cpu" or not found.exact:
        return found.exact
    torch.set_num_threads(1)
    try:
        other = exactness(policy, batch_tokens)
    finally:
        torch.set_num_threads(found.threads)
        set_shape_free(policy.model, found.shape_free)
    return (other.exact, other.shape_free, other.bits) == (True, found.shape_free, found.bits)


def may_be_free(model: Any) -> bool:
    """Whether it is worth trying that products do not depend on the number of rows: on CPUs only, and of weights that
    are multiplied as they are."""
    return model.device.type == "cpu" and not getattr(model, "is_quantized", False)


def products(model: Any, batch_tokens: int, free: bool) -> tuple[str, str]:
    """("", what was tried) if no product of the model gives a row other bits in other company; else (which, "").

    free: company of any number; else of the numbers that passes of one size have, and a row's place may matter.
    """
    import torch

    shapes = done = possible = 0
    for layer, head in (*distinct_layers(model), *adapter_layers(model)):
        share = max(batch_tokens // TARGET_SHARE, UNIT)
        most = share if head else batch_tokens
        random = torch.randn(most, width(layer), generator=torch.Generator().manual_seed(0))
        rows = random.to(model.device, model.dtype)
        counts = row_counts(most, layer.weight.numel()) if free else []
        inexact = inexact_counts(layer, rows, counts) + (
            [] if free or head else inexact_counts(layer, rows[:share], [])
        )
        if inexact:
            which = f"the product from {width(layer)} to {layer.weight.numel() // width(layer)} gives a row other bits"
            if not free:
                return f"{which} at another place among {inexact[0]}", ""
            some = ", ".join(map(str, inexact[:3])) + (", ..." if len(inexact) > 3 else "")
            return f"{which} for {len(inexact)} of {len(counts) + 1} numbers of rows ({some}) than among {most}", ""
        shapes, done, possible = shapes + 1, done + len(counts), possible + len(range(UNIT, most, UNIT))
    part = f" of {possible}" if done < possible else ""
    return "", f"{shapes} shapes of matrices" + (f" with {done}{part} numbers of rows" if free else "")


def distinct_layers(model: Any) -> Iterator[tuple[Any, bool]]:
    """(a linear layer of each distinct form, whether it is the output head)."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head, seen = model.get_output_embeddings(), set()
    for layer in model.modules():
        if isinstance(layer, nn.Linear | Conv1D):
            form = (type(layer), layer.weight.shape, layer.bias is None, layer is head)
            if form not in seen:
                seen.add(form)
                yield layer, layer is head


def adapter_layers(model: Any) -> Iterator[tuple[Any, bool]]:
    """(a linear layer of each distinct form that LoRA of some RANKS has beside the weights, False); none where adapters
    are added to the weights."""
    import torch
    from torch import nn

    if is_merged(str(model.dtype).removeprefix("torch."), "none"):
        return
    forms = [(width(layer), layer.weight.numel() // width(layer)) for layer, head in distinct_layers(model) if not head]
    pairs = {pair for rank in RANKS for wide, out in forms for pair in ((wide, rank), (rank, out))}
    random = torch.Generator().manual_seed(0)
    for wide, out in sorted(pairs):
        layer = nn.utils.skip_init(nn.Linear, wide, out, bias=False)
        layer.weight.data.normal_(generator=random)
        yield layer.to(model.device, model.dtype), False


def row_counts(most: int, weights: int) -> list[int]:
    """The numbers of rows to try: multiples of UNIT below `most`, all or, of a large matrix, few of the many."""
    every = range(UNIT, most, UNIT)
    if weights * sum(every) <= PRODUCT_WORK:
        return list(every)
    return [rows for rows in every if rows <= FEW_TOKENS or rows % STEP == 0 or rows == every[-1]]


def width(layer: Any) -> int:
    from torch import nn

    return layer.in_features if isinstance(layer, nn.Linear) else layer.weight.shape[0]


def inexact_counts(layer: Any, rows: "torch.Tensor", counts: Sequence[int]) -> list[int]:
    """For which numbers of rows `layer` gives them other bits than among all `rows`, (most, in); with most, if a
    row's place matters among all."""
    import torch

    most, inexact = len(rows), []
    with torch.inference_mode():
        full = layer(rows)
        for count in counts:
            first = (most - count) // 2  # at other places than among all, so that a place that matters shows as well
            if not torch.equal(layer(rows[first : first + count]), full[first : first + count]):
                inexact.append(count)
        if any(not torch.equal(layer(rows.roll(by, 0)), full.roll(by, 0)) for by in SHIFTS):
            inexact.append(most)
    return inexact


def varying(model: Any) -> str:
    """Why the checks cannot speak for all passes of a model; "" if they can."""
    if any(name.rpartition(".")[2] == "experts" for name, _ in model.named_modules()):
        return "a mixture of experts: how many tokens an expert gets depends on the company"
    return ""


def company(policy: Policy, batch_tokens: int) -> tuple[str, str]:
    """("" if questions alone and among others have the same bits, else what differs; a digest of the bits)."""
    asked = questions(policy, tokens_of_company(policy.model, batch_tokens))
    together = bits_of(policy, asked, range(len(asked)), batch_tokens)
    order = sorted(range(len(asked)), key=lambda place: len(asked[place]))
    groups = [order[::3][::-1], order[:1], order[-1:]]
    differing = set()
    for group in groups:
        bits = bits_of(policy, asked, group, batch_tokens)
        differing |= {place for place in group if bits[place] != together[place]}
    compared = {place for group in groups for place in group}
    digest = hashlib.sha256("".join(together[place] for place in sorted(together)[:3]).encode()).hexdigest()[:12]
    if differing:
        return f"{len(differing)} of {len(compared)} questions have other bits in other company", digest
    return "", digest


def tokens_of_company(model: Any, batch_tokens: int) -> int:
    large = sum(parameter.numel() for parameter in model.parameters()) > LARGE
    return min(batch_tokens, FEW_TOKENS if large else COMPANY_TOKENS)


def questions(policy: Policy, tokens: int) -> list[str]:
    """Questions of many lengths, with some `tokens` tokens in all, the beginning that they share left out."""
    found: list[str] = []
    shortest = len(encode(policy, "A"))
    while tokens > 0:
        number = len(found)
        found.append(" ".join([str(number), *(WORDS * 2)[: 1 + number * 11 % (2 * len(WORDS))]]))
        tokens -= len(encode(policy, found[-1])) - shortest + 1
    return found


def bits_of(policy: Policy, asked: Sequence[str], places: Sequence[int], batch_tokens: int) -> Bits:
    """The bits of the questions at `places`, asked together and in that order."""
    digests = {place: hashlib.sha256() for place in places}

    def choose(requests: "Sequence[Request]", logits: "torch.Tensor") -> "torch.Tensor":
        for request, row in zip(requests, logits.float().cpu(), strict=True):
            if not request.output_ids:  # its first token, perhaps once more
                digests[places[request.place]] = hashlib.sha256()
            digests[places[request.place]].update(row.numpy().tobytes())
        return greedy(requests, logits)

    prompts = [asked[place] for place in places]
    answers = generate(policy, prompts, max_new_tokens=NEW_TOKENS, batch_tokens=batch_tokens, choose=choose)
    collect(len(prompts), answers)
    contexts = [encode(policy, prompt) for prompt in prompts]
    scored = [Question(ids, endings(ids)) for ids in contexts]
    passes = score_answers(policy.model, scored, batch_tokens=batch_tokens, prefix=beginning(policy))
    for place, scores in zip(places, collect(len(scored), passes), strict=True):
        digests[place].update(repr(scores).encode())
    return {place: digest.hexdigest() for place, digest in digests.items()}


def endings(ids: Ids) -> tuple[Ids, Ids]:
    """Two answers to be scored, of tokens that the question has itself."""
    return ids[-1:], ids[-4:-1]
