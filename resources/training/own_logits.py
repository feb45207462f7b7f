"""TRL's trainer with log-probabilities from the model's own logits.

TRL multiplies the backbone's states by the output head itself and knows, by their names in a configuration, the ways in
which models scale what comes of it. On the plain path, where any architecture may come along, the model's own forward
is asked instead: more memory, and right whatever it does.
"""

from types import MethodType
from typing import Any


def score_by_logits(model: Any) -> None:
    """Replace the fused head that TRL gave a causal model (`trl.trainer.utils.add_fused_lm_head`).

    Called with fused_lm_head=True, input ids and labels (sequences, length), -100 where a token is not scored, it
    returns what TRL reads: log_probs, entropy, mean_logits and is_top1, each (sequences, length - 1).
    """
    import torch
    from trl.trainer.utils import FusedCausalLMOutput

    forward = type(model).forward

    def scored(self: Any, *arguments: Any, fused_lm_head: bool = False, **named: Any) -> Any:
        if not fused_lm_head:
            return forward(self, *arguments, **named)
        labels = named.pop("labels")[:, 1:]
        logits = forward(self, *arguments, **named).logits[:, :-1].float()
        mask = labels != -100
        log_probs = logits.log_softmax(-1)
        chosen = log_probs.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        with torch.no_grad():
            entropy = -(log_probs.exp() * log_probs).sum(-1)
            top = logits.argmax(-1) == labels
        return FusedCausalLMOutput(
            log_probs=chosen.masked_fill(~mask, 0),
            entropy=entropy.masked_fill(~mask, 0),
            mean_logits=logits.detach().mean(-1).masked_fill(~mask, 0),
            is_top1=top & mask,
            label_mask=mask,
        )

    model.forward = MethodType(scored, model)
