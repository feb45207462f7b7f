"""Answer questions, many at a time, each at its own pace: greedily, or as resources/model/sampling.py chooses.

Every pass of the model has up to `batch_tokens` tokens: the last token of each answer in the making,
and as many new questions, longest first, as still fit. An answer that ends makes room at once. What all
questions begin with (chat template, system prompt) is computed once. The scheduling is that of
inference servers (Orca, Yu et al. 2022; chunks of prompts between decoding steps: Sarathi, Agrawal et
al. 2023, arXiv 2308.16369); the layers are transformers' own, on packed rows (resources/model/packing.py).
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

from resources.model import plain
from resources.model.no_room import NoRoom, TooLittleMemory, attempt, halve, pass_tokens
from resources.model.packing import (
    UNIT,
    Group,
    Ids,
    Pack,
    Row,
    attend_group,
    attention,
    by_prefix,
    group_rows,
    round_up,
    settle_places,
    shape_free,
)
from resources.model.prompts import beginning, encode, end_tokens
from resources.store.rows import Batches

if TYPE_CHECKING:
    import torch

    from resources.model.prompts import Policy

    Choose = Callable[[Sequence["Request"], "torch.Tensor"], "torch.Tensor"]

RUNNING_SHARE = 4  # at most batch_tokens / RUNNING_SHARE answers are in the making
COMMIT_ROWS = 32  # answers that are yielded together, or a few more
CACHE_WIDTH = 64  # tokens; questions of one length rounded up to it have their keys and values in one tensor


def greedy(requests: "Sequence[Request]", logits: "torch.Tensor") -> "torch.Tensor":
    """The likeliest next token of each request, (requests,). logits: (requests, vocabulary)."""
    return logits.argmax(-1)


def generate(
    policy: "Policy",
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_tokens: int,
    choose: "Choose" = greedy,
) -> Batches[str]:
    """Answer every prompt, special tokens removed; yields a few dozen answers at a time, as they end.

    An answer ends at one of the model's end tokens (generation_config.eos_token_id) or after
    `max_new_tokens`; nothing else of the generation config is used. An answer depends on its prompt alone, to the
    last bit of its logits, and not on what else is asked, where resources.model.exactness finds that; where products
    do not allow it, every pass has the same shapes (resources.model.packing.shape_free). Where a pass does not fit into
    memory, the answers in the making are begun anew in smaller ones. A model that is not run on packed rows answers
    prompt by prompt. Raises TooLittleMemory if an answer alone does not fit.

    `choose` must tell each answer's token by that answer and its logits alone, so that this holds.
    """
    asked = [encode(policy, prompt) for prompt in prompts]
    for places, found in go_on(
        policy,
        asked,
        beginning=beginning(policy),
        end=end_tokens(policy.model, policy.tokenizer),
        max_new_tokens=max_new_tokens,
        batch_tokens=batch_tokens,
        choose=choose,
    ):
        yield places, [policy.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in found]


def go_on(
    policy: "Policy",
    asked: Sequence[Ids],
    *,
    beginning: Ids,
    end: set[int],
    max_new_tokens: int,
    batch_tokens: int,
    choose: "Choose",
) -> Batches[Ids]:
    """What the policy says after each sequence of token ids, until a token of `end`, which is the last, or
    `max_new_tokens`; see `generate`. beginning: what sequences usually begin with."""
    if policy.path != "packed":
        yield from go_on_plainly(policy, asked, end, max_new_tokens, choose)
        return
    for prefix, places in by_prefix(asked, beginning):
        questions = [(place, asked[place][len(prefix) :]) for place in places]
        engine = Engine(policy.model, prefix, questions, end, max_new_tokens, batch_tokens, choose)
        ended: dict[int, Ids] = {}
        while engine.waiting or engine.running:
            found = attempt(engine.step)
            if isinstance(found, NoRoom):
                engine.begin_anew(found)
                continue
            for request in found:
                ended[request.place] = request.output_ids
            if len(ended) >= COMMIT_ROWS or not (engine.waiting or engine.running):
                yield list(ended), list(ended.values())
                ended = {}


def go_on_plainly(
    policy: "Policy", asked: Sequence[Ids], end: set[int], max_new_tokens: int, choose: "Choose"
) -> Batches[Ids]:
    """As `go_on`, sequence by sequence."""
    for place, ids in enumerate(asked):

        def next_token(output_ids: Ids, logits: "torch.Tensor", place: int = place) -> int:
            return int(choose([Request(place, 0, output_ids)], logits[None])[0])

        found = plain.continuation(
            policy.model,
            ids,
            end=sorted(end),
            max_new_tokens=max_new_tokens,
            choose=next_token,
            use_cache=policy.path == "plain",
        )
        yield [place], [found]


def inference(function: Any) -> Any:
    """torch.inference_mode() as a decorator that imports torch only when called."""

    @wraps(function)
    def call(*arguments: Any) -> Any:
        import torch

        with torch.inference_mode():
            return function(*arguments)

    return call


@dataclass
class KVCache:
    """Keys and values of the requests whose questions have one rounded length, behind the prefix.

    keys, values: by layer, (slots, groups, seen, size). The running requests have the first slots.
    """

    seen: int
    slots: int
    requests: "list[Request]" = field(default_factory=list)
    keys: "dict[int, torch.Tensor]" = field(default_factory=dict)
    values: "dict[int, torch.Tensor]" = field(default_factory=dict)

    def open(self, layer: int, prefix: "tuple[torch.Tensor, torch.Tensor]") -> None:
        """Make room, with the prefix in every slot."""
        for states, head in zip((self.keys, self.values), prefix, strict=True):
            groups, length, size = head.shape
            states[layer] = head.new_zeros(self.slots, groups, self.seen, size)
            states[layer][:, :, :length] = head

    def remove(self, slot: int) -> None:
        """Free a slot; the last request moves into it."""
        last = len(self.requests) - 1
        if slot != last:
            for states in (*self.keys.values(), *self.values.values()):
                states[slot] = states[last]
            self.requests[slot] = self.requests[last]
        self.requests.pop()


@dataclass
class Request:
    """A question that is being answered. place: of its prompt. cached: tokens in the cache, the prefix included."""

    place: int
    cached: int
    output_ids: Ids = field(default_factory=list)


@dataclass(frozen=True)
class Prefill:
    """A question in its first pass: where it begins there, and the slot that its keys and values get."""

    ids: Ids
    start: int
    cache: KVCache
    slot: int


class Engine:
    """Answers the questions that begin with one prefix: schedules them, and runs the model."""

    def __init__(
        self,
        model: Any,
        prefix: Ids,
        questions: list[tuple[int, Ids]],
        end: set[int],
        max_new_tokens: int,
        batch_tokens: int,
        choose: "Choose",
    ):
        self.model, self.prefix, self.choose = model, len(prefix), choose
        self.max_new_tokens, self.end, self.constant = max_new_tokens, end, not shape_free(model)
        self.open(questions, pass_tokens(model, batch_tokens))
        self.prefix_states = self.prefill_prefix(prefix)

    def open(self, questions: list[tuple[int, Ids]], batch_tokens: int) -> None:
        """Let questions wait to be answered in passes of `batch_tokens` tokens."""
        self.questions, self.batch_tokens = dict(questions), batch_tokens
        self.waiting = deque(sorted(questions, key=lambda question: (-len(question[1]), question[0])))
        self.max_running = max(batch_tokens // RUNNING_SHARE, 1)
        self.caches: dict[int, KVCache] = {}
        for _, ids in questions:
            width = round_up(len(ids), CACHE_WIDTH)
            cache = self.caches.setdefault(width, KVCache(self.prefix + width + self.max_new_tokens, 0))
            cache.slots = min(cache.slots + 1, self.max_running)

    def begin_anew(self, lacking: NoRoom) -> None:
        """After a pass that did not fit: answers in the making are forgotten, and asked again in smaller passes. What
        they say does not change by it. Raises TooLittleMemory if there was one answer only."""
        if self.max_running == 1:
            longest = max(map(len, self.questions.values()))
            raise TooLittleMemory(
                f"answering a question of {self.prefix + longest} tokens alone does not fit into memory "
                f"({lacking.reason}): lower policy.max_new_tokens, or name a smaller model, dtype or quantization"
            )
        going = [request.place for cache in self.caches.values() for request in cache.requests]
        left = [*going, *(place for place, _ in self.waiting)]
        self.open([(place, self.questions[place]) for place in left], halve(self.model, self.batch_tokens))

    @property
    def running(self) -> int:
        return sum(len(cache.requests) for cache in self.caches.values())

    @inference
    def prefill_prefix(self, prefix: Ids) -> "list[tuple[torch.Tensor, torch.Tensor]]":
        """Keys and values of the prefix by layer, (groups, prefix, size) each; none for no prefix."""
        if not prefix:
            return []
        pack = PrefixPack(prefix, [], device=self.model.device)
        self.forward(pack, pack.ids, pack.positions, [0])
        return pack.kept

    @inference
    def step(self) -> list[Request]:
        """One pass: every running request gets a token, and new ones their first. Returns those that ended."""
        import torch

        # Where shapes must not change, prefills and decoding have passes of their own, of one size each, and new
        # questions wait until half of the places are free.
        admit = bool(self.waiting) and (not self.constant or self.running <= self.max_running // 2)
        apart = self.constant and admit
        decoding = [(cache, len(cache.requests)) for cache in self.caches.values() if cache.requests and not apart]
        going = [request for cache, _ in decoding for request in cache.requests]
        ids, positions = [request.output_ids[-1] for request in going], [request.cached for request in going]
        keep = list(range(len(going)))
        prefills: list[Prefill] = []
        while admit and self.waiting and self.fits(len(ids)):
            place, question = self.waiting.popleft()
            cache = self.caches[round_up(len(question), CACHE_WIDTH)]
            prefills.append(Prefill(question, len(ids), cache, len(cache.requests)))
            cache.requests.append(Request(place, self.prefix + len(question)))
            ids += question
            positions += range(self.prefix, self.prefix + len(question))
            keep.append(len(ids) - 1)
        size = round_up(len(ids), UNIT)
        if self.constant:
            size = max(size, self.batch_tokens if admit else self.max_running)
        filler = [0] * (size - len(ids))
        layout = ForwardPass(self, decoding, prefills, size)
        device = self.model.device
        logits = self.forward(
            layout, torch.tensor([ids + filler], device=device), torch.tensor([positions + filler], device=device), keep
        )
        for request in going:
            request.cached += 1
        requests = [*going, *(prefill.cache.requests[prefill.slot] for prefill in prefills)]
        for request, token in zip(requests, self.choose(requests, logits).tolist(), strict=True):
            request.output_ids.append(token)
        return self.take_ended()

    def fits(self, tokens: int) -> bool:
        """Whether the next question fits in a pass; one that is longer than a pass gets one of its own."""
        more = len(self.waiting[0][1])
        return self.running < self.max_running and (tokens + more <= self.batch_tokens or tokens == 0)

    def forward(self, layout: Any, ids: "torch.Tensor", positions: "torch.Tensor", keep: list[int]) -> "torch.Tensor":
        """Logits at the positions `keep`, (positions, vocabulary)."""
        import torch

        filled = max(round_up(len(keep), UNIT), self.max_running if self.constant else 0)
        places = torch.tensor(keep + keep[-1:] * (filled - len(keep)), device=self.model.device)
        output = self.model(
            input_ids=ids, position_ids=positions, layout=layout, use_cache=False, logits_to_keep=places
        )
        return output.logits[0, : len(keep)]

    def take_ended(self) -> list[Request]:
        """Take out the requests that ended."""
        ended = []
        for cache in self.caches.values():
            for slot in reversed(range(len(cache.requests))):
                request = cache.requests[slot]
                if request.output_ids[-1] in self.end or len(request.output_ids) == self.max_new_tokens:
                    ended.append(request)
                    cache.remove(slot)
            if not cache.requests:
                cache.keys, cache.values = {}, {}
        return sorted(ended, key=lambda request: request.place)


class PrefixPack(Pack):
    """A prefix alone, whose keys and values are kept layer by layer."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def attend(
        self, layer: int, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scale: float
    ) -> "torch.Tensor":
        self.kept.append((key[:, : self.prefix], value[:, : self.prefix]))
        return super().attend(layer, query, key, value, scale)


class ForwardPass:
    """Who sees whom in one pass: first a token of each running request, cache by cache, then the new questions."""

    def __init__(self, engine: Engine, decoding: list[tuple[KVCache, int]], prefills: list[Prefill], size: int):
        import torch

        device = engine.model.device
        self.prefix_states, self.prefix = engine.prefix_states, engine.prefix
        self.decoding = []
        places = torch.zeros(size, dtype=torch.long, device=device)
        first = 0
        for cache, rows in decoding:
            lengths = torch.tensor([request.cached for request in cache.requests[:rows]], device=device)
            unseen = torch.arange(cache.seen, device=device)[None] > lengths[:, None]
            mask = torch.zeros(rows, 1, 1, cache.seen, device=device)
            mask.masked_fill_(unseen[:, None, None], float("-inf"))
            self.decoding.append((cache, slice(first, first + rows), torch.arange(rows, device=device), lengths, mask))
            first += rows
        places[:first] = torch.arange(first, device=device)
        self.prefills: list[tuple[Group, KVCache, torch.Tensor]] = []
        by_start = {prefill.start: prefill for prefill in prefills}
        groups = group_rows([Row(prefill.ids) for prefill in prefills], list(by_start), engine.prefix, device)
        settle_places(groups, places, first)
        for group in groups:
            its = [by_start[start] for start in group.index[:, 0].tolist()]
            # One padded width, so one rounded length, so one cache.
            self.prefills.append((group, its[0].cache, torch.tensor([one.slot for one in its], device=device)))
        self.places = places

    def attend(
        self, layer: int, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor", scale: float
    ) -> "torch.Tensor":
        import torch

        done = []
        prefix = self.prefix_states[layer] if self.prefix_states else (key[:, :0], value[:, :0])
        for cache, tokens, slots, lengths, mask in self.decoding:
            rows = len(slots)
            cache.keys[layer][slots, :, lengths] = key[:, tokens].transpose(0, 1)
            cache.values[layer][slots, :, lengths] = value[:, tokens].transpose(0, 1)
            asked = query[:, tokens].transpose(0, 1)[:, :, None]
            seen = attention(asked, cache.keys[layer][:rows], cache.values[layer][:rows], mask, scale)
            done.append(seen.flatten(0, 1))
        for group, cache, slots in self.prefills:
            if layer not in cache.keys:
                cache.open(layer, prefix)
            until = self.prefix + group.index.shape[1]
            cache.keys[layer][slots, :, self.prefix : until] = key[:, group.index].transpose(0, 1)
            cache.values[layer][slots, :, self.prefix : until] = value[:, group.index].transpose(0, 1)
            done.append(attend_group(group, query, key, value, prefix, scale).flatten(0, 1))
        return torch.cat(done)[self.places]
