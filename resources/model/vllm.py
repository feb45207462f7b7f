"""Answers from vLLM in this process (Kwon et al. 2023, arXiv 2309.06180). Needs a GPU and the extra vllm."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resources.model.prompts import encode
from resources.store.rows import Batches

if TYPE_CHECKING:
    from resources.model.prompts import Reader

COMMIT_ROWS = 1024  # answers that are yielded together; vLLM schedules within
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM makes room for


def generate_in_vllm(
    reader: "Reader",
    model_dir: Path,
    adapter_dir: Path | None,
    prompts: Sequence[str],
    *,
    dtype: str,
    max_new_tokens: int,
) -> Batches[str]:
    """Answer every prompt greedily, as generation.generate does. The engine takes most of the GPU's memory, and
    gives it back at the end, or when it is closed: scoring and training are done by transformers on the same GPU."""
    import gc

    import torch
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    encoded = [encode(reader, prompt) for prompt in prompts]
    named, lora = {}, None
    if adapter_dir is not None:
        rank = json.loads((adapter_dir / "adapter_config.json").read_text(encoding="utf-8"))["r"]
        named = {"enable_lora": True, "max_lora_rank": next(room for room in RANKS if room >= rank)}
        lora = LoRARequest("policy", 1, str(adapter_dir))
    longest = max(map(len, encoded)) + max_new_tokens
    engine = LLM(model=str(model_dir), dtype=dtype, max_model_len=longest, seed=0, **named)
    greedy = SamplingParams(temperature=0, max_tokens=max_new_tokens)
    try:
        for start in range(0, len(encoded), COMMIT_ROWS):
            part = [{"prompt_token_ids": ids} for ids in encoded[start : start + COMMIT_ROWS]]
            replies = engine.generate(part, greedy, lora_request=lora, use_tqdm=False)
            yield range(start, start + len(part)), [reply.outputs[0].text.strip() for reply in replies]
    finally:
        del engine
        gc.collect()
        torch.cuda.empty_cache()
