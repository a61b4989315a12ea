"""Mixtures of experts, state-space models and hybrids of both with attention."""

from functools import partial

import transformers

from . import batches
from .family import Family, tiny
from .text import MLA, of_table, one

MAMBA = {"mamba_d_state": 4, "mamba_d_conv": 3, "mamba_expand": 2}
MAMBA2 = {**MAMBA, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_chunk_size": 4}
LINEAR = {
    "linear_conv_kernel_dim": 3,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
DEEPSEEK = MLA | {"num_key_value_heads": 2, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}
EXPERTS = {
    "MixtralForCausalLM": {},
    "Qwen2MoeForCausalLM": {},
    "Qwen3MoeForCausalLM": {},
    "OlmoeForCausalLM": {},
    "DeepseekV2ForCausalLM": DEEPSEEK | {"num_experts_per_tok": 2, "topk_method": "greedy"},
    "DeepseekV3ForCausalLM": DEEPSEEK,
    "GptOssForCausalLM": {"sliding_window": 4},
    "Llama4ForCausalLM": {"intermediate_size_mlp": 32, "num_experts_per_tok": 1},
    "GraniteMoeForCausalLM": {},
    "GraniteMoeSharedForCausalLM": {"shared_intermediate_size": 16},
    "PhimoeForCausalLM": {},
    "MiniMaxForCausalLM": {"block_size": 4, "layer_types": ["linear_attention", "full_attention"]},
    "MiniMaxM2ForCausalLM": {},
    "Glm4MoeForCausalLM": {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "Ernie4_5_MoeForCausalLM": {"moe_k": 2, "moe_layer_start_index": 1},
    "DbrxForCausalLM": {
        "attn_config": {"kv_n_heads": 1, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "JetMoeForCausalLM": {"kv_channels": 8},
    "HunYuanMoEV1ForCausalLM": {"moe_topk": 2},
    "Dots1ForCausalLM": {"n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "FlexOlmoForCausalLM": {},
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
}
HYBRIDS = {
    "MambaForCausalLM": {"state_size": 4},
    "Mamba2ForCausalLM": {"state_size": 4, "num_heads": 4, "n_groups": 1, "chunk_size": 4},
    "FalconMambaForCausalLM": {"state_size": 4},
    "RecurrentGemmaForCausalLM": {"block_types": ["recurrent", "attention"], "num_hidden_layers": 2, "lru_width": 16},
    "JambaForCausalLM": {
        **MAMBA,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "BambaForCausalLM": {**MAMBA2, "attn_layer_indices": [1]},
    "FalconH1ForCausalLM": {**MAMBA2, "mamba_d_ssm": 32},
    "ZambaForCausalLM": {
        **MAMBA,
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "hybrid", "hybrid"],
        "use_mamba_kernels": False,
        "num_key_value_heads": 2,
    },
    "Zamba2ForCausalLM": {
        **MAMBA,
        "layers_block_type": ["mamba", "hybrid"],
        "use_mamba_kernels": False,
        "n_mamba_heads": 4,
        "mamba_ngroups": 1,
        "chunk_size": 4,
        "num_key_value_heads": 2,
        "adapter_rank": 4,
    },
    "Lfm2ForCausalLM": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "Qwen3NextForCausalLM": LINEAR,
    "Qwen3_5ForCausalLM": LINEAR,
    "Qwen3_5MoeForCausalLM": LINEAR,
    "OlmoHybridForCausalLM": LINEAR,
    "GraniteMoeHybridForCausalLM": {
        **MAMBA2,
        "layer_types": ["mamba", "attention"],
        "shared_intermediate_size": 16,
    },
    "NemotronHForCausalLM": {
        "layers_block_type": ["mamba", "attention", "moe"],
        "ssm_state_size": 4,
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "n_groups": 1,
        "chunk_size": 4,
        "moe_shared_expert_intermediate_size": 16,
        "use_mamba_kernels": False,
    },
    "xLSTMForCausalLM": {"chunk_size": 4, "autocast_kernel_dtype": "float32", "use_cache": False},
}
# Those whose loss has a part of the routing of the whole batch when the config asks for it.
ROUTED = (
    "MixtralForCausalLM",
    "Qwen2MoeForCausalLM",
    "Qwen3MoeForCausalLM",
    "OlmoeForCausalLM",
    "GptOssForCausalLM",
    "GraniteMoeForCausalLM",
    "PhimoeForCausalLM",
    "JambaForCausalLM",
    "Qwen3NextForCausalLM",
    "DbrxForCausalLM",
)


def _quiet(config):
    """The same without the routing's part of the loss, which is none of a row."""
    made = config()
    made.output_router_logits = False
    if isinstance(made, transformers.DbrxConfig):
        made.ffn_config.moe_loss_weight = 0.0
    return made


def families():
    found = of_table("experts", EXPERTS, batches.causal, {}) + of_table("state space", HYBRIDS, batches.causal, {})
    routed = {"output_router_logits": True, "router_aux_loss_coef": 0.02}
    for name in ROUTED:
        changes = {**EXPERTS, **HYBRIDS}[name]
        if name == "DbrxForCausalLM":
            changes = changes | {"ffn_config": changes["ffn_config"] | {"moe_loss_weight": 0.02}}
            config = partial(tiny, "DbrxConfig", output_router_logits=True, **changes)
        else:
            config = partial(tiny, getattr(transformers, name).config_class, **{**changes, **routed})
        quiet = partial(_quiet, config)
        found.append(Family(name, "experts", config, batches.causal, "router", is_tokens=True, quiet=quiet))
    rwkv = {"context_length": 16, "attention_hidden_size": 16}
    found.append(one("RwkvForCausalLM", "state space", batches.causal, in_training=True, **rwkv))
    found += of_table(
        "sequence",
        {"MixtralForSequenceClassification": {}, "JambaForSequenceClassification": HYBRIDS["JambaForCausalLM"]},
        batches.sequence,
        {"num_labels": batches.CLASSES},
    )
    return found
