"""Weights from their raw bytes, one block at a time.

Owns: the byte layout of every kind of weight as the GGUF format document (ggml) defines it, read with `struct`. Refuses
to know: `ferrum.tensor`.
Specs: OPS-17. Next: `ferrum.conformance.tolerances`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.conformance.oracles import Array

Decoded = tuple[list[float], list[float]]
"""The weights of a block, and for each weight the size of the terms that a kernel may add."""


@dataclass(frozen=True)
class Block:
    """`size` neighbouring weights of a row in `width` bytes."""

    size: int
    width: int
    decode: Callable[[bytes], Decoded]


def _nibbles(packed: tuple[int, ...]) -> list[int]:
    """16 bytes -> 32 codes: the low nibbles are the first 16 weights, the high nibbles the last 16."""
    return [byte & 15 for byte in packed] + [byte >> 4 for byte in packed]


def _q8_0(raw: bytes) -> Decoded:
    scale, *codes = struct.unpack("<e32b", raw)
    return [scale * code for code in codes], [abs(scale * code) for code in codes]


def _q4_0(raw: bytes) -> Decoded:
    scale, *packed = struct.unpack("<e16B", raw)
    nibbles = _nibbles(tuple(packed))
    return [scale * (code - 8) for code in nibbles], [abs(scale) * (code + 8) for code in nibbles]


def _q4_1(raw: bytes) -> Decoded:
    scale, minimum, *packed = struct.unpack("<ee16B", raw)
    nibbles = _nibbles(tuple(packed))
    return [scale * code + minimum for code in nibbles], [abs(scale) * code + abs(minimum) for code in nibbles]


def _six_bits(packed: bytes, group: int) -> tuple[int, int]:
    """12 bytes -> scale and minimum of one of 8 groups: ggml's get_scale_min_k4."""
    if group < 4:
        return packed[group] % 64, packed[group + 4] % 64
    shared = packed[group + 4]
    return shared % 16 + packed[group - 4] // 64 * 16, shared // 16 + packed[group] // 64 * 16


def _four_bits(codes: bytes, i: int) -> int:
    """128 bytes -> code i of 256: 64 weights share 32 bytes, the first 32 of them the low nibbles."""
    byte = codes[i // 64 * 32 + i % 32]
    return byte // 16 if i % 64 >= 32 else byte % 16


def _k_affine(scale: float, minimum: float, packed: bytes, codes: list[int]) -> Decoded:
    values, sizes = [], []
    for i, code in enumerate(codes):
        group_scale, group_minimum = _six_bits(packed, i // 32)
        step, offset = scale * group_scale * code, minimum * group_minimum
        values.append(step - offset)
        sizes.append(abs(step) + abs(offset))
    return values, sizes


def _q4_k(raw: bytes) -> Decoded:
    scale, minimum, packed, codes = struct.unpack("<ee12s128s", raw)
    return _k_affine(scale, minimum, packed, [_four_bits(codes, i) for i in range(256)])


def _q5_k(raw: bytes) -> Decoded:
    scale, minimum, packed, high, codes = struct.unpack("<ee12s32s128s", raw)
    fifth = [high[i % 32] // 2 ** (i // 32) % 2 for i in range(256)]
    return _k_affine(scale, minimum, packed, [_four_bits(codes, i) + 16 * fifth[i] for i in range(256)])


def _q6_k(raw: bytes) -> Decoded:
    """128 weights share 64 bytes of low nibbles and 32 bytes of high bit pairs: ggml's dequantize_row_q6_K."""
    low, high, *scales, scale = struct.unpack("<128s64s16be", raw)
    values, sizes = [], []
    for i in range(256):
        half, quarter, place = i // 128, i % 128 // 32, i % 32
        byte = low[64 * half + 32 * (quarter % 2) + place]
        code = (byte % 16 if quarter < 2 else byte // 16) + high[32 * half + place] // 4**quarter % 4 * 16
        step = scale * scales[i // 16]
        values.append(step * (code - 32))
        sizes.append(abs(step) * (code + 32))
    return values, sizes


BLOCKS = {
    "q8_0": Block(32, 34, _q8_0),
    "q4_0": Block(32, 18, _q4_0),
    "q4_1": Block(32, 20, _q4_1),
    "q4_k": Block(256, 144, _q4_k),
    "q5_k": Block(256, 176, _q5_k),
    "q6_k": Block(256, 210, _q6_k),
}


def dequantize(kind: str, data: NDArray[Any]) -> tuple[Array, Array]:
    """Host data of a weight -> its values [rows, columns], and the sizes of the terms behind them."""
    if kind == "dense":
        values = _from_bits(data)
        return values, np.abs(values)
    block = BLOCKS[kind]
    rows, row_sizes = [], []
    for row in data:
        raw = row.tobytes()
        decoded = [block.decode(raw[start : start + block.width]) for start in range(0, len(raw), block.width)]
        rows.append([weight for values, _ in decoded for weight in values])
        row_sizes.append([size for _, sizes in decoded for size in sizes])
    return np.asarray(rows, np.float64), np.asarray(row_sizes, np.float64)


def _from_bits(data: NDArray[Any]) -> Array:
    """float32, float16 or bfloat16 -> float64; a bfloat16 is the upper half of a float32."""
    if data.dtype.name == "bfloat16":
        upper = np.ascontiguousarray(data).view(np.uint16).astype(np.uint32) << np.uint32(16)
        return upper.view(np.float32).astype(np.float64)
    return data.astype(np.float64)
