"""Which way a model is run: in packed passes, or plainly, one sequence at a time.

Packed rows (resources/model/packing.py) know of attention over keys and values, and of nothing else that lets tokens
see each other: recurrent states, convolutions, position biases, windows. Which model is which is not looked up but
tried: packed passes against plain ones of the same tokens, and a training step (resources/training/agreement.py). A
model that does not agree runs plainly (resources/model/plain.py), so that any causal model of transformers gives
transformers' own answers.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from resources.model.generation import Request, generate
from resources.model.packing import Ids
from resources.model.plain import continuation, log_probabilities, score
from resources.model.prompts import Policy, RunPath, encode
from resources.model.scoring import Question, score_answers
from resources.store.rows import collect

if TYPE_CHECKING:
    import torch

# Of different lengths, so that a state that leaks from one row into the next shows.
TEXTS = ("What is it?", "Name the colour of the third thing on the list, please.", "And why?", "7 and 5 are")
ANSWERS = (" It is not.", " Yes")
NEW_TOKENS = 5
BATCH_TOKENS = 256
# How far log-probabilities may differ, in nats, by the dtype of the weights: at the worst token in float32, and on
# average in fewer bits, where single ones are off by half a nat merely because they are rounded otherwise (0.09 on
# average, of the embedded model in bfloat16). Where tokens see others than they should it is some nats.
NATS = {"float32": 2e-3, "bfloat16": 0.25, "float16": 0.1}
LIKELY = -12.0  # nats; of less likely tokens rounding makes more
# Names of settings that bound how far back, or to how much of it, a token sees.
SHORTENS = re.compile(r"(^|_)window(_size)?$|attention_chunk_size$|index_topk")
BY_LENGTH = ("dynamic", "longrope")  # kinds of rotary positions that depend on the longest sequence of a pass


class NotCausal(ValueError):
    """A token of this model sees those behind it, so that it cannot say one after the other."""


class Look(NamedTuple):
    """One thing that is looked at. plainly: what a model gives, run plainly. differs: how it differs from that on
    packed rows, in words, or None. A look may leave the model unfit for the looks behind it."""

    plainly: Callable[[Policy], Any]
    differs: Callable[[Policy, Any], str | None]


def run_path(load: Callable[[RunPath], Policy], *more: Look) -> tuple[RunPath, str]:
    """How a model is run, and why it is not in packed passes ("" if it is).

    load: the model, loaded to be run so; one is let go before the next is asked for. more: what to look at beside
    answers and scores. Raises NotCausal, and what a plain pass raises: then transformers cannot run this model either.
    """
    looks = (LOOK_AT_ANSWERS, LOOK_AT_SCORES, *more)
    policy = load("plain")
    require_causal(policy)
    cached = cache_agrees(policy)
    why = special(policy.model.config.get_text_config())
    wanted = [look.plainly(policy) for look in looks]
    if why is None:
        del policy
        try:
            policy = load("packed")
            found = (look.differs(policy, its) for look, its in zip(looks, wanted, strict=True))
            why = next((difference for difference in found if difference), None)
        except Exception as error:  # whatever a model does with keywords and shapes that it does not know
            why = f"its layers do not take packed rows ({type(error).__name__}: {first_line(error)})"
    if why is None:
        return "packed", ""
    return ("plain", why) if cached else ("uncached", f"{why}; what it says from a cache is something else again")


def require_causal(plain: Policy) -> None:
    """Raise NotCausal if the tokens behind one change what comes after it."""
    import torch

    context, answer = encode(plain, TEXTS[1]), answer_ids(plain)[0]
    with torch.inference_mode():
        alone = log_probabilities(plain.model, context[:-1], context[-1:])
        among = log_probabilities(plain.model, context[:-1], [context[-1], *answer])[:1]
    if distance(among, alone, dtype_of(plain)) > NATS[dtype_of(plain)]:
        raise NotCausal("what follows a text changes what it says after that")


def cache_agrees(plain: Policy) -> bool:
    """Whether `generate` with a cache says what plain passes over the whole text do."""
    import torch

    prompt = encode(plain, TEXTS[0])
    met: list[torch.Tensor] = []

    def choose(said: Ids, logits: "torch.Tensor") -> int:
        met.append(logits.float().log_softmax(-1))
        return int(logits.argmax())

    try:
        said = continuation(plain.model, prompt, end=[], max_new_tokens=NEW_TOKENS, choose=choose, use_cache=True)
    except Exception:  # of a cache that does not fit this model
        return False
    with torch.inference_mode():
        wanted = log_probabilities(plain.model, prompt, said)
    return distance(torch.stack(met), wanted, dtype_of(plain)) <= NATS[dtype_of(plain)]


def special(config: Any) -> str | None:
    """What a configuration says of attention that packed rows do not know and that a short text does not show."""
    settings = config.to_dict()
    longest = settings.get("max_position_embeddings") or float("inf")
    for name, value in settings.items():
        if SHORTENS.search(name) and type(value) is int and 0 < value < longest:
            return f"a token sees only a part of what is before it ({name}: {value})"
    rotary = settings.get("rope_parameters") or {}
    kinds = {one.get("rope_type") for one in (rotary, *rotary.values()) if isinstance(one, dict)}
    return next((f"its positions depend on the longest text ({kind})" for kind in BY_LENGTH if kind in kinds), None)


# -- answers in the making: the distribution of every token --------------------------------------------------


def said_plainly(plain: Policy) -> "list[tuple[Ids, torch.Tensor]]":
    """Of each text, what the policy says to it, and the log-probabilities of every token there."""
    import torch

    found = []
    for text in TEXTS:
        prompt = encode(plain, text)
        with torch.inference_mode():
            said: Ids = []
            for _ in range(NEW_TOKENS):
                said.append(int(log_probabilities(plain.model, prompt, [*said, 0])[-1].argmax()))
            found.append((said, log_probabilities(plain.model, prompt, said)))
    return found


def answers_differ(packed: Policy, wanted: "list[tuple[Ids, torch.Tensor]]") -> str | None:
    import torch

    met: dict[int, list[torch.Tensor]] = {}

    def choose(requests: Sequence[Request], logits: "torch.Tensor") -> "torch.Tensor":
        """What was said plainly, so that a near tie does not lead elsewhere."""
        for request, its in zip(requests, logits, strict=True):
            met.setdefault(request.place, []).append(its.float().log_softmax(-1))
        tokens = [wanted[request.place][0][len(request.output_ids)] for request in requests]
        return torch.tensor(tokens, device=logits.device)

    for _ in generate(packed, TEXTS, max_new_tokens=NEW_TOKENS, batch_tokens=BATCH_TOKENS, choose=choose):
        pass
    # One that said an end token ends there.
    dtype = dtype_of(packed)
    off = max(distance(torch.stack(met[place]), its[: len(met[place])], dtype) for place, (_, its) in enumerate(wanted))
    return other("answers", off, NATS[dtype])


# -- answers that are scored, as branches of one question -----------------------------------------------------


def scored_plainly(plain: Policy) -> list[list[float]]:
    return [[score(plain.model, encode(plain, text), ids)[0] for ids in answer_ids(plain)] for text in TEXTS]


def scores_differ(packed: Policy, wanted: list[list[float]]) -> str | None:
    answers = answer_ids(packed)
    questions = [Question(encode(packed, text), tuple(answers)) for text in TEXTS]
    found = collect(len(questions), score_answers(packed.model, questions, batch_tokens=BATCH_TOKENS))
    off = max(
        abs(nats - its) / len(ids)
        for scores, plainly in zip(found, wanted, strict=True)
        for (nats, _), its, ids in zip(scores, plainly, answers, strict=True)
    )
    return other("log-probabilities", off, NATS[dtype_of(packed)])


LOOK_AT_ANSWERS = Look(said_plainly, answers_differ)
LOOK_AT_SCORES = Look(scored_plainly, scores_differ)


def answer_ids(policy: Policy) -> list[Ids]:
    return [policy.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ANSWERS]


def distance(found: "torch.Tensor", wanted: "torch.Tensor", dtype: str) -> float:
    """The difference in nats at tokens that are likely, as NATS has it; infinite where one is no number."""
    off = (found - wanted)[wanted > LIKELY].abs().nan_to_num(nan=float("inf"))
    return float(off.max() if dtype == "float32" else off.mean())


def other(what: str, off: float, allowed: float) -> str | None:
    return None if off <= allowed else f"its {what} on packed rows are others (off by {off:.2g}, at most {allowed:g})"


def dtype_of(policy: Policy) -> str:
    return str(policy.model.dtype).removeprefix("torch.")


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:160]
