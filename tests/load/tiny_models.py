"""Tiny random models, stored the way Hugging Face and GGUF store them: the same numbers, two layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ferrum.config import ModelConfig, RopeConfig
from tests.load.gguf_writer import Stored, gguf_bytes

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 64, 96, 2, 4, 2, 16, 40

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 50000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.context_length": 512,
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": INTERMEDIATE,
    "llama.block_count": LAYERS,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.key_length": HEAD_DIM,
    "llama.attention.value_length": HEAD_DIM,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 50000.0,
    "llama.rope.dimension_count": HEAD_DIM,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}

PLAIN = ModelConfig(
    architecture="llama",
    vocab_size=40,
    hidden_size=64,
    intermediate_size=96,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    max_positions=512,
    norm_epsilon=1e-5,
    rope=RopeConfig(50000.0, 16),
    eos_token_ids=(2,),
    bos_token_id=1,
)
"""What both say."""

ABSENT = "absent"
"""The value of a key to be left out."""

GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def changed(base: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """The keys of `base`, some replaced, added or left out."""
    return {key: value for key, value in {**base, **keys}.items() if value is not ABSENT}


def tensors(seed: int = 0, tied: bool = False, bias: bool = False) -> dict[str, np.ndarray]:
    """Hugging Face names -> float32 arrays."""
    rng = np.random.default_rng(seed)
    query, key = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,)}
    if not tied:
        shapes["lm_head.weight"] = (VOCAB, HIDDEN)
    for layer in range(LAYERS):
        for name, shape in {
            "self_attn.q_proj": (query, HIDDEN),
            "self_attn.k_proj": (key, HIDDEN),
            "self_attn.v_proj": (key, HIDDEN),
            "self_attn.o_proj": (HIDDEN, query),
            "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
            "mlp.up_proj": (INTERMEDIATE, HIDDEN),
            "mlp.down_proj": (HIDDEN, INTERMEDIATE),
        }.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
            if bias and name.startswith("self_attn"):
                shapes[f"model.layers.{layer}.{name}.bias"] = shape[:1]
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{name}.weight"] = (HIDDEN,)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def gguf_name(name: str) -> str:
    fixed = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, _, kind = name.rpartition(".")
    if stem in fixed:
        return f"{fixed[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest]}.{kind}"


def interleave(array: np.ndarray, heads: int) -> np.ndarray:
    """What the converter to GGUF does to q and k: rows (head, half, i) move to (head, i, half)."""
    split = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return split.swapaxes(1, 2).reshape(array.shape)


def gguf_tensors(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays with GGUF's names and GGUF's order of rows."""
    heads = {"q_proj": HEADS, "k_proj": KV_HEADS}
    stored = {}
    for name, array in arrays.items():
        part = name.split(".")[-2]
        stored[gguf_name(name)] = interleave(array, heads[part]) if part in heads else array
    return stored


def write_folder(folder: Path, arrays: dict[str, np.ndarray] | None = None, **config: Any) -> Path:
    """A Hugging Face directory; `config` changes keys of config.json, None becoming null."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file(tensors() if arrays is None else arrays, folder / "model.safetensors")
    return folder


def write_gguf(path: Path, arrays: dict[str, np.ndarray] | None = None, **metadata: Any) -> Path:
    """A GGUF file of float32 tensors; `metadata` changes keys, with __ for a dot."""
    changed = {**METADATA, **{key.replace("__", "."): value for key, value in metadata.items()}}
    stored = gguf_tensors(tensors() if arrays is None else arrays)
    path.write_bytes(gguf_bytes(changed, {name: Stored.float32(array) for name, array in stored.items()}))
    return path
