"""Unusual values of keys in a model's configuration: the cases of the goldens and of the tests.

`tests/goldens/make_config_goldens.py`, which gets the numbers of other engines, imports this module too, so it imports
no ferrum.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB, POSITIONS = 32, 48, 2, 4, 2, 8, 32, 64
TOKENS = [(7 * i * i + 3 * i + 5) % VOCAB for i in range(40)]
SHOWN = [3, 21, 39]
"""Positions whose logits are compared."""

ABSENT = "absent"
ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "beta_fast": 8.0,
        "beta_slow": 0.5,
        "attention_factor": 1.25,
        "truncate": True,
    },
    "yarn-mscale": {"rope_type": "yarn", "factor": 4.0, "mscale": 2.0, "mscale_all_dim": 1.0},
}

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": HEAD_DIM,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": POSITIONS,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "pad_token_id": 0,
    "pretraining_tp": 1,
    "rms_norm_eps": 0.00001,
    "rope_scaling": None,
    "rope_theta": 100.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.57.0",
    "use_cache": True,
    "vocab_size": VOCAB,
}
MISTRAL = {
    **{key: value for key, value in LLAMA.items() if key not in ("attention_bias", "mlp_bias", "pretraining_tp")},
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "sliding_window": 9,
}
NEW = {
    **{key: value for key, value in LLAMA.items() if key not in ("rope_scaling", "rope_theta", "torch_dtype")},
    "dtype": "float32",
    "rope_parameters": {"rope_theta": 100.0, **ROPES["llama3"]},
    "transformers_version": "5.24.0",
}

MORE: dict[str, list[Any]] = {
    "layer_types": [["full_attention"] * 2, ["sliding_attention"] * 2, ["full_attention", "sliding_attention"], []],
    "use_sliding_window": [True, False],
    "sliding_window": [9, 4096],
    "partial_rotary_factor": [1.0, 1, 0.5],
    "original_max_position_embeddings": [16, 16.0, POSITIONS],
    "rope_parameters": [{}, {"rope_theta": 100.0}, {"rope_type": "default", "rope_theta": 300.0}],
    "num_local_experts": [0, 8],
    "num_experts": [0, 8],
    "attn_logit_softcapping": [30.0],
    "final_logit_softcapping": [30.0],
    "query_pre_attn_scalar": [8],
    "attention_multiplier": [0.5],
    "embedding_multiplier": [2.0],
    "logits_scaling": [2.0],
    "residual_multiplier": [0.5],
    "is_decoder": [True],
    "is_encoder_decoder": [False, True],
    "add_cross_attention": [False, True],
    "cross_attention_hidden_size": [8],
    "chunk_size_feed_forward": [0, 4],
    "pruned_heads": [{}, {"0": [0]}],
    "output_hidden_states": [False, True],
    "output_attentions": [False, True],
    "return_dict": [True],
    "problem_type": ["regression"],
    "id2label": [{"0": "A"}],
    "per_layer_config": [{}, {"0": {"intermediate_size": 24}}],
    "auto_map": [{"AutoConfig": "configuration.Config"}],
    "torchscript": [False, True],
    "temperature": [0.5],
    "tokenizer_class": ["LlamaTokenizer"],
    "use_bfloat16": [False],
    "tie_encoder_decoder": [False],
    "unheard_of": [1, "x", None],
}
"""Keys that ordinary files lack, with values to try."""


def other_values(value: Any) -> Iterator[tuple[str, Any]]:
    """Unusual values in place of a value, by name: missing, null, another numeric type, text, a list, doubled."""
    yield "missing", ABSENT
    yield "null", None
    yield "text", str(value)
    yield "list", [value]
    yield "object", {"value": value}
    if isinstance(value, bool):
        yield "the other", not value
        yield "int", int(value)
        yield "float", float(value)
    elif isinstance(value, int):
        yield "float", float(value)
        yield "half", value + 0.5
        yield "doubled", 2 * value
        yield "flag", True
        yield "negative", -value
        yield "nought", 0
    elif isinstance(value, float):
        yield "int", max(1, int(value))
        yield "doubled", 2 * value
        yield "flag", True
        yield "negative", -value
        yield "nought", 0.0
        yield "infinite", float("inf")
    elif isinstance(value, (str, list)):
        yield "doubled", value + value
        yield "int", 1
        yield "float", 1.5
        yield "flag", True
    elif value is None:
        yield "int", 1


def changed(keys: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The keys with another value of one key, or without it."""
    return {name: v for name, v in {**keys, key: value}.items() if not (name == key and v is ABSENT)}


def twice(keys: dict[str, Any], key: str, first: Any) -> str:
    """JSON in which a key comes twice, `first` before the value that it has."""
    return "{" + json.dumps({key: first})[1:-1] + ", " + json.dumps(keys)[1:]


def dialects(name: str, rope: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A configuration in the older dialect of rotary parameters, and in the newer."""
    yield f"rope_scaling {name}", {**LLAMA, "rope_scaling": rope}
    yield f"rope_parameters {name}", {**NEW, "rope_parameters": {"rope_theta": 100.0, **rope}}


def rope_changes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Unusual rotary parameters, one at a time, in both dialects."""
    for kind, rope in ROPES.items():
        for dialect, base in dialects(kind, rope):
            yield dialect, base
            place = dialect.split()[0]
            for key, value in base[place].items():
                for way, other in other_values(value):
                    yield f"{dialect}: {key} {way}", {**base, place: changed(base[place], key, other)}
            old = {("type" if key == "rope_type" else key): value for key, value in base[place].items()}
            yield f"{dialect}: type", {**base, place: old}
            yield f"{dialect}: type and rope_type", {**base, place: {**base[place], "type": "linear"}}
            yield f"{dialect}: null beside type", {**base, place: {**old, "rope_type": None}}
            yield f"{dialect}: unknown", {**base, place: {**base[place], "unheard_of": 2.0}}
            for whole in (1.0, 1, 0.5, None):
                yield f"{dialect}: partial {whole}", {**base, place: {**base[place], "partial_rotary_factor": whole}}
                yield f"{dialect}: partial {whole} outside", {**base, "partial_rotary_factor": whole}
            for theta in (300.0, 300, None, "300"):
                yield f"{dialect}: rope_theta {theta!r} outside", {**base, "rope_theta": theta}
            for length in (24, 24.0, None, "24", POSITIONS):
                yield f"{dialect}: positions {length!r} outside", {**base, "original_max_position_embeddings": length}
    yield from _two_places()
    for kind in ("dynamic", "longrope", "su", "ntk", "proportional", "axial", "mrope", ""):
        for dialect, base in dialects(kind, {"rope_type": kind, "factor": 2.0}):
            yield f"{dialect!s}", base
    for nested in ({"full_attention": {"rope_type": "default", "rope_theta": 50.0}}, {"sliding_attention": None}):
        yield f"per kind of layer {nested}", {**NEW, "rope_parameters": nested}
        yield (
            f"per kind of layer {nested}, named",
            {
                **NEW,
                "rope_parameters": nested,
                "layer_types": ["full_attention"] * LAYERS,
            },
        )


def _two_places() -> Iterator[tuple[str, dict[str, Any]]]:
    for first in ("default", "linear", "yarn"):
        for second in ("default", "linear", "llama3"):
            yield (
                f"rope_parameters {first} beside rope_scaling {second}",
                {
                    **NEW,
                    "rope_parameters": {"rope_theta": 100.0, **ROPES[first]},
                    "rope_scaling": ROPES[second],
                },
            )
    for odd in ({}, None, [], "linear", 1, False):
        yield f"rope_parameters beside rope_scaling {odd!r}", {**NEW, "rope_scaling": odd}
        yield (
            f"rope_scaling beside rope_parameters {odd!r}",
            {
                **LLAMA,
                "rope_scaling": ROPES["linear"],
                "rope_parameters": odd,
            },
        )


def top_changes() -> Iterator[tuple[str, str]]:
    """The texts of config.json with one unusual key."""
    for name, base in (("llama", LLAMA), ("mistral", MISTRAL), ("new", NEW)):
        yield name, json.dumps(base)
        for key, value in base.items():
            if name == "llama" or key not in LLAMA or LLAMA[key] != value:
                for way, other in other_values(value):
                    yield f"{name}: {key} {way}", json.dumps(changed(base, key, other))
                    if other is not ABSENT:
                        yield f"{name}: {key} twice, first {way}", twice(base, key, other)
        for key, values in MORE.items():
            if key not in base:
                for value in values:
                    yield f"{name}: {key} = {json.dumps(value)}", json.dumps({**base, key: value})


def all_changes() -> dict[str, str]:
    """The text of config.json for each case, by its name."""
    return {**dict(top_changes()), **{name: json.dumps(keys) for name, keys in rope_changes()}}


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors of both families, by the names of Hugging Face. Small enough that rounding does not grow, large enough
    that rotation shows."""
    rng = np.random.default_rng(seed)
    query, key = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCAB, HIDDEN),
    }
    for layer in range(LAYERS):
        for name, shape in {
            "self_attn.q_proj": (query, HIDDEN),
            "self_attn.k_proj": (key, HIDDEN),
            "self_attn.v_proj": (key, HIDDEN),
            "self_attn.o_proj": (HIDDEN, query),
            "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
            "mlp.up_proj": (INTERMEDIATE, HIDDEN),
            "mlp.down_proj": (HIDDEN, INTERMEDIATE),
            "input_layernorm": (HIDDEN,),
            "post_attention_layernorm": (HIDDEN,),
        }.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return {
        name: (1 if len(shape) == 1 else 0.25) * rng.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }
