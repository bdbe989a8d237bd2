"""Weights in another type than they are stored in: the `dtype` option.

Owns: the encoders of Q8_0, Q4_0 and Q4_1 with the rounding of ggml's reference quantisers, and `convert`, from any
weight to any type. Refuses to know: files.
Specs: QUANT-10 to QUANT-16. Source: ggml's `quantize_row_*_ref`.

An encoder takes float32 [groups, 32] and returns uint8 [groups, bytes of a block]. Next: `ferrum.load.source`.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np

from ferrum.errors import InvalidParameter, ModelError
from ferrum.load.ggml import GGML_TYPES
from ferrum.load.quants import decode_blocks
from ferrum.tensor.weights import GROUP, Q4_0, Q4_1, Q8_0, BlockWeight, Dense, Weight

CHUNK_GROUPS = 1 << 16
"""Groups encoded at a time. It bounds the size of intermediate arrays."""

FLOAT_TYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
BLOCK_TYPES: dict[str, type[BlockWeight]] = {kind.kind: kind for kind in (Q8_0, Q4_0, Q4_1)}
DTYPES = ("auto", *FLOAT_TYPES, *BLOCK_TYPES)
"""Values of the `dtype` option. "auto" keeps every weight as it is stored; K-quants allow only this."""

_GGML_BY_NAME = {kind.name: kind for kind in GGML_TYPES.values()}


def check_dtype(dtype: str) -> None:
    """Raises `InvalidParameter` for a value outside `DTYPES`."""
    if dtype not in DTYPES:
        raise InvalidParameter("dtype", f"must be one of {', '.join(DTYPES)}, not {dtype!r}")


def type_name(weight: Weight) -> str:
    """The type of a weight: "float32", "bfloat16", "q4_1", "q4_k", …"""
    return weight.kind if isinstance(weight, BlockWeight) else str(weight.data.dtype)


def bytes_of(kind: str, count: int) -> int:
    """The bytes of `count` weights of this type."""
    if kind in FLOAT_TYPES:
        return count * int(FLOAT_TYPES[kind].itemsize)
    block = _GGML_BY_NAME[kind.upper()]
    return count // block.block_size * block.block_bytes


def convert(weight: Weight, dtype: str, name: str) -> Weight:
    """The weight in type `dtype`; the same object if nothing changes. `name` is for errors.

    A weight whose rows do not divide into groups of 32 cannot be stored in blocks, and stays as it is. Raises
    `InvalidParameter` for an unknown dtype, `ModelError` for a value that the new type cannot hold.
    """
    check_dtype(dtype)
    if dtype in ("auto", type_name(weight)) or (dtype in BLOCK_TYPES and weight.columns % GROUP):
        return weight
    values = to_float32(weight)
    return Dense(_cast(values, dtype, name)) if dtype in FLOAT_TYPES else quantize(values, dtype, name)


def to_float32(weight: Weight) -> np.ndarray:
    """Any weight as float32 [rows, columns]: what `Weight.dequantize` defines, computed by NumPy, without a backend."""
    if isinstance(weight, BlockWeight):
        return decode_blocks(weight.data, _GGML_BY_NAME[weight.kind.upper()])
    return np.asarray(weight.data, np.float32)


def quantize(values: np.ndarray, dtype: str, name: str) -> BlockWeight:
    """float32 [rows, columns], columns a multiple of 32 -> a block weight of type q8_0, q4_0 or q4_1.

    Raises `ModelError` for a value that is not finite or too large for a float16 scale.
    """
    rows, columns = values.shape
    groups = np.ascontiguousarray(values, np.float32).reshape(-1, GROUP)
    encode, limit = _ENCODERS[dtype]
    kind = BLOCK_TYPES[dtype]
    blocks = np.empty((len(groups), kind.block_bytes), np.uint8)
    for start in range(0, len(groups), CHUNK_GROUPS):
        chunk = groups[start : start + CHUNK_GROUPS]
        if not (np.abs(chunk) <= limit).all():  # this comparison is false for NaN, too
            raise ModelError(f"tensor {name} holds a value beyond {limit:g} or not finite, which {dtype} cannot store")
        blocks[start : start + CHUNK_GROUPS] = encode(chunk)
    return kind(blocks.reshape(rows, columns // GROUP * kind.block_bytes))


def _cast(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(FLOAT_TYPES[dtype])
    if not np.isfinite(cast).all():
        raise ModelError(f"tensor {name} holds a value too large for {dtype}, or not finite")
    return cast


def _inverse(step: np.ndarray) -> np.ndarray:
    """1 / step; 0 where the step is 0, or so small that its inverse overflows."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / step
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


def _stored(scale: np.ndarray) -> np.ndarray:
    """float32 [groups, 1] -> its float16, as two bytes"""
    return scale.astype("<f2").view(np.uint8)


def _pack(codes: np.ndarray) -> np.ndarray:
    """Codes 0 to 15, uint8 [groups, 32] -> [groups, 16]: the first 16 codes in low nibbles, the others in high
    nibbles"""
    packed: np.ndarray = codes[:, :16] | codes[:, 16:] << 4
    return packed


def _encode_q8_0(groups: np.ndarray) -> np.ndarray:
    """step = largest magnitude / 127; codes rounded half away from zero, as C's roundf does."""
    step = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127)
    scaled = groups * _inverse(step)
    magnitude = np.abs(scaled)
    whole = np.floor(magnitude)
    rounded = np.copysign(whole + (magnitude - whole >= np.float32(0.5)), scaled)
    return np.concatenate((_stored(step), rounded.astype(np.int8).view(np.uint8)), axis=1)


def _encode_q4_0(groups: np.ndarray) -> np.ndarray:
    """step = the number of largest magnitude / -8, with its sign: that number gets code 0 and is stored exactly."""
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=1, keepdims=True), axis=1)
    step = largest / np.float32(-8)
    codes = np.minimum(groups * _inverse(step) + np.float32(8.5), 15).astype(np.uint8)
    return np.concatenate((_stored(step), _pack(codes)), axis=1)


def _encode_q4_1(groups: np.ndarray) -> np.ndarray:
    """step = (largest - smallest) / 15; a code is the number of steps above the smallest."""
    smallest = groups.min(axis=1, keepdims=True)
    step = (groups.max(axis=1, keepdims=True) - smallest) / np.float32(15)
    codes = np.minimum((groups - smallest) * _inverse(step) + np.float32(0.5), 15).astype(np.uint8)
    return np.concatenate((_stored(step), _stored(smallest), _pack(codes)), axis=1)


_HALF_MAX = 65504.0  # the largest float16
_ENCODERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "q8_0": (_encode_q8_0, _HALF_MAX * 127),
    "q4_0": (_encode_q4_0, _HALF_MAX * 8),
    "q4_1": (_encode_q4_1, _HALF_MAX),
}
"""The encoder of each dtype, and the largest magnitude whose scale fits into float16."""
