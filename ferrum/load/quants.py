"""What the bytes of a stored tensor mean: every block format decoded, in NumPy, to be read.

Owns: `decode_blocks` for each ggml type, and which weight type a GGUF tensor becomes. Formats that backends compute
with stay as they are in the mapped file; Q5_0 becomes Q8_0 without loss; Q5_1 is decoded to float32.
Refuses to know: where tensors belong in a model, and how to encode (`ferrum.load.conversion`).
Specs: QUANT-01 to QUANT-05. Source: ggml's block structures and `dequantize_row_*` reference functions.
Next: `ferrum.load.conversion`.

The decoders take uint8 [blocks, bytes of a block] and return float32 [blocks, weights of a block]. The arithmetic is
ggml's, operation by operation, so that results agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import Unsupported
from ferrum.load.ggml import GgmlType
from ferrum.load.gguf import GGUFTensor
from ferrum.tensor.k_quants import Q4_K, Q5_K, Q6_K
from ferrum.tensor.weights import Q4_0, Q4_1, Q8_0, Dense, Weight

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

CHUNK_BYTES = 1 << 22
"""Blocks are decoded so many bytes at a time: intermediate arrays are several times larger than their input."""


def weight_of(tensor: GGUFTensor) -> Weight:
    """A matrix [rows, columns] as a weight; a view of the file where a backend computes with its type.

    Raises `Unsupported` for a type that has no decoder here.
    """
    if tensor.type.name in _AS_STORED:
        return _AS_STORED[tensor.type.name](tensor.data)
    if tensor.type.name == "Q5_0":
        return _q5_0_to_q8_0(tensor.data)
    return Dense(floats_of(tensor))


def floats_of(tensor: GGUFTensor) -> Floats:
    """A tensor of any type and shape as float32 [*shape]. Raises `Unsupported` for a type that has no decoder here."""
    kind = tensor.type
    if kind.name in ("F32", "F16", "BF16"):
        return tensor.data.astype(np.float32, copy=False)
    if kind.name not in DECODERS:
        raise Unsupported(f"tensor {tensor.name} is stored as {kind.name}; supported are {', '.join(SUPPORTED)}")
    return decode_blocks(tensor.data, kind).reshape(tensor.shape)


def decode_blocks(data: Bytes, kind: GgmlType) -> Floats:
    """uint8 [rows, bytes of a row] -> float32 [rows, columns]"""
    blocks = np.ascontiguousarray(data).reshape(-1, kind.block_bytes)
    decoded = np.empty((len(blocks), kind.block_size), np.float32)
    step = max(1, CHUNK_BYTES // kind.block_bytes)
    with np.errstate(invalid="ignore", over="ignore"):  # an infinite scale times a code of zero is NaN, as in ggml
        for start in range(0, len(blocks), step):
            decoded[start : start + step] = DECODERS[kind.name](blocks[start : start + step])
    return decoded.reshape(len(data), -1)


def _fields(blocks: Bytes, *sizes: int) -> list[Bytes]:
    """Cuts every block into fields of so many bytes: uint8 [blocks, size] each."""
    return np.split(blocks, np.cumsum(sizes)[:-1], axis=1)


def _half(field: Bytes) -> Floats:
    """Two bytes, a float16 -> float32 [blocks, 1]"""
    return np.ascontiguousarray(field).view(np.dtype("<f2")).astype(np.float32)


def _nibbles(field: Bytes, run: int) -> Bytes:
    """Every run of so many bytes holds twice as many four-bit codes, first all low nibbles, then all high ones.
    uint8 [blocks, n] -> uint8 [blocks, 2 n]"""
    runs = field.reshape(len(field), -1, 1, run)
    return np.concatenate((runs & 15, runs >> 4), axis=2).reshape(len(field), -1)


def _fifth_bits(field: Bytes) -> Bytes:
    """Bit i is the fifth bit of code i. uint8 [blocks, 4] -> uint8 [blocks, 32], 0 or 16"""
    return np.unpackbits(field, axis=1, bitorder="little") << np.uint8(4)


def _decode_q4_0(blocks: Bytes) -> Floats:
    scale, codes = _fields(blocks, 2, 16)
    return _half(scale) * (_nibbles(codes, 16).astype(np.float32) - 8)


def _decode_q4_1(blocks: Bytes) -> Floats:
    scale, minimum, codes = _fields(blocks, 2, 2, 16)
    return _half(scale) * _nibbles(codes, 16).astype(np.float32) + _half(minimum)


def _decode_q5_0(blocks: Bytes) -> Floats:
    scale, high, codes = _fields(blocks, 2, 4, 16)
    return _half(scale) * ((_nibbles(codes, 16) | _fifth_bits(high)).astype(np.float32) - 16)


def _decode_q5_1(blocks: Bytes) -> Floats:
    scale, minimum, high, codes = _fields(blocks, 2, 2, 4, 16)
    return _half(scale) * (_nibbles(codes, 16) | _fifth_bits(high)).astype(np.float32) + _half(minimum)


def _decode_q8_0(blocks: Bytes) -> Floats:
    scale, codes = _fields(blocks, 2, 32)
    return _half(scale) * codes.view(np.int8).astype(np.float32)


def _k_scales(field: Bytes) -> tuple[Floats, Floats]:
    """The 8 scales and 8 minimums of a K block, 6 bits each in 12 bytes -> float32 [blocks, 8] twice.

    Bytes 0-3 hold scales 0-3 and bytes 4-7 minimums 0-3 in their low 6 bits; bytes 8-11 hold the low 4 bits of
    scales 4-7 (low nibble) and of minimums 4-7 (high nibble), whose 2 high bits are the top bits of bytes 0-7.
    """
    scales, minimums, rest = _fields(field, 4, 4, 4)
    all_scales = np.concatenate((scales & 63, rest & 15 | scales >> 6 << 4), axis=1)
    all_minimums = np.concatenate((minimums & 63, rest >> 4 | minimums >> 6 << 4), axis=1)
    return all_scales.astype(np.float32), all_minimums.astype(np.float32)


def _k_affine(scale: Bytes, minimum: Bytes, packed: Bytes, codes: Bytes) -> Floats:
    """Codes [blocks, 256] in 8 groups of 32: weight = (scale * group scale) * code - (minimum * group minimum)."""
    scales, minimums = _k_scales(packed)
    steps, offsets = _half(scale) * scales, _half(minimum) * minimums  # [blocks, 8]
    groups = codes.reshape(len(codes), 8, 32).astype(np.float32)
    return (steps[:, :, None] * groups - offsets[:, :, None]).reshape(len(codes), 256)


def _decode_q4_k(blocks: Bytes) -> Floats:
    scale, minimum, packed, codes = _fields(blocks, 2, 2, 12, 128)
    return _k_affine(scale, minimum, packed, _nibbles(codes, 32))


def _decode_q5_k(blocks: Bytes) -> Floats:
    scale, minimum, packed, high, codes = _fields(blocks, 2, 2, 12, 32, 128)
    # bit g of byte i is the fifth bit of code i of group g
    fifth = np.unpackbits(high[:, None, :], axis=1, bitorder="little") << np.uint8(4)  # [blocks, 8, 32]
    return _k_affine(scale, minimum, packed, _nibbles(codes, 32) | fifth.reshape(len(blocks), 256))


def _decode_q6_k(blocks: Bytes) -> Floats:
    low, high, scales, scale = _fields(blocks, 128, 64, 16, 2)
    # each half of 128 weights has 32 bytes of high bits: bits 2g and 2g + 1 of byte i belong to code i of its group g
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    top = (high.reshape(len(blocks), 2, 1, 32) >> shifts & 3) << 4  # [blocks, 2, 4, 32]
    codes = (_nibbles(low, 64) | top.reshape(len(blocks), 256)).astype(np.float32) - 32
    steps = _half(scale) * scales.view(np.int8).astype(np.float32)  # [blocks, 16], one for every 16 weights
    return (steps[:, :, None] * codes.reshape(len(blocks), 16, 16)).reshape(len(blocks), 256)


def _q5_0_to_q8_0(data: Bytes) -> Q8_0:
    """The same scale and the same numbers: code - 16 fits into eight bits with room to spare."""
    blocks = data.reshape(-1, 22)
    scale, high, codes = _fields(blocks, 2, 4, 16)
    centred = (_nibbles(codes, 16) | _fifth_bits(high)).astype(np.int8) - np.int8(16)
    return Q8_0(np.concatenate((scale, centred.view(np.uint8)), axis=1).reshape(len(data), -1))


_AS_STORED: dict[str, type[Weight]] = {
    "F32": Dense,
    "F16": Dense,
    "BF16": Dense,
    "Q8_0": Q8_0,
    "Q4_0": Q4_0,
    "Q4_1": Q4_1,
    "Q4_K": Q4_K,
    "Q5_K": Q5_K,
    "Q6_K": Q6_K,
}

DECODERS: dict[str, Callable[[Bytes], Floats]] = {
    "Q4_0": _decode_q4_0,
    "Q4_1": _decode_q4_1,
    "Q5_0": _decode_q5_0,
    "Q5_1": _decode_q5_1,
    "Q8_0": _decode_q8_0,
    "Q4_K": _decode_q4_k,
    "Q5_K": _decode_q5_k,
    "Q6_K": _decode_q6_k,
}
"""By ggml type name."""

SUPPORTED = ("F32", "F16", "BF16", *DECODERS)
