"""How the classes of transformers name and lay out their tensors.

Owns: one `Layout` for each way: the Llama family's, and the others by their differences from it. Refuses to know: what
is computed (`ferrum.load.families`).
Specs: LOAD-30, LOAD-92. Source: transformers' modeling files. Next: `ferrum.load.family`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ferrum.load.layout import ALTERNATING, GROUPED, Layout

_DERIVED = {
    **dict.fromkeys(("rotary_emb.inv_freq", "rotary_emb.original_inv_freq", "inv_freq", "rope.freqs"), 1),
    **dict.fromkeys(("rotary_emb.cos_cached", "rotary_emb.sin_cached", "rotary_emb.cos_sin_cache", "freqs_cis"), 2),
    # a real bias has one dimension
    **dict.fromkeys(("attn.bias", "self_attn.bias", "attention.bias", "attn.mask", "causal_mask"), 2),
    **dict.fromkeys(("attn.masked_bias", "self_attn.masked_bias", "attention.masked_bias", "masked_bias"), 0),
    "position_ids": 1,
}  # fmt: skip


def _layout(prefix: str, layers: str, embedding: str, norm: str, head: str, parts: Mapping[str, str]) -> Layout:
    """parts: names of tensors after the name of the layer."""
    layer = {part: f"{prefix}{layers}.{{layer}}.{name}" for part, name in parts.items()}
    return Layout(f"{prefix}{embedding}", f"{prefix}{norm}", head, layer, derived=_DERIVED, prefix=prefix)


def _variant(layout: Layout, without: str = "", **parts: str) -> Layout:
    """The layout with other names for some parts, in this order, and without some parts."""
    place = next(iter(layout.layer.values())).partition("{layer}")[0]
    names = {part: f"{place}{{layer}}.{name}" for part, name in parts.items()}
    remaining = {part: name for part, name in layout.layer.items() if part not in (*without.split(), *names)}
    return replace(layout, layer={**remaining, **names})


LLAMA = _layout(
    "model.",
    "layers",
    "embed_tokens",
    "norm",
    "lm_head",
    {
        "attention_norm": "input_layernorm",
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "output": "self_attn.o_proj",
        "mlp_norm": "post_attention_layernorm",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    },
)
HEAD_NORMS = {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}
QWEN3 = _variant(LLAMA, **HEAD_NORMS)
PHI3 = _variant(
    LLAMA,
    **dict.fromkeys(("query", "key", "value"), "self_attn.qkv_proj"),
    **dict.fromkeys(("gate", "up"), "mlp.gate_up_proj"),
)
PHI = replace(
    _variant(
        LLAMA,
        without="gate",
        output="self_attn.dense",
        mlp_norm="input_layernorm",
        up="mlp.fc1",
        down="mlp.fc2",
    ),
    norm="model.final_layernorm",
)
GEMMA = replace(LLAMA, norm_offset=1.0)
GEMMA2 = _variant(
    GEMMA,
    attention_after="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_after="post_feedforward_layernorm",
)
GEMMA3 = _variant(GEMMA2, **HEAD_NORMS)
OLMO2 = _variant(
    LLAMA,
    without="attention_norm mlp_norm",
    attention_after="post_attention_layernorm",
    mlp_after="post_feedforward_layernorm",
    **HEAD_NORMS,
)
STARCODER2 = _variant(LLAMA, without="gate", up="mlp.c_fc", down="mlp.c_proj")
INTERLEAVED = frozenset({"query", "key"})
COHERE = replace(_variant(LLAMA, mlp_norm="input_layernorm", **HEAD_NORMS), interleaved=INTERLEAVED)
ERNIE4_5 = replace(LLAMA, interleaved=INTERLEAVED)
STABLELM = _variant(
    LLAMA, query_norm="self_attn.q_layernorm.norms.{head}", key_norm="self_attn.k_layernorm.norms.{head}"
)
STABLELM_PARALLEL = _variant(STABLELM, mlp_norm="input_layernorm")
GLM = replace(_variant(LLAMA, **dict.fromkeys(("gate", "up"), "mlp.gate_up_proj")), interleaved=INTERLEAVED)
GLM4 = _variant(GLM, attention_after="post_self_attn_layernorm", mlp_after="post_mlp_layernorm")
GPT2 = replace(
    _layout(
        "transformer.",
        "h",
        "wte",
        "ln_f",
        "lm_head",
        {
            "attention_norm": "ln_1",
            **dict.fromkeys(("query", "key", "value"), "attn.c_attn"),
            "output": "attn.c_proj",
            "mlp_norm": "ln_2",
            "up": "mlp.c_fc",
            "down": "mlp.c_proj",
        },
    ),
    positions="transformer.wpe",
    transposed=True,
)
_GROUPED = dict.fromkeys(("query", "key", "value"), GROUPED)
GPT_NEOX = replace(
    _layout(
        "gpt_neox.",
        "layers",
        "embed_in",
        "final_layer_norm",
        "embed_out",
        {
            "attention_norm": "input_layernorm",
            **dict.fromkeys(("query", "key", "value"), "attention.query_key_value"),
            "output": "attention.dense",
            "mlp_norm": "post_attention_layernorm",
            "up": "mlp.dense_h_to_4h",
            "down": "mlp.dense_4h_to_h",
        },
    ),
    joined=_GROUPED,
)
FALCON = replace(
    _layout(
        "transformer.",
        "h",
        "word_embeddings",
        "ln_f",
        "lm_head",
        {
            "attention_norm": "input_layernorm",
            **dict.fromkeys(("query", "key", "value"), "self_attention.query_key_value"),
            "output": "self_attention.dense",
            "mlp_norm": "input_layernorm",
            "up": "mlp.dense_h_to_4h",
            "down": "mlp.dense_4h_to_h",
        },
    ),
    joined=_GROUPED,
)
FALCON_TWO_NORMS = _variant(FALCON, attention_norm="ln_attn", mlp_norm="ln_mlp")

# ---- encoders
_MODULES_ABOVE = (
    *("pooler.dense", "cls.predictions.transform.dense", "cls.predictions.decoder", "cls.seq_relationship"),
    *("lm_head.dense", "lm_head.decoder"),
)
_ABOVE_AN_ENCODER = {
    **{f"{module}.weight": 2 for module in _MODULES_ABOVE},
    **{f"{module}.bias": 1 for module in _MODULES_ABOVE},
    **dict.fromkeys(("cls.predictions.transform.LayerNorm.weight", "cls.predictions.transform.LayerNorm.bias"), 1),
    **dict.fromkeys(("lm_head.layer_norm.weight", "lm_head.layer_norm.bias"), 1),
    **dict.fromkeys(("cls.predictions.bias", "lm_head.bias"), 1),
}
"""Tensors for training above an encoder. They have no part in the vectors of a text's tokens."""


def _encoder(prefix: str, first_position: int = 0) -> Layout:
    places = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "output": "attention.output.dense",
        "attention_closing": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "mlp_closing": "output.LayerNorm",
    }
    return Layout(
        f"{prefix}embeddings.word_embeddings",
        "",
        "",
        {part: f"{prefix}encoder.layer.{{layer}}.{name}" for part, name in places.items()},
        positions=f"{prefix}embeddings.position_embeddings",
        first_position=first_position,
        token_types=f"{prefix}embeddings.token_type_embeddings",
        embedding_norm=f"{prefix}embeddings.LayerNorm",
        derived={**_DERIVED, **_ABOVE_AN_ENCODER},
        prefix=prefix,
    )


BERT, ROBERTA = _encoder("bert."), _encoder("roberta.", first_position=2)

# ---- experts
_PARTS = ("gate", "up", "down")
_FUSED = {
    **dict.fromkeys(("expert_gate", "expert_up"), "model.layers.{layer}.mlp.experts.gate_up_proj"),
    "expert_down": "model.layers.{layer}.mlp.experts.down_proj",
    "router": "model.layers.{layer}.mlp.gate",
}
"""Names if all experts of a layer are one tensor, as in the modules of transformers 5."""


def _mlx(block: str) -> dict[str, str]:
    """Names if each of the three matrices of experts is one tensor for all experts, as mlx-lm writes them."""
    return {f"expert_{part}": f"model.layers.{{layer}}.{block}.switch_mlp.{part}_proj" for part in _PARTS}


MIXTRAL = replace(
    _variant(
        LLAMA,
        without="gate up down",
        router="block_sparse_moe.gate",
        expert_gate="block_sparse_moe.experts.{expert}.w1",
        expert_up="block_sparse_moe.experts.{expert}.w3",
        expert_down="block_sparse_moe.experts.{expert}.w2",
    ),
    alternatives=(_FUSED, _mlx("block_sparse_moe")),
)
_QWEN_EXPERTS = {
    "router": "mlp.gate",
    **{f"expert_{part}": f"mlp.experts.{{expert}}.{part}_proj" for part in _PARTS},
}
_QWEN_ALTERNATIVES = (_FUSED, _mlx("mlp"))
QWEN2_MOE = _variant(
    replace(LLAMA, alternatives=_QWEN_ALTERNATIVES),
    **_QWEN_EXPERTS,
    **{f"shared_{part}": f"mlp.shared_expert.{part}_proj" for part in _PARTS},
    shared_weight="mlp.shared_expert_gate",
)
QWEN3_MOE = _variant(replace(QWEN3, alternatives=_QWEN_ALTERNATIVES), **_QWEN_EXPERTS)
OLMOE = _variant(QWEN3_MOE, without="gate up down")
GRANITE_MOE = _variant(
    replace(LLAMA, alternatives=(_mlx("block_sparse_moe"),)),
    without="gate up down",
    router="block_sparse_moe.router.layer",
    **dict.fromkeys(("expert_gate", "expert_up"), "block_sparse_moe.input_linear"),
    expert_down="block_sparse_moe.output_linear",
    **dict.fromkeys(("shared_gate", "shared_up"), "shared_mlp.input_linear"),
    shared_down="shared_mlp.output_linear",
)
GPT_OSS = replace(
    _variant(
        LLAMA,
        without="gate up down",
        sinks="self_attn.sinks",
        router="mlp.router",
        **dict.fromkeys(("expert_gate", "expert_up"), "mlp.experts.gate_up_proj"),
        expert_down="mlp.experts.down_proj",
    ),
    joined=dict.fromkeys(("expert_gate", "expert_up"), ALTERNATING),
    transposed_experts=True,
)
