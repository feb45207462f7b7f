"""Tiny random models of the causal architectures of transformers, for those that must answer as transformers does."""

from pathlib import Path
from typing import Any

from tests.tiny import make_tokenizer

# Sizes by the names that configurations give them; each takes those that it has.
SIZES = dict(
    hidden_size=32, n_embd=32, d_model=32, n_embed=32, dim=32, intermediate_size=64, ffn_dim=64, num_hidden_layers=2,
    n_layer=2, n_layers=2, num_layers=2, num_attention_heads=2, n_head=2, n_heads=2, num_heads=2,
    num_key_value_heads=2, max_position_embeddings=256, n_positions=256, max_seq_len=256, head_dim=16,
    num_experts=2, num_local_experts=2, n_routed_experts=2, num_experts_per_tok=1, moe_intermediate_size=32,
    sliding_window=64,
)  # fmt: skip


def make_architecture(name: str, folder: Path, **changes: Any) -> Path:
    """A tiny random model of this model type, with the tokenizer of tests/tiny.py. Wide weights, so that what it says
    depends on what it is asked."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**{**settings_of(name), **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 0.35)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def settings_of(name: str) -> dict[str, Any]:
    """What the configuration of this model type is given to be tiny."""
    from transformers import CONFIG_MAPPING

    known, tokenizer = CONFIG_MAPPING[name](), make_tokenizer()
    tokens = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    settings = {**SIZES, **tokens, "vocab_size": len(tokenizer)}
    taken = {key: value for key, value in settings.items() if hasattr(known, key) and not derived(known, key)}
    return {**taken, **SPECIAL.get(name, {})}




def derived(known: Any, key: str) -> bool:
    """Whether a configuration works this out itself."""
    return isinstance(getattr(type(known), key, None), property)


HYBRID = ["linear_attention", "full_attention"]
# Low-rank attention, as of DeepSeek.
LOW_RANK = dict(q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16, head_dim=8)
SPECIAL: dict[str, dict[str, Any]] = {
    "rwkv": dict(attention_hidden_size=32),
    "gptj": dict(rotary_dim=8),
    "codegen": dict(rotary_dim=4, num_attention_heads=4, n_head=4),
    "gpt_neo": dict(attention_types=[[["global"], 2]]),
    "mamba2": dict(num_heads=4, head_dim=16, expand=2, n_groups=1, state_size=8),
    "qwen3_next": dict(layer_types=HYBRID, linear_num_value_heads=2, linear_num_key_heads=2),
    "qwen3_5_text": dict(layer_types=HYBRID, linear_num_value_heads=2, linear_num_key_heads=2),
    "minimax": dict(layer_types=HYBRID),
    "lfm2": dict(layer_types=["conv", "full_attention"]),
    "lfm2_moe": dict(layer_types=["conv", "full_attention"], num_dense_layers=1),
    "jamba": dict(attn_layer_offset=1, attn_layer_period=2, expert_layer_period=2, expert_layer_offset=1),
    "bamba": dict(attn_layer_indices=[1], mamba_n_heads=4, mamba_d_head=16, mamba_n_groups=1, mamba_d_state=8),
    "falcon_h1": dict(mamba_n_heads=4, mamba_d_head=16, mamba_d_ssm=64, mamba_n_groups=1, mamba_d_state=8),
    "granitemoehybrid": dict(
        layer_types=["mamba", "attention"], mamba_n_heads=4, mamba_d_head=16, mamba_n_groups=1, mamba_d_state=8
    ),
    "recurrent_gemma": dict(num_hidden_layers=3, lru_width=32, attention_window_size=64),
    "zamba2": dict(num_hidden_layers=3, layer_types=["mamba", "mamba", "hybrid"], n_mamba_heads=4, mamba_ngroups=1),
    "deepseek_v2": LOW_RANK,
    "deepseek_v3": dict(**LOW_RANK, n_group=1, topk_group=1, first_k_dense_replace=1),
    "minicpm3": LOW_RANK,
    "glm4_moe_lite": dict(**LOW_RANK, n_group=1, topk_group=1),
    "longcat_flash": LOW_RANK,
    "youtu": LOW_RANK,
    "dbrx": dict(attn_config={"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0}, ffn_config={"ffn_hidden_size": 64}),
    "gemma3n_text": dict(num_kv_shared_layers=0, hidden_size_per_layer_input=8, vocab_size_per_layer_input=261),
    "modernbert-decoder": dict(bos_token_id=0, eos_token_id=0, local_attention=64),
    "cwm": dict(bos_token_id=0, eos_token_id=0),
}
