"""Weights from their raw bytes, one block at a time.

Owns: the byte layout of every kind of weight as the GGUF format document (ggml) gives it, read with `struct`.
Refuses to know: `ferrum.tensor`. Specs: OPS-17. Next: `ferrum.conformance.tolerances`.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.conformance.oracles import Array

BLOCK_BYTES = {"q8_0": 34, "q4_0": 18, "q4_1": 20}
"""Bytes that hold 32 neighbouring weights of a row."""


def _nibbles(packed: tuple[int, ...]) -> list[int]:
    """16 bytes -> 32 codes: low nibbles are the first 16 weights, high nibbles the last 16."""
    return [byte & 15 for byte in packed] + [byte >> 4 for byte in packed]


def _block(kind: str, raw: bytes) -> tuple[list[float], list[float]]:
    """One block -> its 32 weights, and the size of the terms a kernel may add up for each."""
    if kind == "q8_0":
        scale, *codes = struct.unpack("<e32b", raw)
        return [scale * code for code in codes], [abs(scale * code) for code in codes]
    if kind == "q4_0":
        scale, *packed = struct.unpack("<e16B", raw)
        nibbles = _nibbles(tuple(packed))
        return [scale * (code - 8) for code in nibbles], [abs(scale) * (code + 8) for code in nibbles]
    scale, minimum, *packed = struct.unpack("<ee16B", raw)
    nibbles = _nibbles(tuple(packed))
    return [scale * code + minimum for code in nibbles], [abs(scale) * code + abs(minimum) for code in nibbles]


def dequantize(kind: str, data: NDArray[Any]) -> tuple[Array, Array]:
    """Host data of a weight -> its values [rows, columns] and the sizes of the terms behind them."""
    if kind == "dense":
        values = _from_bits(data)
        return values, np.abs(values)
    width = BLOCK_BYTES[kind]
    rows, row_sizes = [], []
    for row in data:
        raw = row.tobytes()
        blocks = [_block(kind, raw[start : start + width]) for start in range(0, len(raw), width)]
        rows.append([weight for block, _ in blocks for weight in block])
        row_sizes.append([size for _, block in blocks for size in block])
    return np.asarray(rows, np.float64), np.asarray(row_sizes, np.float64)


def _from_bits(data: NDArray[Any]) -> Array:
    """float32, float16 or bfloat16 -> float64; a bfloat16 is the upper half of a float32."""
    if data.dtype.name == "bfloat16":
        upper = np.ascontiguousarray(data).view(np.uint16).astype(np.uint32) << np.uint32(16)
        return upper.view(np.float32).astype(np.float64)
    return data.astype(np.float64)
