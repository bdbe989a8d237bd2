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
    Model("gemma2-wide", "gemma2", {**WIDE, **RMS, **TIED, "head_dim": 32, "query_pre_attn_scalar": 20,
          "sliding_window": 9, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 1.0,
          "num_hidden_layers": 3}, "bfloat16", drop=("layer_types",), old_dialect=True),
    Model("gemma2-odd", "gemma2", {**ODD, **TIED, "head_dim": 20, "query_pre_attn_scalar": 30, "sliding_window": 5,
          "layer_types": ["full_attention", "sliding_attention"]}),
    Model("gemma3-wide", "gemma3_text", {**WIDE, **RMS, **TIED, "head_dim": 32, "query_pre_attn_scalar": 20,
          "sliding_window": 9, "num_hidden_layers": 4, "sliding_window_pattern": 3,
          "rope_parameters": {"full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 8.0},
                              "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}}, "bfloat16"),
    Model("gemma3-odd", "gemma3_text", {**ODD, **TIED, "head_dim": 20, "query_pre_attn_scalar": 20,
          "sliding_window": 6, "num_hidden_layers": 3, "sliding_window_pattern": 2}),
    Model("phi3-wide", "phi3", {**WIDE, **UNTIED, **longrope(8, 16), "max_position_embeddings": 64,
          "original_max_position_embeddings": 16}, "bfloat16", old_dialect=True),
    Model("phi3-odd", "phi3", {**ODD, **RMS, **UNTIED, "sliding_window": 9}),
    Model("gpt2-wide", "gpt2", {**IDS, "vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
          "float16"),
    Model("gpt2-odd", "gpt2", {**IDS, "vocab_size": 97, "n_embd": 40, "n_layer": 2, "n_head": 2, "n_positions": 56,
          "n_inner": 72, "layer_norm_epsilon": 1e-3}, strip="transformer."),
    Model("mixtral-wide", "mixtral", {**WIDE, **UNTIED, "num_local_experts": 4, "num_experts_per_tok": 2}, "bfloat16"),
    Model("mixtral-odd", "mixtral", {**ODD, **RMS, **TIED, "num_local_experts": 5, "num_experts_per_tok": 3,
          "sliding_window": 7}),
    Model("olmo2-wide", "olmo2", {**WIDE, **UNTIED, **rope()}, "bfloat16"),
    Model("olmo2-odd", "olmo2", {**ODD, **RMS, **UNTIED, "attention_bias": True}, old_dialect=True),
    Model("granite-wide", "granite", {**WIDE, **TIED, "embedding_multiplier": 2.5, "logits_scaling": 0.7,
          "residual_multiplier": 0.6, "attention_multiplier": 0.4}, "bfloat16"),
    Model("granite-odd", "granite", {**ODD, **RMS, **UNTIED, "embedding_multiplier": 3.0, "logits_scaling": 0.5,
          "residual_multiplier": 0.7, "attention_multiplier": 0.2, "attention_bias": True, "mlp_bias": True}),
)  # fmt: skip

MODELS: tuple[Model, ...] = (*FIRST,)
