"""Which way a model is run: in packed passes, or plainly, one sequence at a time.

Packed rows (resources/model/packing.py) know of attention over keys and values, and of nothing else that lets tokens
see each other: recurrent states, convolutions, position biases, windows. Which model is which is not looked up but
tried: packed passes against plain ones of the same tokens, and a gradient. A model that does not agree runs plainly
(resources/model/plain.py), so that any causal model of transformers gives transformers' own answers.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from resources.model.generation import Request, generate
from resources.model.packing import Ids, Pack, Row
from resources.model.plain import continuation, log_probabilities
from resources.model.policy import Policy, RunPath, encode
from resources.model.scoring import Question, score_answers
from resources.store.rows import collect

if TYPE_CHECKING:
    import torch

# Of different lengths, so that a state that leaks from one row into the next shows.
TEXTS = ("What is it?", "Name the colour of the third thing on the list, please.", "And why?", "7 and 5 are")
ANSWERS = (" It is not.", " Yes")
NEW_TOKENS = 5
BATCH_TOKENS = 256
# How far log-probabilities may differ, in nats, by the dtype of the weights. What is merely rounded otherwise is off
# by some units of the last place; where tokens see others than they should, tenths and more.
NATS = {"float32": 2e-3, "bfloat16": 0.15, "float16": 0.05}
LIKELY = -12.0  # nats; of less likely tokens rounding makes more
GRADIENT = {"float32": 1e-2, "bfloat16": 0.15, "float16": 0.1}  # length of the difference, as a share
SHORTENS = re.compile(r"(^|_)window(_size)?$|attention_chunk_size$")  # names of what bounds how far back a token sees
BY_LENGTH = ("dynamic", "longrope")  # kinds of rotary positions that depend on the longest sequence of a pass


class NotCausal(ValueError):
    """A token of this model sees those behind it, so that it cannot say one after the other."""


def run_path(load: Callable[[RunPath], Policy]) -> tuple[RunPath, str]:
    """How a model is run, and why it is not in packed passes ("" if it is).

    load: the same model, loaded to be run so. Raises NotCausal, and what a plain pass raises: then transformers
    cannot run this model here either.
    """
    plain = load("plain")
    require_causal(plain)
    cached = cache_agrees(plain)
    try:
        why = special(plain.model.config.get_text_config()) or disagreement(load("packed"), plain)
    except Exception as error:  # whatever a model does with keywords and shapes that it does not know
        why = failed(error)
    if why is None:
        return "packed", ""
    return ("plain", why) if cached else ("uncached", f"{why}; nor does it agree with itself when it keeps a cache")


def require_causal(plain: Policy) -> None:
    """Raise NotCausal if the tokens behind one change what comes after it."""
    import torch

    context, answer = encode(plain, TEXTS[1]), answer_ids(plain)[0]
    with torch.inference_mode():
        alone = log_probabilities(plain.model, context[:-1], context[-1:])
        among = log_probabilities(plain.model, context[:-1], [context[-1], *answer])[:1]
    if furthest(among, alone) > NATS[dtype_of(plain)]:
        raise NotCausal("what follows a text changes what it says after it: it is no causal language model")


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
    except Exception:  # a cache that is not made for this model
        return False
    with torch.inference_mode():
        wanted = log_probabilities(plain.model, prompt, said)
    return furthest(torch.stack(met), wanted) <= NATS[dtype_of(plain)]


def disagreement(packed: Policy, plain: Policy) -> str | None:
    """In what a model gives something else on packed rows than it gives plainly, in words; None if in nothing."""
    found = (look(packed, plain) for look in (of_answers, of_scores, of_gradient))
    return next((why for why in found if why is not None), None)


def special(config: Any) -> str | None:
    """What a configuration says of attention that packed rows do not know and that a short text does not show."""
    settings = config.to_dict()
    longest = settings.get("max_position_embeddings") or float("inf")
    for name, value in settings.items():
        if SHORTENS.search(name) and type(value) is int and 0 < value < longest:
            return f"a token sees no further back than {name}: {value}"
    rotary = settings.get("rope_parameters") or {}
    kinds = {one.get("rope_type") for one in (rotary, *rotary.values()) if isinstance(one, dict)}
    return next((f"its positions depend on the longest text ({kind})" for kind in BY_LENGTH if kind in kinds), None)


def of_answers(packed: Policy, plain: Policy) -> str | None:
    """Of answers in the making: the distribution of every token, against a plain pass over the whole."""
    import torch

    met: dict[int, list[torch.Tensor]] = {}
    said: dict[int, Ids] = {}

    def choose(requests: Sequence[Request], logits: "torch.Tensor") -> "torch.Tensor":
        tokens = logits.argmax(-1)
        for request, token, its in zip(requests, tokens.tolist(), logits, strict=True):
            met.setdefault(request.place, []).append(its.float().log_softmax(-1))
            said.setdefault(request.place, []).append(token)
        return tokens

    for _ in generate(packed, TEXTS, max_new_tokens=NEW_TOKENS, batch_tokens=BATCH_TOKENS, choose=choose):
        pass
    worst = 0.0
    for place, text in enumerate(TEXTS):
        with torch.inference_mode():
            wanted = log_probabilities(plain.model, encode(plain, text), said[place])
        worst = max(worst, furthest(torch.stack(met[place]), wanted))
    return other("answers", worst, plain, NATS)


def of_scores(packed: Policy, plain: Policy) -> str | None:
    """Of two answers scored as branches of one question."""
    import torch

    questions = [Question(encode(packed, text), tuple(answer_ids(packed))) for text in TEXTS]
    found = collect(len(questions), score_answers(packed.model, questions, batch_tokens=BATCH_TOKENS))
    worst = 0.0
    for question, scores in zip(questions, found, strict=True):
        for answer, (nats, _) in zip(question.answers, scores, strict=True):
            with torch.inference_mode():
                wanted = of_tokens(log_probabilities(plain.model, question.context, answer), answer)
            worst = max(worst, abs(nats - float(wanted)) / len(answer))
    return other("log-probabilities", worst, plain, NATS)


def of_gradient(packed: Policy, plain: Policy) -> str | None:
    """Of one pair: what its log-ratio asks of the model's embeddings, which every layer has a part in."""
    prompt, (chosen, rejected) = encode(plain, TEXTS[1]), answer_ids(plain)

    def plainly() -> "torch.Tensor":
        return sum_of(log_probabilities(plain.model, prompt, ids) for ids in (chosen, rejected))

    def in_a_pack() -> "torch.Tensor":
        import torch

        pack = Pack([], [Row(prompt, (chosen, rejected))], device=packed.model.device)
        logits = packed.model(
            input_ids=pack.ids, position_ids=pack.positions, layout=pack, use_cache=False
        ).logits[0].float().log_softmax(-1)
        last, second = len(prompt) - 1, len(prompt) + len(chosen)
        places = [[last, *range(last + 1, last + len(chosen))], [last, *range(second, second + len(rejected) - 1)]]
        return sum_of(logits[place] for place in places)

    def sum_of(parts: Any) -> "torch.Tensor":
        first, second = parts
        return of_tokens(first, chosen) - of_tokens(second, rejected)

    found, wanted = gradient(packed.model, in_a_pack), gradient(plain.model, plainly)
    return other("gradients", float((found - wanted).norm() / wanted.norm()), plain, GRADIENT)


def gradient(model: Any, value: "Callable[[], torch.Tensor]") -> "torch.Tensor":
    """Of a value by the model's embeddings, in float32; nothing of the model is changed."""
    import torch

    weight = model.get_input_embeddings().weight
    wanted, weight.requires_grad = {p: p.requires_grad for p in model.parameters()}, True
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is weight)
    try:
        with torch.enable_grad():
            return torch.autograd.grad(value(), weight)[0].float()
    finally:
        for parameter, its in wanted.items():
            parameter.requires_grad_(its)


def answer_ids(policy: Policy) -> list[Ids]:
    return [policy.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ANSWERS]


def of_tokens(log_probs: "torch.Tensor", ids: Ids) -> "torch.Tensor":
    """Their sum at these tokens, in nats; log_probs: (tokens, vocabulary)."""
    import torch

    return log_probs.gather(1, torch.tensor(ids, device=log_probs.device)[:, None]).sum()


def furthest(found: "torch.Tensor", wanted: "torch.Tensor") -> float:
    """The largest difference in nats at tokens that are likely."""
    likely = wanted > LIKELY
    return float((found - wanted)[likely].abs().nan_to_num(nan=float("inf")).max())


def other(what: str, worst: float, policy: Policy, allowed: dict[str, float]) -> str | None:
    most = allowed[dtype_of(policy)]
    return None if worst <= most else f"its {what} on packed rows are others (off by {worst:.2g}, at most {most:g})"


def dtype_of(policy: Policy) -> str:
    return str(policy.model.dtype).removeprefix("torch.")


def failed(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"its layers do not take packed rows ({type(error).__name__}: {first[:120]})"
