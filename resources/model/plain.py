"""The plain path: a model as transformers runs it, one sequence at a time, with its own attention and cache.

For models whose tokens mix in ways that packed rows do not know (resources/model/agreement.py): slower, and right.
A sequence is alone in its pass, so what comes of it cannot depend on what else is asked.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from resources.model.packing import Ids

if TYPE_CHECKING:
    import torch

ORIGINAL = "original_inv_freq"  # of a rotary embedding, behind the name of a kind of layers where it has several


def continuation(
    model: Any,
    ids: Ids,
    *,
    end: Sequence[int],
    max_new_tokens: int,
    choose: "Callable[[Ids, torch.Tensor], int]",
    use_cache: bool,
) -> Ids:
    """What transformers' `generate` says after `ids`: at most `max_new_tokens` token ids, an end token included.

    choose: gets the ids that were said and the logits after them, (vocabulary,); returns the next id.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

    class Chosen(LogitsProcessor):
        """Leaves the chosen token alone possible."""

        def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
            token = choose(input_ids[0, len(ids) :].tolist(), scores[0])
            return torch.full_like(scores, float("-inf")).index_fill_(1, torch.tensor([token], device=scores.device), 0)

    forget_lengths(model)
    asked = torch.tensor([ids], device=model.device)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=use_cache,
        eos_token_id=list(end) or None,
        pad_token_id=0,  # of a batch of one it is never needed, and `generate` warns where there is none
    )
    with torch.inference_mode(), nothing_else_configured(model):
        said = model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            generation_config=config,
            logits_processor=LogitsProcessorList([Chosen()]),
        )
    return said[0, len(ids) :].tolist()


@contextmanager
def nothing_else_configured(model: Any) -> Iterator[None]:
    """`generate` fills what a configuration leaves open with the model's own, such as a repetition penalty."""
    from transformers import GenerationConfig

    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def score(model: Any, context: Ids, answer: Ids) -> tuple[float, bool]:
    """Log-probability in nats of an answer after a context, and whether each of its tokens is the likeliest."""
    import torch

    with torch.inference_mode():
        log_probs = log_probabilities(model, context, answer)
        targets = torch.tensor(answer, device=log_probs.device)
        chosen = log_probs.gather(1, targets[:, None])[:, 0]
        return float(chosen.double().sum()), bool((chosen == log_probs.amax(-1)).all())


def log_probabilities(model: Any, context: Ids, answer: Ids) -> "torch.Tensor":
    """Of every token in the places of the answer, (answer, vocabulary), in float32."""
    import torch

    forget_lengths(model)
    ids = torch.tensor([[*context, *answer]], device=model.device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
    return logits[len(context) - 1 : -1].float().log_softmax(-1)


def forget_lengths(model: Any) -> None:
    """Rotary positions of kind `dynamic` go by the longest sequence since a short one: from here on, by none."""
    for module in model.modules():
        if "dynamic" in str(getattr(module, "rope_type", "")):  # a dict where kinds of layers have each their own
            names = (*vars(module), *(name for name, _ in module.named_buffers(recurse=False)))
            for kind in [name.removesuffix(ORIGINAL) for name in names if name.endswith(ORIGINAL)]:
                original = getattr(module, f"{kind}{ORIGINAL}").to(model.device).clone()  # others write into it
                module.register_buffer(f"{kind}inv_freq", original, persistent=False)
                setattr(module, f"{kind}max_seq_len_cached", module.original_max_seq_len)
