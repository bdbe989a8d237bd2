"""Keys and values in q8_0, by NumPy: the stored codes, the numbers read back, the layout of a layer.

Owns: the oracle of the rounding and of the layout. Refuses to know: `ferrum.tensor`, backends.
Specs: OPS-90. Next: `ferrum.conformance.paged`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[Any]]


def quantized(x: Numbers) -> tuple[Numbers, Numbers]:
    """[..., n] -> int8 codes [..., n], float16 scales [..., n / 32]"""
    groups = np.asarray(x, np.float32).reshape(*x.shape[:-1], x.shape[-1] // 32, 32)
    with np.errstate(all="ignore"):
        scales = np.abs(groups).max(-1) / np.float32(127)
        scales = np.where(scales > 65504, np.nan, scales).astype(np.float16)
        steps = groups / scales[..., None].astype(np.float32)
    steps = np.where(scales[..., None] > 0, np.clip(steps, -127, 127), 0)
    return np.rint(steps).astype(np.int8).reshape(x.shape), scales


def dequantized(codes: Numbers, scales: Numbers) -> Numbers:
    """int8 [..., n], float16 [..., n / 32] -> float32 [..., n]"""
    numbers: Numbers = codes * np.repeat(scales.astype(np.float32), 32, -1)
    return numbers


def rounded(x: Numbers) -> Numbers:
    """[..., n] -> float32 [..., n]: the numbers as they are read back."""
    return dequantized(*quantized(x))


def stored(keys: Numbers, values: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """[blocks, kv_heads, head_dim, block_size] and [blocks, kv_heads, block_size, head_dim] -> the four arrays of a
    layer: codes of keys, codes of values, scales of keys, scales of values."""
    key_codes, key_scales = quantized(np.swapaxes(keys, 2, 3))
    value_codes, value_scales = quantized(values)
    interleaved = key_codes.reshape(*key_codes.shape[:3], -1, 4).transpose(0, 1, 3, 2, 4)
    scales = [np.ascontiguousarray(np.swapaxes(each, 2, 3)) for each in (key_scales, value_scales)]
    return np.ascontiguousarray(interleaved), value_codes, scales[0], scales[1]


def read_back(
    key_codes: Numbers, value_codes: Numbers, key_scales: Numbers, value_scales: Numbers
) -> tuple[Numbers, Numbers]:
    """The inverse of `stored`: the keys and values as they are read back."""
    flat = key_codes.transpose(0, 1, 3, 2, 4).reshape(value_codes.shape)
    keys = dequantized(flat, np.swapaxes(key_scales, 2, 3))
    return np.swapaxes(keys, 2, 3), dequantized(value_codes, np.swapaxes(value_scales, 2, 3))
