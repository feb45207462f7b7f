"""Whether a training step on packed rows is the step that TRL would make of the same pair.

It is tried once for a model, as its answers are (resources/model/agreement.py): the gradient that one pair gives the
LoRA weights, by shared prompts, fused layers and TRL's fused head, against plain passes and the model's own logits.
"""

from typing import TYPE_CHECKING, Any

from resources.model.agreement import Look, answer_ids, dtype_of, other
from resources.model.capabilities import unsuited_layers
from resources.model.policy import Policy, encode
from resources.training.fused_lora import fuse_lora
from resources.training.own_logits import score_by_logits
from resources.training.shared_prompts import completion_positions_only, share_prompts

if TYPE_CHECKING:
    import torch

# How long the difference may be, as a share of the gradient.
ALLOWED = {"float32": 1e-2, "bfloat16": 0.15, "float16": 0.1}
SEED = 0


def gradient_plainly(plain: Policy) -> "torch.Tensor":
    return lora_gradient(plain, on_packed_rows=False)


def gradient_differs(packed: Policy, wanted: "torch.Tensor") -> str | None:
    found = lora_gradient(packed, on_packed_rows=True)
    off = float((found - wanted).norm() / wanted.norm())
    return other("gradients", off if off == off else float("inf"), ALLOWED[dtype_of(packed)])


# A model is of no use for anything else afterwards: it has a LoRA, and TRL's head.
LOOK_AT_A_STEP = Look(gradient_plainly, gradient_differs)


def lora_gradient(policy: Policy, *, on_packed_rows: bool) -> "torch.Tensor":
    """What the log-ratio of a pair's answers asks of a fresh LoRA, flat, in float32."""
    import torch
    from peft import LoraConfig, get_peft_model
    from trl.trainer.utils import add_fused_lm_head

    torch.manual_seed(SEED)
    lora = LoraConfig(
        r=2, target_modules="all-linear", exclude_modules=unsuited_layers(policy.model), task_type="CAUSAL_LM"
    )
    model = get_peft_model(policy.model, lora)
    if on_packed_rows:
        add_fused_lm_head(model.get_base_model(), outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
        fuse_lora(model)
        share_prompts(model.get_base_model().base_model)
    else:
        score_by_logits(model.get_base_model())
    with completion_positions_only(), torch.enable_grad():
        chosen, rejected = model(**pair_of(policy), use_cache=False, fused_lm_head=True).log_probs.sum(1)
        wanted = [weight for name, weight in model.named_parameters() if ".lora_B." in name]
        found = torch.autograd.grad(chosen - rejected, wanted, allow_unused=True)
    return torch.cat([part.float().flatten() for part in found if part is not None])


def pair_of(policy: Policy) -> dict[str, Any]:
    """A batch of one pair as TRL's collator makes it: prompt + chosen and prompt + rejected, padded on the right."""
    import torch

    prompt, answers = encode(policy, "Name the colour of the third thing."), answer_ids(policy)
    width = len(prompt) + max(map(len, answers))
    ids = torch.zeros(2, width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, answer in enumerate(answers):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor([*prompt, *answer])
        mask[row, :end] = 1
        labels[row, len(prompt) : end] = ids[row, len(prompt) : end]
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(policy.model.device) for name, tensor in batch.items()}
