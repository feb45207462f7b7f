"""The thread that answers: one adapter at a time on one base model, and all its questions together.

A question begins with the next pass, unless one of another adapter has waited for PATIENCE: then the adapters change as
soon as the answers in the making are whole. So an answer is one adapter's from its first token to its last.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from typing import TYPE_CHECKING

from apt_assets.project import Project
from apt_assets.serve.batch import Batch, Job, answer_plainly
from apt_assets.serve.live import Specialist
from resources.model.packing import by_prefix

if TYPE_CHECKING:
    from resources.model.policy import Policy

PATIENCE = 1.0  # seconds, for which questions of the adapter at work go before an older one of another


class Full(Exception):
    """As many requests as are allowed are under way."""


@dataclass(frozen=True)
class Waiting:
    job: Job
    since: float


class Answerer:
    """limit: requests under way, in the making or waiting. It holds the base model; `start` loads it."""

    def __init__(self, project: Project, limit: int):
        self.limit, self.passes, self.swaps = limit, 0, 0
        self._settings, self._open = project.experiment.policy, opener(project)
        self._jobs: list[Job] = []  # of which some may have ended since
        self._waiting: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._on: Specialist | None = None
        self._lanes: dict[int, Batch] = {}  # length of what the questions begin with -> their batch, with this adapter
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def start(self, specialist: Specialist) -> None:
        """Load the model with this adapter, and begin to answer. Raises what loading raises."""
        self._put_on(specialist)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Have a question answered. Raises Full."""
        with self._changed:
            self._jobs = going_on(self._jobs)
            if len(self._jobs) >= self.limit:
                raise Full
            self._jobs.append(job)
            self._waiting.append(Waiting(job, time.monotonic()))
            self._changed.notify()

    def try_on(self, specialist: Specialist) -> None:
        """Put an adapter on and say one token with it, among the questions that wait and beyond their limit. Raises
        what that raises."""
        told: Queue[int | Exception] = Queue()
        job = Job(specialist, [*self._beginning, min(self._end)], most=1, temperature=0.0, seed="", tell=told.put)
        with self._changed:
            self._waiting.append(Waiting(job, time.monotonic()))
            self._changed.notify()
        while self.alive:
            with suppress(Empty):
                if isinstance(found := told.get(timeout=0.1), Exception):
                    raise found
                return
        raise RuntimeError("the thread that answers has ended")

    def cancel(self, job: Job) -> None:
        """Nobody waits for the answer any more: its place is free, and nothing is computed of it after this pass."""
        with self._changed:
            job.gone = True
            self._waiting = deque(one for one in self._waiting if one.job is not job)

    def close(self) -> None:
        """End the thread after the pass that it makes."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def under_way(self) -> int:
        """Requests that wait or are being answered."""
        with self._changed:
            return len(going_on(self._jobs))

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def end(self) -> set[int]:
        """Token ids at which an answer ends."""
        return self._end

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                specialist = self._waiting[0].job.specialist
            self._answer(specialist)

    def _answer(self, specialist: Specialist) -> None:
        """Answer this adapter's questions until there are none, or another's have waited long enough."""
        going = self._take(specialist)
        new = going
        try:
            if specialist is not self._on:
                self._put_on(specialist)
            while going and not self._closing:
                for job in new:
                    self._begin(job)
                for lane in self._lanes.values():
                    if lane.waiting or lane.running:
                        lane.advance()
                        self.passes += 1
                new = self._take(specialist)
                going = [*going_on(going), *new]
        except Exception as error:  # whatever a model, a file or the memory is the reason of: the next question may do
            self._on, self._lanes = None, {}
            for job in going_on(going):
                job.fail(error)

    def _take(self, specialist: Specialist) -> list[Job]:
        """Of what waits: this adapter's questions that came before another's had waited long enough."""
        with self._changed:
            others = (one.since for one in self._waiting if one.job.specialist is not specialist)
            until = min(others, default=float("inf")) + PATIENCE
            taken = [one for one in self._waiting if one.job.specialist is specialist and one.since <= until]
            self._waiting = deque(one for one in self._waiting if one not in taken)
            return [one.job for one in taken]

    def _put_on(self, specialist: Specialist) -> None:
        self._on, self._lanes = None, {}
        self._policy, self._beginning, self._end = self._open(specialist)
        self._on = specialist
        self.swaps += 1

    def _begin(self, job: Job) -> None:
        if self._policy.path == "packed":
            self._lane(job).add(job)
        else:
            answer_plainly(self._policy, job, self._end)
            self.passes += job.told

    def _lane(self, job: Job) -> Batch:
        """The batch of questions that begin as this one: with what all of the loop's begin with, or not."""
        prefix = by_prefix([job.ids], self._beginning)[0][0]
        if len(prefix) not in self._lanes:
            settings = self._settings
            self._lanes[len(prefix)] = Batch(
                self._policy, prefix, self._end, settings.max_new_tokens, settings.batch_tokens
            )
        return self._lanes[len(prefix)]


def going_on(jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if not (job.over or job.gone)]


def opener(project: Project) -> "Callable[[Specialist], tuple[Policy, list[int], set[int]]]":
    """A function that puts an adapter on the base model, as the loop answers with it: (the policy, what its questions
    begin with, the tokens that end an answer). One base model is held."""
    from resources.model.held import BaseModel, open_held
    from resources.model.policy import beginning, end_tokens

    settings, execution = project.experiment.policy, project.outside("execution")
    base = BaseModel(project.models.base_model, settings.dtype, settings.quantization, settings.device, execution.path)
    files = base.files

    def put_on(specialist: Specialist) -> "tuple[Policy, list[int], set[int]]":
        if base.files != files:  # it would be read anew, and answer under the name of the former one
            raise RuntimeError("the base model's files changed while it was served: start the server anew")
        name = None if specialist.folder is None else specialist.name
        policy = open_held("policy", base, execution.shape_free, specialist.folder, name)
        policy.system_prompt = settings.system_prompt
        return policy, beginning(policy), end_tokens(policy.model, policy.tokenizer)

    return put_on
