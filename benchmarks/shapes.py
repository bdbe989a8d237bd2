"""GGUF files of random weights in the shapes of known models, for speed on billions of weights without a download.

    python benchmarks/shapes.py llama-3.2-1b q4_k_m FOLDER

No kernel looks at what a weight is, so a file of random ones is as fast as the model that lent its shape. Which tensor
is of which type is what llama.cpp's `llama-quantize` chooses (`llama_tensor_get_type_impl` in its `llama-quant.cpp`):
the head in Q6_K in the four-bit mixtures, and in Q4_K_M so is half of the values and of the last matrices of an MLP.
Weights have the root mean square 1 / √columns, so that activations and logits stay finite. The tokenizer is a valid
byte-level BPE of as many tokens as the shape has. Every engine that reads GGUF reads the file, and computes the same.

The writer is ours, after the format document of GGUF, version 3, and writes a tensor a piece at a time: 8 billion
weights never stand in memory. The same name and mixture give the same bytes.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Iterator, Mapping
from itertools import chain, islice, product
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ferrum.config import ModelConfig
from ferrum.load.shapes import SHAPES, find_shape
from ferrum.text.token_bytes import BYTE_ALPHABET

MIXTURES = {"f32": "f32", "f16": "f16", "bf16": "bf16", "q8_0": "q8_0", "q4_0": "q4_0", "q4_k_m": "q4_k"}
"""By what the whole is called: the type of most matrices."""
BLOCKS = {
    "q4_0": (32, 18, 0, 4.61),
    "q8_0": (32, 34, 0, 73.9),
    "q4_k": (256, 144, 0, 223.0),
    "q6_k": (256, 210, 208, 1366.0),
}
"""Weights of a block, its bytes, where the scale is, and the root mean square of what it is multiplied with."""
MIDDLE_CODE = 7.5  # of q4_k, whose minimums take it to zero
CODES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "q4_k": 12, "q6_k": 14, "bf16": 30}
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "q4_k_m": 15, "bf16": 32}
ALIGNMENT = 32
PIECE_ROWS = 512

SPECIAL = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    8: "<|start_header_id|>",
    7: "<|end_header_id|>",
    9: "<|eot_id|>",
}
SPECIALS = 256
NORMAL, CONTROL = 1, 3

Shape = tuple[int, ...]


# ---- tensors
def shapes_of(config: ModelConfig) -> dict[str, Shape]:
    """Every tensor in the order of the file: (rows, columns), or (elements,) of a norm."""
    hidden, middle = config.hidden_size, config.intermediate_size
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layer: dict[str, Shape] = {
        "attn_norm": (hidden,), "attn_q": (queries, hidden), "attn_k": (keys, hidden), "attn_v": (keys, hidden),
        "attn_output": (hidden, queries), "ffn_norm": (hidden,), "ffn_gate": (middle, hidden),
        "ffn_up": (middle, hidden), "ffn_down": (hidden, middle),
    }  # fmt: skip
    found: dict[str, Shape] = {"token_embd.weight": (config.vocab_size, hidden)}
    for number in range(config.layers):
        found |= {f"blk.{number}.{name}.weight": shape for name, shape in layer.items()}
    found["output_norm.weight"] = (hidden,)
    return found if config.tie_embeddings else found | {"output.weight": (config.vocab_size, hidden)}


def kind_of(name: str, shape: Shape, mixture: str, config: ModelConfig) -> str:
    """The type of a tensor in a mixture. Raises ValueError where rows do not divide into its blocks."""
    if len(shape) == 1:
        return "f32"
    found = _wanted_kind(name, mixture, config)
    if found == "q6_k" and shape[1] % BLOCKS[found][0]:
        found = "q8_0"  # as llama.cpp falls back
    if found in BLOCKS and shape[1] % BLOCKS[found][0]:
        raise ValueError(f"{name} has {shape[1]} columns, which is no multiple of the {BLOCKS[found][0]} of {found}")
    return found


def _wanted_kind(name: str, mixture: str, config: ModelConfig) -> str:
    usual = MIXTURES[mixture]
    if name == ("token_embd.weight" if config.tie_embeddings else "output.weight"):
        return "q6_k" if usual in ("q4_0", "q4_k") else usual
    if mixture == "q4_k_m" and name.endswith(("attn_v.weight", "ffn_down.weight")):
        return "q6_k" if _gets_more_bits(int(name.split(".")[1]), config.layers) else usual
    return usual


def _gets_more_bits(layer: int, layers: int) -> bool:
    """The first eighth, the last, and of those between every third."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def bytes_of(kind: str, shape: Shape) -> int:
    elements = int(np.prod(shape))
    if kind in BLOCKS:
        size, width, *_ = BLOCKS[kind]
        return elements // size * width
    return elements * (4 if kind == "f32" else 2)


def random_blocks(kind: str, count: int, random: np.random.Generator, deviation: float) -> np.ndarray:
    """uint8 [blocks, bytes of a block] of so many weights with mean 0. Scales of q4_0 are of either sign, because its
    codes lie half a step below zero on the mean. In q4_k the scales of groups, from 32 to 63, are their minimums too,
    and the block's minimum is the middle code: what quantising numbers around zero comes to."""
    size, width, place, factor = BLOCKS[kind]
    out = random.integers(0, 256, (count // size, width), np.uint8)
    scales = random.uniform(0.75, 1.25, len(out)) * (deviation / factor)
    if kind == "q4_0":
        scales *= random.choice([-1.0, 1.0], len(out))
    out[:, place : place + 2] = scales.astype("<f2").view(np.uint8).reshape(-1, 2)
    if kind == "q4_k":
        out[:, 2:4] = (MIDDLE_CODE * scales).astype("<f2").view(np.uint8).reshape(-1, 2)
        out[:, 4:8] |= 0xA0  # the highest bits of the scales of groups 0 to 3, and of groups 4 to 7
        out[:, 8:12] = out[:, 4:8]  # likewise of minimums
        out[:, 12:16] = 0x11 * (out[:, 12:16] & 0x0F)  # the low bits of groups 4 to 7: scales below, minimums above
    return out


def random_rows(kind: str, rows: int, columns: int, random: np.random.Generator) -> bytes:
    size = columns**-0.5
    if kind in BLOCKS:
        return random_blocks(kind, rows * columns, random, size).tobytes()
    values = random.standard_normal((rows, columns), np.float32) * np.float32(size)
    if kind == "bf16":
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()  # cut off: random numbers need no rounding
    return values.astype("<f2" if kind == "f16" else "<f4").tobytes()


def contents(kind: str, shape: Shape, random: np.random.Generator) -> Iterator[bytes]:
    """A tensor's bytes, in pieces; norms are ones."""
    if len(shape) == 1:
        yield np.ones(shape, "<f4").tobytes()
        return
    rows, columns = shape
    for start in range(0, rows, PIECE_ROWS):
        yield random_rows(kind, min(PIECE_ROWS, rows - start), columns, random)


# ---- tokenizer
def vocabulary(size: int) -> tuple[list[str], list[str]]:
    """Tokens and merges: single bytes, then pairs of them, then pairs and one more, then special tokens."""
    letters = list(BYTE_ALPHABET)
    pairs = list(product(letters, letters))
    longer = ((first + second, third) for (first, second), third in product(pairs, letters))
    parts = list(islice(chain(pairs, longer), size - SPECIALS - len(letters)))
    special = [SPECIAL.get(number, f"<|reserved_special_token_{number}|>") for number in range(SPECIALS)]
    return [*letters, *map("".join, parts), *special], [f"{left} {right}" for left, right in parts]


def metadata(config: ModelConfig, name: str, mixture: str) -> dict[str, Any]:
    tokens, merges = vocabulary(config.vocab_size)
    assert config.rope is not None
    text = config.vocab_size - SPECIALS
    return {
        "general.architecture": "llama",
        "general.name": f"{name} of random weights",
        "general.file_type": FILE_TYPES[mixture],
        "general.quantization_version": 2,
        "llama.block_count": config.layers,
        "llama.context_length": config.max_positions,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.heads,
        "llama.attention.head_count_kv": config.kv_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.attention.layer_norm_rms_epsilon": config.norm_epsilon,
        "llama.rope.freq_base": config.rope.theta,
        "llama.rope.dimension_count": config.rope.rotary_dim,
        "llama.vocab_size": config.vocab_size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [NORMAL] * text + [CONTROL] * SPECIALS,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": text,
        "tokenizer.ggml.eos_token_id": text + 9,
    }


# ---- file
def write_shape(name: str, mixture: str, path: Path) -> None:
    """Raises InvalidParameter for an unknown shape."""
    config = find_shape(name)
    shapes = shapes_of(config)
    kinds = {tensor: kind_of(tensor, shape, mixture, config) for tensor, shape in shapes.items()}
    random = np.random.Generator(np.random.SFC64(0))
    with path.open("wb") as file:
        _write_header(file, metadata(config, name, mixture), shapes, kinds)
        _align(file)
        for tensor, shape in shapes.items():
            file.writelines(contents(kinds[tensor], shape, random))
            _align(file)


def _write_header(
    file: BinaryIO, fields: Mapping[str, Any], shapes: Mapping[str, Shape], kinds: Mapping[str, str]
) -> None:
    file.write(b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(fields)))
    for key, value in fields.items():
        file.write(_string(key) + _value(value))
    offset = 0
    for name, shape in shapes.items():
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        file.write(_string(name) + dimensions + struct.pack("<IQ", CODES[kinds[name]], offset))
        offset += -(-bytes_of(kinds[name], shape) // ALIGNMENT) * ALIGNMENT


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    """With its type before it: uint32, float32, string, or an array of strings or of int32."""
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_string, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + np.array(value, "<i4").tobytes()


def _align(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("mixture", choices=MIXTURES)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"{options.shape}-{options.mixture}.gguf"
    write_shape(options.shape, options.mixture, path)
    print(path)


if __name__ == "__main__":
    main()
