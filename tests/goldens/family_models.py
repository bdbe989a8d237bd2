"""The models of tests/goldens/families/: one or two small ones of each family, with every switch used somewhere.

"wide" models have matrices whose columns are multiples of 32, as fast kernels want them; "odd" ones have not.
Windows are shorter than prompts, soft caps near the scores, and epsilons large enough to be seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Fields = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """What `AutoConfig.for_model` is told, and how the model is stored."""

    name: str
    kind: str  # model_type
    config: Fields
    dtype: str = "float32"
    tokens: int = 40
    old_dialect: bool = False
    """config.json as transformers 4 wrote it: rope_theta and rope_scaling, torch_dtype."""
    old_rope_name: str = ""
    """The old name of the kind of RoPE, under the key "type"."""
    drop: tuple[str, ...] = ()
    """Keys that config.json lacks, as real files do: the defaults stand for them."""
    say: Fields = field(default_factory=dict)
    """Keys of older files that are added to config.json."""
    strip: str = ""
    """What the names of tensors begin with, and lack in the file, as real files do."""


IDS: Fields = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WIDE: Fields = {
    **IDS,
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
ODD: Fields = {
    **IDS,
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "max_position_embeddings": 96,
}
TIED: Fields = {"tie_word_embeddings": True}
UNTIED: Fields = {"tie_word_embeddings": False}
RMS: Fields = {"rms_norm_eps": 1e-3}
LAYER: Fields = {"layer_norm_eps": 1e-3}


def rope(kind: str = "default", theta: float = 1000.0, **more: Any) -> Fields:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


LLAMA3: Fields = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
YARN: Fields = {"factor": 4.0, "original_max_position_embeddings": 16}


def factors(count: int, first: float, step: float) -> list[float]:
    return [round(first + step * i, 3) for i in range(count)]


def longrope(pairs: int, original: int, **more: Any) -> Fields:
    """Factors of `pairs` pairs of dimensions; the long ones are for sequences of more than `original` tokens."""
    return rope(
        "longrope", short_factor=factors(pairs, 1.0, 0.05), long_factor=factors(pairs, 1.5, 0.7),
        original_max_position_embeddings=original, **more,
    )  # fmt: skip


FALCON: Fields = {
    **IDS, "vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128, "bias": False, "alibi": False,
}  # fmt: skip
GRANITE: Fields = {
    "embedding_multiplier": 2.0, "logits_scaling": 0.7, "residual_multiplier": 0.6, "attention_multiplier": 0.3,
}  # fmt: skip
GPT_OSS_YARN: Fields = {
    "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
}  # fmt: skip
WHOLE_RAMP = 10764.663
"""With 32 dimensions, YaRN's ramp ends at the fourth of them, rounded to whole dimensions (llama.cpp) or not."""

FIRST = (
    Model("llama-wide", "llama", {**WIDE, **rope(theta=500.0), **UNTIED}, drop=("head_dim", "mlp_bias")),
    Model("llama-odd", "llama", {**ODD, **RMS, **TIED, "attention_bias": True, "mlp_bias": True}, "bfloat16",
          old_dialect=True),
    Model("mistral-wide", "mistral", {**WIDE, "sliding_window": 9, **rope()}, "bfloat16"),
    Model("mistral-odd", "mistral", {**ODD, "sliding_window": None, "head_dim": 20, **TIED}, "float16"),
    Model("qwen2-wide", "qwen2", {**WIDE, **UNTIED}, "bfloat16", old_dialect=True),
    Model("qwen2-odd", "qwen2", {**ODD, **RMS, **TIED, "num_hidden_layers": 3, "use_sliding_window": True,
          "sliding_window": 7, "max_window_layers": 2}, drop=("layer_types",), old_dialect=True),
    Model("qwen2-layer-types", "qwen2", {**WIDE, **TIED, "use_sliding_window": True, "sliding_window": 8,
          "layer_types": ["sliding_attention", "full_attention"]}, "float16"),
    Model("qwen3-wide", "qwen3", {**WIDE, **UNTIED, "head_dim": 32, **rope(theta=10000.0)}, "bfloat16"),
    Model("qwen3-odd", "qwen3", {**ODD, **RMS, **TIED, "head_dim": 20, "attention_bias": True,
          "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}, "float16"),
    Model("gemma2-wide", "gemma2", {**WIDE, **RMS, **TIED, "head_dim": 32, "query_pre_attn_scalar": 32,
          "sliding_window": 9, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 1.0,
          "num_hidden_layers": 3}, "bfloat16", drop=("layer_types",), old_dialect=True),
    Model("gemma2-odd", "gemma2", {**ODD, **TIED, "head_dim": 20, "query_pre_attn_scalar": 30, "sliding_window": 5,
          "layer_types": ["full_attention", "sliding_attention"]}),
    Model("gemma3-wide", "gemma3_text", {**WIDE, **RMS, **TIED, "head_dim": 32, "query_pre_attn_scalar": 32,
          "sliding_window": 9, "num_hidden_layers": 7,
          "rope_parameters": {"full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 8.0},
                              "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}}, "bfloat16"),
    Model("gemma3-odd", "gemma3_text", {**ODD, **TIED, "head_dim": 20, "query_pre_attn_scalar": 30,
          "sliding_window": 6, "num_hidden_layers": 3, "sliding_window_pattern": 2}, old_dialect=True,
          drop=("layer_types",), say={"sliding_window_pattern": 2}),
    Model("phi3-wide", "phi3", {**WIDE, **UNTIED, **longrope(8, 16), "max_position_embeddings": 64,
          "original_max_position_embeddings": 16}, "bfloat16", old_dialect=True),
    Model("phi3-odd", "phi3", {**ODD, **RMS, **UNTIED}),
    Model("gpt2-wide", "gpt2", {**IDS, "n_ctx": 64, "vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4,
          "n_positions": 64}, "float16"),
    Model("gpt2-odd", "gpt2", {**IDS, "n_ctx": 56, "vocab_size": 97, "n_embd": 40, "n_layer": 2, "n_head": 2,
          "n_positions": 56, "n_inner": 72, "layer_norm_epsilon": 1e-3}, strip="transformer."),
    Model("mixtral-wide", "mixtral", {**WIDE, **UNTIED, "num_local_experts": 4, "num_experts_per_tok": 2}, "bfloat16"),
    Model("mixtral-odd", "mixtral", {**ODD, **RMS, **TIED, "num_local_experts": 5, "num_experts_per_tok": 3}),
    Model("mixtral-window", "mixtral", {**WIDE, **UNTIED, "num_local_experts": 4, "num_experts_per_tok": 1,
          "sliding_window": 7}, "float16", old_dialect=True),
    Model("olmo2-wide", "olmo2", {**WIDE, **UNTIED, **rope()}, "bfloat16"),
    Model("olmo2-odd", "olmo2", {**ODD, **RMS, **UNTIED, "attention_bias": True}, old_dialect=True),
    Model("granite-wide", "granite", {**WIDE, **TIED, "embedding_multiplier": 2.5, "logits_scaling": 0.7,
          "residual_multiplier": 0.6, "attention_multiplier": 0.4}, "bfloat16"),
    Model("granite-odd", "granite", {**ODD, **RMS, **UNTIED, "embedding_multiplier": 3.0, "logits_scaling": 0.5,
          "residual_multiplier": 0.7, "attention_multiplier": 0.2, "attention_bias": True, "mlp_bias": True}),
    Model("seed-oss-wide", "seed_oss", {**WIDE, **UNTIED, **rope(), "head_dim": 32}, "bfloat16"),
    Model("seed-oss-odd", "seed_oss", {**ODD, **RMS, **TIED, "head_dim": 20, "attention_bias": False,
          "attention_out_bias": True, "mlp_bias": True}, old_dialect=True),
    Model("ernie4-5-wide", "ernie4_5", {**WIDE, **UNTIED, **rope(), "head_dim": 32}, "bfloat16"),
    Model("ernie4-5-odd", "ernie4_5", {**ODD, **RMS, **TIED, "head_dim": 20, "use_bias": True}, old_dialect=True),
)  # fmt: skip

DENSE = (
    Model("ministral-wide", "ministral", {**WIDE, **UNTIED, **rope(), "sliding_window": 9, "head_dim": 32,
          "layer_types": ["sliding_attention", "full_attention"]}, "bfloat16"),
    Model("ministral-odd", "ministral", {**ODD, **RMS, **TIED, "head_dim": 20, "sliding_window": 6}),
    Model("ministral3-wide", "ministral3", {**WIDE, **UNTIED, "head_dim": 32, **rope("yarn", factor=4.0,
          original_max_position_embeddings=16, max_position_embeddings=64, beta_fast=2.0, beta_slow=0.5, mscale=1.0,
          mscale_all_dim=1.0, llama_4_scaling_beta=0.3)}, "bfloat16"),
    Model("smollm3-wide", "smollm3", {**WIDE, **TIED, "num_hidden_layers": 4}, "bfloat16", old_dialect=True),
    Model("smollm3-odd", "smollm3", {**ODD, **RMS, **UNTIED, "num_hidden_layers": 3, "no_rope_layers": [0, 1, 0],
          "attention_bias": True, "use_sliding_window": True, "sliding_window": 7}, drop=("layer_types",)),
    Model("phi4-mini", "phi3", {**WIDE, **TIED, **longrope(6, 512, partial_rotary_factor=0.75),
          "max_position_embeddings": 2048, "original_max_position_embeddings": 512, "sliding_window": 262144},
          "bfloat16", old_dialect=True),
    Model("phi3-window", "phi3", {**ODD, **RMS, **UNTIED, **longrope(6, 24), "max_position_embeddings": 96,
          "original_max_position_embeddings": 24, "sliding_window": 13, "num_key_value_heads": 4}, "float16",
          old_dialect=True, old_rope_name="longrope"),
    Model("phi-wide", "phi", {**WIDE, **UNTIED, "num_key_value_heads": 4, "intermediate_size": 256},
          "float16", old_dialect=True),
    Model("phi-odd", "phi", {**ODD, **LAYER, **UNTIED, **rope(partial_rotary_factor=0.35)}),
    Model("gemma-wide", "gemma", {**WIDE, **RMS, **TIED, "head_dim": 32, "num_key_value_heads": 1}, "bfloat16",
          old_dialect=True, say={"hidden_act": "gelu"}),
    Model("gemma-odd", "gemma", {**ODD, **TIED, "head_dim": 20, "num_key_value_heads": 4}),
    Model("gpt-neox-wide", "gpt_neox", {**WIDE, **UNTIED, "use_parallel_residual": True},
          "float16", old_dialect=True),
    Model("gpt-neox-odd", "gpt_neox", {**ODD, **LAYER, **UNTIED, "use_parallel_residual": False,
          **rope(theta=10000.0, partial_rotary_factor=1.0)}, old_dialect=True),
    Model("gpt-neox-no-bias", "gpt_neox", {**WIDE, **TIED, "attention_bias": False, "hidden_act": "gelu_new",
          **rope(partial_rotary_factor=0.5)}, "bfloat16"),
    Model("olmo3-wide", "olmo3", {**WIDE, **UNTIED, "num_hidden_layers": 4, "sliding_window": 9, "rope_parameters": {
          "full_attention": {"rope_type": "yarn", "rope_theta": 500.0, **YARN, "attention_factor": 1.1386294361119891},
          "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}}, "bfloat16"),
    Model("olmo3-odd", "olmo3", {**ODD, **RMS, **UNTIED, "sliding_window": 6,
          "layer_types": ["full_attention", "sliding_attention"]}, old_dialect=True),
    Model("starcoder2-wide", "starcoder2", {**WIDE, **TIED, **rope(), "sliding_window": 9}, "bfloat16"),
    Model("starcoder2-full", "starcoder2", {**WIDE, **UNTIED}, "float16"),
    Model("starcoder2-odd", "starcoder2", {**ODD, **UNTIED, "norm_epsilon": 1e-3, "use_bias": False}, "float16",
          old_dialect=True),
    Model("cohere-wide", "cohere", {**WIDE, **TIED, "logit_scale": 0.7, **rope()}, "float16", old_dialect=True),
    Model("cohere-odd", "cohere", {**ODD, **LAYER, **TIED, "logit_scale": 1.2, "use_qk_norm": True,
          "num_key_value_heads": 2}),
    Model("cohere2-wide", "cohere2", {**WIDE, **TIED, "logit_scale": 0.7, "num_hidden_layers": 4,
          "sliding_window": 9, **rope()}, "bfloat16", say={"rotary_pct": 1.0}),
    Model("cohere2-odd", "cohere2", {**ODD, **LAYER, **TIED, "logit_scale": 1.2, "num_hidden_layers": 3,
          "sliding_window": 6, "attention_bias": True, "sliding_window_pattern": 2}, drop=("layer_types",),
          say={"sliding_window_pattern": 2}, old_dialect=True),
    Model("stablelm-wide", "stablelm", {**WIDE, **UNTIED, "use_qkv_bias": True},
          "float16", old_dialect=True),
    Model("stablelm-odd", "stablelm", {**ODD, **LAYER, **TIED, "use_parallel_residual": True, "qk_layernorm": True,
          "num_key_value_heads": 2, **rope(partial_rotary_factor=0.5)}),
    Model("stablelm-qk", "stablelm", {**WIDE, **UNTIED, "hidden_size": 128, "use_parallel_residual": True,
          "qk_layernorm": True, **rope(partial_rotary_factor=0.25)}, "bfloat16"),
    Model("glm-wide", "glm", {**WIDE, **UNTIED, "head_dim": 16, "rms_norm_eps": 1e-5}, "bfloat16"),
    Model("glm-odd", "glm", {**ODD, **RMS, **TIED, "head_dim": 20, "attention_bias": False,
          **rope(partial_rotary_factor=0.8)}, old_dialect=True),
    Model("glm4-wide", "glm4", {**WIDE, **UNTIED, "head_dim": 32, **rope(partial_rotary_factor=0.5)}, "bfloat16"),
    Model("glm4-odd", "glm4", {**ODD, **RMS, **UNTIED, "head_dim": 20, "attention_bias": False,
          **rope(partial_rotary_factor=1.0)}, old_dialect=True),
    Model("falcon-wide", "falcon", {**FALCON, "multi_query": True, "parallel_attn": True}, "bfloat16",
          old_dialect=True, drop=("ffn_hidden_size", "num_kv_heads", "num_ln_in_parallel_attn")),
    Model("falcon-odd", "falcon", {**FALCON, "hidden_size": 40, "vocab_size": 97, "num_attention_heads": 2,
          "layer_norm_epsilon": 1e-3, "multi_query": True, "parallel_attn": True, "ffn_hidden_size": 72,
          **UNTIED, "bias": True}),
    Model("falcon-new", "falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}, "float16"),
    Model("falcon-new-one-norm", "falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2,
          "hidden_size": 48, "num_ln_in_parallel_attn": 1}),
)  # fmt: skip

EXPERTS = (
    Model("qwen2-moe-wide", "qwen2_moe", {**WIDE, **UNTIED, "num_experts": 4, "num_experts_per_tok": 2,
          "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64, "norm_topk_prob": False}, "bfloat16",
          old_dialect=True),
    Model("qwen2-moe-odd", "qwen2_moe", {**ODD, **RMS, **TIED, "num_hidden_layers": 4, "num_experts": 3,
          "num_experts_per_tok": 2, "moe_intermediate_size": 20, "shared_expert_intermediate_size": 28,
          "norm_topk_prob": True, "decoder_sparse_step": 2, "mlp_only_layers": [3]}),
    Model("qwen3-moe-wide", "qwen3_moe", {**WIDE, **UNTIED, "head_dim": 32, "num_experts": 4,
          "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}, "bfloat16"),
    Model("qwen3-moe-odd", "qwen3_moe", {**ODD, **RMS, **TIED, "head_dim": 20, "num_hidden_layers": 3,
          "num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "norm_topk_prob": False,
          "mlp_only_layers": [1], "use_sliding_window": True, "sliding_window": 9}, old_dialect=True),
    Model("olmoe-wide", "olmoe", {**WIDE, **UNTIED, "num_key_value_heads": 4, "intermediate_size": 32, "num_experts": 4,
          "num_experts_per_tok": 2}, "bfloat16"),
    Model("olmoe-odd", "olmoe", {**ODD, **RMS, **UNTIED, "intermediate_size": 20, "num_experts": 5,
          "num_experts_per_tok": 3, "norm_topk_prob": True}),
    Model("granite-moe-wide", "granitemoe", {**WIDE, **TIED, **GRANITE, "intermediate_size": 32,
          "num_local_experts": 4, "num_experts_per_tok": 2}, "bfloat16"),
    Model("granite-moe-odd", "granitemoe", {**ODD, **RMS, **UNTIED, **GRANITE, "intermediate_size": 20,
          "num_local_experts": 5, "num_experts_per_tok": 3}),
    Model("granite-moe-shared", "granitemoeshared", {**WIDE, **UNTIED, **GRANITE, "intermediate_size": 32,
          "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 64}, "float16"),
    Model("gpt-oss-wide", "gpt_oss", {**WIDE, **UNTIED, "head_dim": 32, "intermediate_size": 64,
          "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 9,
          **rope("yarn", WHOLE_RAMP, **GPT_OSS_YARN)}, "bfloat16"),
    Model("gpt-oss-odd", "gpt_oss", {**ODD, **RMS, **UNTIED, "head_dim": 20, "num_local_experts": 5,
          "num_experts_per_tok": 3, "sliding_window": 6, "num_hidden_layers": 3, **rope("yarn", **GPT_OSS_YARN)},
          old_dialect=True, drop=("swiglu_alpha",), say={"experts_per_token": 3, "initial_context_length": 64}),
)  # fmt: skip

ROPES = (
    Model("rope-linear", "llama", {**WIDE, **UNTIED, **rope("linear", factor=4.0)}, "bfloat16", old_dialect=True,
          old_rope_name="linear"),
    Model("rope-dynamic", "llama", {**WIDE, **UNTIED, **rope("dynamic", factor=3.0), "max_position_embeddings": 24}),
    Model("rope-dynamic-old", "qwen2", {**ODD, **TIED, **rope("dynamic", factor=2.0), "max_position_embeddings": 30},
          old_dialect=True, old_rope_name="dynamic"),
    Model("rope-llama3", "llama", {**WIDE, **UNTIED, **rope("llama3", **LLAMA3)}, "bfloat16", tokens=48),
    Model("rope-yarn", "qwen2", {**WIDE, **UNTIED, **rope("yarn", factor=4.0, original_max_position_embeddings=64)},
          "bfloat16", old_dialect=True, old_rope_name="yarn"),
    Model("rope-yarn-exact", "qwen2", {**ODD, **TIED, **rope("yarn", 50.0, **YARN, truncate=False,
          attention_factor=0.8, beta_fast=2.0, beta_slow=0.4)}),
    Model("rope-yarn-mscale", "llama", {**ODD, **UNTIED, **rope("yarn", 30.0, **YARN, mscale=2.0,
          mscale_all_dim=0.7)}, old_dialect=True),
    Model("rope-longrope-long", "llama", {**WIDE, **UNTIED, **longrope(8, 16)}, "float16"),
    Model("rope-longrope-short", "llama", {**ODD, **TIED, **longrope(6, 64)}),
    Model("rope-longrope-factor", "qwen2", {**ODD, **UNTIED, **longrope(6, 20, factor=3.0)}, old_dialect=True),
    Model("rope-longrope-attention", "llama", {**WIDE, **TIED, **longrope(8, 20, attention_factor=1.4)}),
)  # fmt: skip

MODELS: tuple[Model, ...] = (*FIRST, *DENSE, *EXPERTS, *ROPES)
