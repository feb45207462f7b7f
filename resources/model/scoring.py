"""Log-probabilities of answers under a causal language model, each question computed once.

All answers to a question are branches of one row (resources/model/packing.py), and only the positions that
predict an answer token go through the output head.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from resources.model import plain
from resources.model.no_room import NoRoom, TooLittleMemory, attempt, halve, pass_tokens
from resources.model.packing import UNIT, Ids, Pack, Row, by_prefix, is_packed, round_up, shape_free
from resources.store.rows import Batches

if TYPE_CHECKING:
    import torch

TARGET_SHARE = 4  # a pass scores at most batch_tokens / TARGET_SHARE positions: the head is the widest matrix


@dataclass(frozen=True)
class Question:
    """Token ids of a context, which must not be empty, and of the answers to be scored after it."""

    context: Ids
    answers: tuple[Ids, ...]

    @property
    def row(self) -> Row:
        # The last token of an answer predicts nothing that is asked for.
        return Row(self.context, tuple(answer[:-1] for answer in self.answers))

    @property
    def targets(self) -> int:
        return sum(map(len, self.answers))


Scores = list[tuple[float, bool]]  # of each answer: log-probability in nats, and whether it is the greedy one
Value = TypeVar("Value")
# Gets the questions of a pass, the logits in the place of each of their answers' tokens, (tokens, vocabulary) in
# float32, answer by answer, and the tokens that stand there; returns a value for each question.
Read = Callable[[Sequence[Question], "torch.Tensor", list[int]], list[Value]]


def score_answers(
    model: Any, questions: Sequence[Question], *, batch_tokens: int, prefix: Ids | None = None
) -> Batches[Scores]:
    """The Scores of every question, pass by pass.

    prefix: what contexts usually begin with; computed once a pass for those that do. A pass has up to
    `batch_tokens` tokens, or one question that is longer. A question's scores depend on
    the question alone, to the last bit, where resources.model.exactness finds that; where products do not allow it, all
    passes have the same shapes (resources.model.packing.shape_free). A pass that does not fit into memory is split, and
    those after it are smaller. A model that is not loaded for packed rows scores answer by answer. Raises
    TooLittleMemory if a question alone does not fit.
    """
    import torch

    if not is_packed(model):
        for place, question in enumerate(questions):
            yield [place], [[plain.score(model, question.context, answer) for answer in question.answers]]
        return

    def read(asked: Sequence[Question], logits: "torch.Tensor", targets: list[int]) -> list[Scores]:
        return by_answer(asked, *of_targets(logits, torch.tensor(targets, device=model.device)))

    yield from in_passes(model, questions, read, batch_tokens=batch_tokens, prefix=prefix)


def in_passes(
    model: Any, questions: Sequence[Question], read: "Read[Value]", *, batch_tokens: int, prefix: Ids | None = None
) -> Batches[Value]:
    """What `read` makes of the logits of every question, pass by pass of a model that is loaded for packed rows; see
    `score_answers`."""
    tokens = pass_tokens(model, batch_tokens)
    waiting = deque(passes(questions, prefix or [], tokens))
    while waiting:
        beginning, places = waiting.popleft()
        asked = [questions[place] for place in places]
        found = attempt(partial(one_pass, model, beginning, asked, tokens, read))
        if not isinstance(found, NoRoom):
            yield places, found
            continue
        used = len(beginning) + sum(question.row.length - len(beginning) for question in asked)
        # Where all passes have one size they have it however little is in them.
        tokens = min(tokens, used) if shape_free(model) else tokens
        if len(places) == 1 and tokens <= used:
            raise TooLittleMemory(
                f"scoring a text of {used} tokens alone does not fit into memory ({found.reason}): shorten it, or name "
                "a smaller model, dtype or quantization in policy"
            )
        tokens = halve(model, tokens)
        left = [*places, *(place for _, its in waiting for place in its)]
        anew = passes([questions[place] for place in left], prefix or [], tokens)
        waiting = deque((beginning, [left[n] for n in its]) for beginning, its in anew)


def one_pass(
    model: Any, beginning: Ids, questions: Sequence[Question], pass_tokens: int, read: "Read[Value]"
) -> list[Value]:
    """What `read` makes of questions whose contexts all begin with `beginning`."""
    import torch

    size, most = (0, 0) if shape_free(model) else (pass_tokens, pass_tokens // TARGET_SHARE)
    rows = [Row(q.context[len(beginning) :], q.row.branches) for q in questions]
    pack = Pack(beginning, rows, size, model.device)
    states, targets = predicting(pack, rows, questions)
    keep = states + states[-1:] * (max(most, round_up(len(states), UNIT)) - len(states))
    with torch.inference_mode():
        logits = model(
            input_ids=pack.ids,
            position_ids=pack.positions,
            layout=pack,
            use_cache=False,
            logits_to_keep=torch.tensor(keep, device=model.device),
        ).logits[0, : len(states)]
        return read(questions, logits.float(), targets)


def passes(questions: Sequence[Question], prefix: Ids, batch_tokens: int) -> Iterator[tuple[Ids, list[int]]]:
    """(prefix, positions) of each pass, longest questions first."""
    for beginning, places in by_prefix([question.context for question in questions], prefix):
        batch: list[int] = []
        tokens = targets = 0
        for place in sorted(places, key=lambda place: (-questions[place].row.length, place)):
            more, wanted = questions[place].row.length - len(beginning), questions[place].targets
            full = len(beginning) + tokens + more > batch_tokens or targets + wanted > batch_tokens // TARGET_SHARE
            if batch and full:
                yield beginning, batch
                batch, tokens, targets = [], 0, 0
            batch.append(place)
            tokens, targets = tokens + more, targets + wanted
        yield beginning, batch


def predicting(pack: Pack, rows: Sequence[Row], questions: Sequence[Question]) -> tuple[list[int], list[int]]:
    """(where in the pack the state stands that predicts each answer token, the tokens), answer by answer."""
    states, targets = [], []
    for row, start, question in zip(rows, pack.starts, questions, strict=True):
        first = start + len(row.stem)
        last = first - 1
        for branch, answer in zip(row.branches, question.answers, strict=True):
            states += [last, *range(first, first + len(branch))]
            targets += answer
            first += len(branch)
    return states, targets


def of_targets(logits: "torch.Tensor", targets: "torch.Tensor") -> tuple[list[float], list[bool]]:
    """Log-probability of each target, and whether no other token is likelier."""
    chosen = logits.gather(1, targets[:, None])[:, 0]
    return (chosen - logits.logsumexp(-1)).tolist(), (chosen == logits.amax(-1)).tolist()


def by_answer(questions: Sequence[Question], log_probs: list[float], greedy: list[bool]) -> list[Scores]:
    """Sums over the tokens of each answer."""
    found, place = [], 0
    for question in questions:
        scores = []
        for answer in question.answers:
            end = place + len(answer)
            scores.append((sum(log_probs[place:end]), all(greedy[place:end])))
            place = end
        found.append(scores)
    return found
