"""Questions of one adapter that are answered together, each from when it comes: the loop's own passes, kept open."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resources.model import plain
from resources.model.generation import CACHE_WIDTH, Engine, KVCache, Request, greedy
from resources.model.no_room import NoRoom, attempt
from resources.model.packing import round_up
from resources.model.sampling import draw, point

if TYPE_CHECKING:
    import torch

    from apt_assets.serve.live import Specialist
    from resources.model.prompts import Policy


@dataclass(eq=False)
class Job:
    """A question under way, as token ids. most: tokens of its answer. temperature: 0 is greedy; else tokens are drawn
    by `seed`. tell: called with every token of the answer, and with why there is none. gone: nobody waits any more."""

    specialist: "Specialist"
    ids: list[int]
    most: int
    temperature: float
    seed: str
    tell: Callable[[int | Exception], None]
    told: int = 0
    over: bool = False
    gone: bool = False

    def say(self, output_ids: list[int], end: set[int]) -> bool:
        """Tell the last token of what was said; returns whether the answer is at its end. One that was begun anew says
        the same again, which is not told twice."""
        if len(output_ids) > self.told and not self.gone:
            self.told += 1
            self.over = output_ids[-1] in end or self.told == self.most
            self.tell(output_ids[-1])
        return self.over or self.gone

    def fail(self, error: Exception) -> None:
        self.over = True
        self.tell(error)


class Batch(Engine):
    """An Engine whose questions come one by one, begin with `prefix`, and end each by itself."""

    def __init__(self, policy: "Policy", prefix: list[int], end: set[int], max_new_tokens: int, batch_tokens: int):
        self.jobs: dict[int, Job] = {}  # place -> its job, as long as that is under way
        self.count = 0
        super().__init__(policy.model, prefix, [], end, max_new_tokens, batch_tokens, self.next_tokens)

    def add(self, job: Job) -> None:
        place, ids = self.count, job.ids[self.prefix :]
        self.count += 1
        self.jobs[place], self.questions[place] = job, ids
        self.waiting.append((place, ids))
        width = round_up(len(ids), CACHE_WIDTH)
        cache = self.caches.setdefault(width, KVCache(self.prefix + width + self.max_new_tokens, 0))
        needed = min(len(cache.requests) + len(self.waiting), self.max_running)
        if not cache.keys:
            cache.slots = needed
        elif needed > cache.slots:
            self.widen(cache, min(max(needed, 2 * cache.slots), self.max_running))

    def widen(self, cache: KVCache, slots: int) -> None:
        """Give a cache that is in use more slots, with the prefix in each."""
        before = cache.keys, cache.values
        cache.slots, cache.keys, cache.values = slots, {}, {}
        for layer, old in before[0].items():
            none = old[0, :, :0], old[0, :, :0]
            cache.open(layer, self.prefix_states[layer] if self.prefix_states else none)
            cache.keys[layer][: len(old)], cache.values[layer][: len(old)] = old, before[1][layer]

    def advance(self) -> None:
        """One pass. Where it does not fit into memory the answers in the making are begun anew in smaller ones. Raises
        TooLittleMemory."""
        found = attempt(self.step)
        if isinstance(found, NoRoom):
            self.begin_anew(found)

    def next_tokens(self, requests: Sequence[Request], logits: "torch.Tensor") -> "torch.Tensor":
        import torch

        tokens = greedy(requests, logits)
        jobs = [self.jobs[request.place] for request in requests]
        if drawn := [place for place, job in enumerate(jobs) if job.temperature]:
            points = [point(jobs[place].seed, len(requests[place].output_ids)) for place in drawn]
            heat: Any = torch.tensor([jobs[place].temperature for place in drawn], device=logits.device)[:, None]
            given = torch.tensor(points, dtype=torch.float64, device=logits.device)[:, None]
            tokens[drawn] = draw(logits[drawn], given, heat)
        return tokens

    def take_ended(self) -> list[Request]:
        ended = []
        for cache in self.caches.values():
            for slot in reversed(range(len(cache.requests))):
                request = cache.requests[slot]
                if self.jobs[request.place].say(request.output_ids, self.end):
                    cache.remove(slot)
                    ended.append(request)
                    del self.jobs[request.place], self.questions[request.place]
            if not cache.requests:
                cache.keys, cache.values = {}, {}
        return ended


def answer_plainly(policy: "Policy", job: Job, end: set[int]) -> None:
    """Answer one question alone, on the path of a model that packed passes do not fit."""

    def next_token(output_ids: list[int], logits: "torch.Tensor") -> int:
        if job.gone:
            raise Gone
        if job.temperature:
            import torch

            given = torch.tensor([[point(job.seed, len(output_ids))]], dtype=torch.float64, device=logits.device)
            token = int(draw(logits[None], given, job.temperature)[0])
        else:
            token = int(logits.argmax())
        job.say([*output_ids, token], end)
        return token

    with suppress(Gone):
        plain.continuation(
            policy.model,
            job.ids,
            end=sorted(end),
            max_new_tokens=job.most,
            choose=next_token,
            use_cache=policy.path == "plain",
        )


class Gone(Exception):
    """Nobody waits for the answer any more."""
