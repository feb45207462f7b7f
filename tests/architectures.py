"""Tiny random models of the causal architectures of transformers, for those that must answer as transformers does."""

from pathlib import Path
from typing import Any

from tests.tiny import make_tokenizer

# Those of transformers' causal model types of which a tiny model can be made by their configuration alone.
NAMES = (
    "afmoe", "apertus", "arcee", "aria_text", "axk2", "bailing_hybrid", "bamba", "beam", "biogpt", "bitnet",
    "bloom", "codegen", "cohere", "cohere2", "cohere2_moe", "ctrl", "cwm", "dbrx", "deepseek_v2", "deepseek_v3",
    "deepseek_v32", "deepseek_v4", "diffllama", "doge", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe",
    "falcon", "falcon_h1", "falcon_mamba", "flex_olmo", "flint", "gemma", "gemma2", "gemma3_text", "gemma3n_text",
    "glm", "glm4", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo",
    "gpt_neox", "gpt_neox_japanese", "gpt_oss", "gptj", "granite", "granite_swa", "granitemoe", "granitemoe_swa",
    "granitemoehybrid", "granitemoeshared", "helium", "hrm_text", "hunyuan_v1_dense", "hy_v3", "hy_v4",
    "hyperclovax", "inkling2_text", "inkling_text", "internlm3", "iquestcoder", "jais2", "jamba", "jetmoe",
    "kimi_linear", "kolibri1", "laguna", "lfm2", "lfm2_moe", "lfm3", "llama", "llama4_text", "mamba", "mamba2",
    "mellum", "minicpm3", "minimax", "minimax_m2", "minimax_m3_vl_text", "ministral", "ministral3", "mistral",
    "mixtral", "modernbert-decoder", "moshi", "mpt", "nanochat", "nemotron", "nemotron_h", "olmo", "olmo2", "olmo3",
    "olmo_hybrid", "olmoe", "openai-gpt", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe",
    "qwen3", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_moe", "qwen3_next", "recurrent_gemma", "rwkv", "seed_oss",
    "smollm3", "solar_open", "stablelm", "starcoder2", "trocr", "vaultgemma", "xglm", "xlstm", "youtu", "zaya",
)  # fmt: skip

# Sizes by the names that configurations give them; each takes those that it has.
SIZES = {
    "hidden_size": 32, "n_embd": 32, "d_model": 32, "n_embed": 32, "dim": 32, "intermediate_size": 64, "ffn_dim": 64,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "num_attention_heads": 2, "n_head": 2,
    "n_heads": 2, "num_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256, "n_positions": 256,
    "max_seq_len": 256,
    "head_dim": 16, "num_experts": 2, "num_local_experts": 2, "n_routed_experts": 2, "num_experts_per_tok": 1,
    "moe_intermediate_size": 32, "sliding_window": 64,
}  # fmt: skip


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


def try_architecture(name: str, folder: Path) -> tuple[str, str]:
    """Make one into `folder`, and try how it is run: (path, why not in packed passes)."""
    from resources.model.agreement import run_path
    from resources.model.policy import load_policy
    from resources.training.agreement import LOOK_AT_A_STEP

    make_architecture(name, folder)
    return run_path(lambda path: load_policy(folder, dtype="float32", path=path), LOOK_AT_A_STEP)


def settings_of(name: str) -> dict[str, Any]:
    """What the configuration of this model type is given to be tiny."""
    from transformers import CONFIG_MAPPING

    known, tokenizer = CONFIG_MAPPING[name](), make_tokenizer()
    tokens = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    settings = {**SIZES, **tokens, "vocab_size": len(tokenizer)}
    if getattr(known, "sliding_window", None) is None:
        del settings["sliding_window"]
    taken = {
        key: value
        for key, value in settings.items()
        if getattr(known, key, None) is not None and not derived(known, key)
    }
    return {**taken, **SPECIAL.get(name, {})}


def derived(known: Any, key: str) -> bool:
    """Whether a configuration works this out itself."""
    return isinstance(getattr(type(known), key, None), property)


HYBRID = ["linear_attention", "full_attention"]
# Low-rank attention, as of DeepSeek.
LOW_RANK = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "head_dim": 8,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "rwkv": {"attention_hidden_size": 32},
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 4, "num_attention_heads": 4, "n_head": 4},
    "gpt_neo": {"attention_types": [[["global"], 2]]},
    "mamba2": {"num_heads": 4, "head_dim": 16, "expand": 2, "n_groups": 1, "state_size": 8},
    "qwen3_next": {"layer_types": HYBRID, "linear_num_value_heads": 2, "linear_num_key_heads": 2},
    "qwen3_5_text": {"layer_types": HYBRID, "linear_num_value_heads": 2, "linear_num_key_heads": 2},
    "minimax": {"layer_types": HYBRID},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_period": 2, "expert_layer_offset": 1},
    "bamba": {
        "attn_layer_indices": [1],
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_n_groups": 1,
        "mamba_d_state": 8,
    },
    "falcon_h1": {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_ssm": 64, "mamba_n_groups": 1, "mamba_d_state": 8},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_n_groups": 1,
        "mamba_d_state": 8,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 64},
    "zamba2": {
        "num_hidden_layers": 3,
        "layer_types": ["mamba", "mamba", "hybrid"],
        "n_mamba_heads": 4,
        "mamba_ngroups": 1,
    },
    "deepseek_v2": {**LOW_RANK, "num_experts_per_tok": 1},
    "hunyuan_v1_dense": {"head_dim": 16},
    "ministral": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 16},
    "deepseek_v3": dict(**LOW_RANK, n_group=1, topk_group=1, first_k_dense_replace=1),
    "minicpm3": LOW_RANK,
    "glm4_moe_lite": dict(**LOW_RANK, n_group=1, topk_group=1),
    "longcat_flash": LOW_RANK,
    "youtu": LOW_RANK,
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 64},
    },
    "gemma3n_text": {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 261},
    "modernbert-decoder": {"bos_token_id": 0, "eos_token_id": 0, "local_attention": 64},
    "cwm": {"bos_token_id": 0, "eos_token_id": 0},
}
