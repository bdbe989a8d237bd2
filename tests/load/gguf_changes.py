"""Unusual values of keys in GGUF metadata: the cases of the goldens and of the tests.

`tests/goldens/make_gguf_config_goldens.py` imports this module too, so it imports no ferrum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.load.config_changes import HEAD_DIM, HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, LAYERS, POSITIONS, VOCAB, weights
from tests.load.gguf_writer import Stored, Value, gguf_bytes

BASE: dict[str, Any] = {
    "general.architecture": "llama",
    "general.type": "model",
    "general.name": "odd",
    "general.file_type": 0,
    "general.quantization_version": 2,
    "general.alignment": 32,
    "llama.context_length": POSITIONS,
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": INTERMEDIATE,
    "llama.block_count": LAYERS,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.key_length": HEAD_DIM,
    "llama.attention.value_length": HEAD_DIM,
    "llama.attention.layer_norm_rms_epsilon": 0.00001,
    "llama.rope.freq_base": 100.0,
    "llama.rope.dimension_count": HEAD_DIM,
    "llama.vocab_size": VOCAB,
    "tokenizer.ggml.model": "no_vocab",
}
LINEAR = {**BASE, "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
OLD = {**BASE, "llama.rope.scale_linear": 4.0}
YARN = {
    **BASE,
    "llama.rope.scaling.type": "yarn",
    "llama.rope.scaling.factor": 4.0,
    "llama.rope.scaling.original_context_length": 16,
    "llama.rope.scaling.finetuned": True,
}
FACTORS = "rope_freqs.weight"

MORE: dict[str, list[Any]] = {
    "llama.attention.causal": [True, False],
    "llama.attention.clamp_kqv": [0.0, 8.0],
    "llama.attention.max_alibi_bias": [0.0, 8.0],
    "llama.attention.scale": [0.0, 0.5],
    "llama.attn_logit_softcapping": [0.0, 30.0],
    "llama.final_logit_softcapping": [0.0, 30.0],
    "llama.embedding_length_out": [HIDDEN, 64],
    "llama.embedding_scale": [0.0, 1.0, 2.0],
    "llama.expert_count": [0, 8],
    "llama.expert_used_count": [0, 2],
    "llama.expert_feed_forward_length": [16],
    "llama.expert_weights_scale": [0.0, 2.0],
    "llama.logit_scale": [0.0, 1.0, 2.0],
    "llama.residual_scale": [0.0, 1.0, 0.5],
    "llama.nextn_predict_layers": [0, 1],
    "llama.pooling_type": [0, 1],
    "llama.rope.scaling.alpha": [0.0, 1000.0],
    "llama.rope.scaling.attn_factor": [1.0, 1.5],
    "llama.rope.scaling.yarn_attn_factor": [1.0, 2.0],
    "llama.rope.scaling.yarn_ext_factor": [1.0, 0.5],
    "llama.rope.scaling.yarn_log_multiplier": [0.0, 0.1],
    "llama.rope.scaling.yarn_beta_fast": [32.0],
    "llama.rope.scaling.yarn_beta_slow": [1.0],
    "llama.use_parallel_residual": [False, True],
    "llama.tensor_data_layout": ["Meta AI original pth"],
    "llama.unheard_of": [3, "x"],
    "general.sampling.temp": [0.5],
    "general.unheard_of": ["x"],
    "somebody.else": [1],
    "split.count": [0, 1],
    "split.no": [0],
}


def other_values(value: Any) -> Iterator[tuple[str, Any]]:
    """Unusual values in place of a value, by name; None for a key that is left out."""
    yield "missing", None
    yield "text", str(value)
    if isinstance(value, bool):
        yield "the other", not value
        yield "int", int(value)
    elif isinstance(value, int):
        yield "float", float(value)
        yield "half", value + 0.5
        yield "doubled", 2 * value
        yield "flag", True
        yield "nought", 0
        yield "signed", Value("int32", value)
        yield "negative", Value("int32", -value)
        yield "wide", Value("uint64", value)
        yield "largest", 0xFFFFFFFF
        yield "list", Value("array", [value] * LAYERS, "uint32")
        yield "short list", Value("array", [value], "uint32")
        yield "mixed list", Value("array", [value, 2 * value], "uint32")
    elif isinstance(value, float):
        yield "int", max(1, int(value))
        yield "double", Value("float64", value)
        yield "doubled", 2 * value
        yield "flag", True
        yield "negative", -value
        yield "nought", 0.0
        yield "infinite", float("inf")
        yield "list", Value("array", [value] * LAYERS, "float32")
    else:
        yield "int", 1
        yield "float", 1.5
        yield "doubled", 2 * value
        yield "list", Value("array", [value], "string")


def all_changes() -> dict[str, bytes]:
    """The file of each case, by its name."""
    files: dict[str, bytes] = {}
    bases = {"plain": BASE, "linear": LINEAR, "old": OLD, "yarn": YARN}
    for name, base in bases.items():
        files[name] = _file(base)
        for key, value in base.items():
            if name == "plain" or key not in BASE:
                for way, other in other_values(value):
                    if way != "text" or not isinstance(value, str):
                        files[f"{name}: {key} {way}"] = _file(_changed(base, key, other))
                files[f"{name}: {key} twice"] = _file([*base.items(), (key, value)])
        for key, values in MORE.items():
            for value in values:
                files[f"{name}: {key} = {value!r}"] = _file({**base, key: value})
    for kind in ("none", "longrope", "su", "", "Linear"):
        files[f"scaling {kind!r}"] = _file({**LINEAR, "llama.rope.scaling.type": kind})
    files["factor without a type"] = _file({**BASE, "llama.rope.scaling.factor": 4.0})
    files["both factors"] = _file({**OLD, "llama.rope.scaling.factor": 2.0})
    divisors = np.linspace(1, 4, HEAD_DIM // 2).astype(np.float32)
    for name, base in bases.items():
        files[f"{name} with divisors"] = _file(base, {FACTORS: Stored.float32(divisors)})
    return files


def _changed(base: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {name: v for name, v in {**base, key: value}.items() if v is not None}


def _tensors() -> dict[str, Stored]:
    from tests.load.tiny_models import gguf_name, interleave

    heads = {"q_proj": HEADS, "k_proj": KV_HEADS}
    stored = {}
    for name, array in weights().items():
        part = name.split(".")[-2]
        stored[gguf_name(name)] = Stored.float32(interleave(array, heads[part]) if part in heads else array)
    return stored


def _file(metadata: Any, more: dict[str, Stored] | None = None) -> bytes:
    return gguf_bytes(metadata, {**(more or {}), **_tensors()})
