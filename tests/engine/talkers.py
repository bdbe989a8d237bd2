"""Model files with chosen answers: one-hot embeddings, layers that add nothing, and a head that gives each token the
token that follows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.load.gguf_writer import Stored, gguf_bytes
from tests.load.tokenizer_changes import Files, write
from tests.text.gguf_changes import Pairs

NAMES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
SIZES = {"context_length": 128, "feed_forward_length": 8, "block_count": 1, "attention.head_count": 2}


def weights(size: int, follows: Mapping[int, int]) -> dict[str, np.ndarray]:
    """The weights, by their names in safetensors. A token that is not in `follows` is followed by token 0."""
    hidden = -(-size // 8) * 8
    embedding, head = np.zeros((size, hidden), np.float32), np.zeros((size, hidden), np.float32)
    embedding[range(size), range(size)] = 1
    for token in range(size):
        head[follows.get(token, 0), token] = 1
    layer = {f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
    layer |= {"mlp.gate_proj": (8, hidden), "mlp.up_proj": (8, hidden), "mlp.down_proj": (hidden, 8)}
    made = {f"model.layers.0.{name}.weight": np.zeros(shape, np.float32) for name, shape in layer.items()}
    norms = ("model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm")
    made |= {f"{name}.weight": np.ones(hidden, np.float32) for name in norms}
    return made | {"model.embed_tokens.weight": embedding, "lm_head.weight": head}


def talking_folder(place: Path, files: Files, follows: Mapping[int, int], size: int, **config: Any) -> Path:
    """Writes a model folder with these files of a tokenizer. `config`: more keys of config.json."""
    place.mkdir()
    hidden = -(-size // 8) * 8
    values = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": size, "hidden_size": hidden,
              "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
              "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    save_file(weights(size, follows), place / "model.safetensors")
    return write(place, {**files, "config.json": json.dumps(values | config)})


def talking_gguf(place: Path, pairs: Pairs, follows: Mapping[int, int]) -> Path:
    """Writes a GGUF file with these pairs of metadata, which contain the vocabulary."""
    size = len(dict(pairs)["tokenizer.ggml.tokens"])
    arrays = weights(size, follows)
    metadata = {f"llama.{key}": value for key, value in SIZES.items()}
    metadata |= {"llama.embedding_length": -(-size // 8) * 8, "llama.attention.layer_norm_rms_epsilon": 1e-5}
    tensors = {_gguf_name(name): Stored.float32(array) for name, array in arrays.items()}
    place.write_bytes(gguf_bytes([*pairs, *metadata.items()], tensors))
    return place


def _gguf_name(name: str) -> str:
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    name = name.removesuffix(".weight")
    part = name.rpartition(".")[2]
    layer = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    layer |= {f"{letter}_proj": new for letter, new in NAMES.items()}
    return f"{whole[name]}.weight" if name in whole else f"blk.0.{layer.get(part, 'ffn_' + part[:-5])}.weight"
