"""What the bytes of a stored tensor mean: every block format of ggml decoded, in NumPy, to be read.

Owns: the reader of each format, and which weight type a GGUF tensor becomes. Formats that backends compute with stay as
they are in the mapped file. Others are converted to the smallest of those types that holds the same numbers, or to
float32 if none does. Refuses to know: where tensors belong in a model, and how to encode (`ferrum.load.conversion`).
Specs: QUANT-01 to QUANT-09. Source: ggml's block structures and `dequantize_row_*` reference functions.

A reader takes uint8 [blocks, bytes of a block] and returns numbers as `Scaled`, one row for each block.
Next: `ferrum.load.codebooks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ferrum.errors import ModelError, Unsupported
from ferrum.load.bits import E2M1, bit_pairs, bits, fields, half, nibbles, powers_of_two, unsigned_e4m3
from ferrum.load.codebooks import CODEBOOK_READERS
from ferrum.load.ggml import GgmlType
from ferrum.load.gguf import GGUFTensor
from ferrum.load.scaled import Bytes, Floats, Scaled, keep
from ferrum.tensor.k_quants import Q4_K, Q5_K, Q6_K
from ferrum.tensor.weights import Q4_0, Q4_1, Q8_0, Dense, Weight

CHUNK_BYTES = 1 << 20
"""Bytes of blocks that are decoded at a time: intermediate arrays are many times larger than their input."""


def weight_of(tensor: GGUFTensor) -> Weight:
    """A tensor as one matrix of all its rows [rows, columns]; a view of the file if backends compute with its type.

    Raises `Unsupported` for a type that has no reader here.
    """
    name = tensor.type.name
    if name in _AS_STORED:
        data = tensor.data
        return _AS_STORED[name](data if data.ndim < 3 else data.reshape(-1, data.shape[-1]))
    if name not in READERS:
        return Dense(floats_of(tensor))
    columns = tensor.shape[-1]
    return keep(lambda: _pieces(tensor.data, tensor.type), (len(tensor.data), columns), _KEPT.get(name, ()))


def kept_as(name: str) -> str | None:
    """The type into which matrices of a ggml type are converted; None if they are not converted, or unknown. This holds
    as a rule: a matrix whose scales exceed the range of that type becomes float32."""
    return None if name in _AS_STORED or name not in SUPPORTED else _KEPT.get(name, ("float32",))[0]


def floats_of(tensor: GGUFTensor) -> Floats:
    """A tensor of any type and shape as float32 [*shape]. Raises `Unsupported` for a type that has no reader here, and
    `ModelError` for a number that float32 cannot hold."""
    kind = tensor.type
    if kind.name in _FLOATS:
        return tensor.data.astype(np.float32, copy=False)
    if kind.name == "F64":
        return rounded(tensor.data, f"tensor {tensor.name}")
    if kind.name not in READERS:
        raise Unsupported(f"tensor {tensor.name} is stored as {kind.name}; supported are {', '.join(SUPPORTED)}")
    return decode_blocks(tensor.data, kind).reshape(tensor.shape)


def rounded(array: np.ndarray, subject: str) -> Floats:
    """float64 as float32, copied. Raises `ModelError` if a number is too large."""
    with np.errstate(over="ignore"):
        numbers: Floats = array.astype(np.float32)
    if not np.array_equal(np.isfinite(array), np.isfinite(numbers)):
        raise ModelError(f"{subject} holds numbers that float32 cannot store")
    return numbers


def decode_blocks(data: Bytes, kind: GgmlType) -> Floats:
    """uint8 [rows, bytes of a row] -> float32 [rows, columns]"""
    decoded = np.empty((data.size // kind.block_bytes, kind.block_size), np.float32)
    start = 0
    with np.errstate(invalid="ignore", over="ignore"):  # infinity times a code of zero is NaN, as in ggml
        for piece in _pieces(data, kind):
            decoded[start : start + len(piece.codes)] = piece.values()
            start += len(piece.codes)
    return decoded.reshape(len(data), -1)


def _pieces(data: Bytes, kind: GgmlType) -> Iterator[Scaled]:
    """The numbers of the blocks, `CHUNK_BYTES` of blocks at a time."""
    blocks = np.ascontiguousarray(data).reshape(-1, kind.block_bytes)
    step = max(1, CHUNK_BYTES // kind.block_bytes)
    return (READERS[kind.name](blocks[start : start + step]) for start in range(0, len(blocks), step))


def _q4_0(blocks: Bytes) -> Scaled:
    scale, codes = fields(blocks, 2, 16)
    return Scaled(half(scale), nibbles(codes, 16).view(np.int8) - 8)


def _q4_1(blocks: Bytes) -> Scaled:
    scale, minimum, codes = fields(blocks, 2, 2, 16)
    return Scaled(half(scale), nibbles(codes, 16), offsets=-half(minimum))


def _q5_0(blocks: Bytes) -> Scaled:
    scale, high, codes = fields(blocks, 2, 4, 16)
    return Scaled(half(scale), (nibbles(codes, 16) | bits(high) << 4).view(np.int8) - 16)


def _q5_1(blocks: Bytes) -> Scaled:
    scale, minimum, high, codes = fields(blocks, 2, 2, 4, 16)
    return Scaled(half(scale), nibbles(codes, 16) | bits(high) << 4, offsets=-half(minimum))


def _q8_0(blocks: Bytes) -> Scaled:
    scale, codes = fields(blocks, 2, 32)
    return Scaled(half(scale), codes.view(np.int8))


def _q1_0(blocks: Bytes) -> Scaled:
    scale, signs = fields(blocks, 2, 16)
    return Scaled(half(scale), 2 * bits(signs).view(np.int8) - 1)


def _k_scales(field: Bytes) -> tuple[Floats, Floats]:
    """The 8 scales and 8 minimums of a K block, 6 bits each in 12 bytes -> float32 [blocks, 8] twice.

    Bytes 0-3 hold scales 0-3, and bytes 4-7 minimums 0-3, in their low 6 bits. Bytes 8-11 hold the low 4 bits of scales
    4-7 (low nibble) and of minimums 4-7 (high nibble); the 2 high bits of those are the top bits of bytes 0-7.
    """
    scales, minimums, rest = fields(field, 4, 4, 4)
    all_scales = np.concatenate((scales & 63, rest & 15 | scales >> 6 << 4), axis=1)
    all_minimums = np.concatenate((minimums & 63, rest >> 4 | minimums >> 6 << 4), axis=1)
    return all_scales.astype(np.float32), all_minimums.astype(np.float32)


def _q2_k(blocks: Bytes) -> Scaled:
    packed, codes, scale, minimum = fields(blocks, 16, 64, 2, 2)
    multiples, offsets = (packed & 15).astype(np.float32), half(minimum) * (packed >> 4).astype(np.float32)
    return Scaled(half(scale), bit_pairs(codes, 32), multiples, offsets)


def _q3_k(blocks: Bytes) -> Scaled:
    high, low, packed, scale = fields(blocks, 32, 64, 12, 2)
    codes = (bit_pairs(low, 32) | bits(high, 32) << 2).view(np.int8) - 4
    low_scales, high_scales = fields(packed, 8, 4)
    multiples = (nibbles(low_scales, 8) | bit_pairs(high_scales, 4) << 4).astype(np.float32) - 32
    return Scaled(half(scale), codes, multiples)


def _q4_k(blocks: Bytes) -> Scaled:
    scale, minimum, packed, codes = fields(blocks, 2, 2, 12, 128)
    multiples, minimums = _k_scales(packed)
    return Scaled(half(scale), nibbles(codes, 32), multiples, half(minimum) * minimums)


def _q5_k(blocks: Bytes) -> Scaled:
    scale, minimum, packed, high, codes = fields(blocks, 2, 2, 12, 32, 128)
    multiples, minimums = _k_scales(packed)
    return Scaled(half(scale), nibbles(codes, 32) | bits(high, 32) << 4, multiples, half(minimum) * minimums)


def _q6_k(blocks: Bytes) -> Scaled:
    low, high, scales, scale = fields(blocks, 128, 64, 16, 2)
    codes = (nibbles(low, 64) | bit_pairs(high, 32) << 4).view(np.int8) - 32
    return Scaled(half(scale), codes, scales.view(np.int8).astype(np.float32))


def _q8_k(blocks: Bytes) -> Scaled:
    scale, codes, _ = fields(blocks, 4, 256, 32)  # the last field has sums of codes
    return Scaled(np.ascontiguousarray(scale).view("<f4"), codes.view(np.int8))


def _tq1_0(blocks: Bytes) -> Scaled:
    """A byte holds five digits of base 3 as a fraction of 256. Multiplied by 3, its whole part is the next digit."""
    first, second, last, scale = fields(blocks, 32, 16, 4, 2)
    powers = np.array([1, 3, 9, 27, 81], np.uint8)[:, None]
    parts = first[:, None] * powers, second[:, None] * powers, last[:, None] * powers[:4]
    fractions = np.concatenate([part.reshape(len(blocks), -1) for part in parts], axis=1)
    return Scaled(half(scale), (fractions.astype(np.uint16) * 3 >> 8).astype(np.int8) - 1)


def _tq2_0(blocks: Bytes) -> Scaled:
    codes, scale = fields(blocks, 64, 2)
    return Scaled(half(scale), bit_pairs(codes, 32).view(np.int8) - 1)


def _iq4_nl(blocks: Bytes) -> Scaled:
    scale, codes = fields(blocks, 2, 16)
    return Scaled(half(scale), _IQ4[nibbles(codes, 16)])


def _iq4_xs(blocks: Bytes) -> Scaled:
    scale, high, low, codes = fields(blocks, 2, 2, 4, 128)
    packed = nibbles(low, 1) | bit_pairs(high, 1) << 4
    return Scaled(half(scale), _IQ4[nibbles(codes, 16)], packed.astype(np.float32) - 32)


def _mxfp4(blocks: Bytes) -> Scaled:
    exponent, codes = fields(blocks, 1, 16)
    return Scaled(powers_of_two(exponent), E2M1[nibbles(codes, 16)])


def _nvfp4(blocks: Bytes) -> Scaled:
    scales, codes = fields(blocks, 4, 32)
    return Scaled(unsigned_e4m3(scales), E2M1[nibbles(codes, 8)])


_IQ4 = np.array((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113), np.int8)
"""The numbers that the codes of IQ4 formats stand for. Source: ggml's `kvalues_iq4nl`."""

_FLOATS = ("F32", "F16", "BF16")
_AS_STORED: dict[str, type[Weight]] = {
    **dict.fromkeys(_FLOATS, Dense),
    "Q8_0": Q8_0,
    "Q4_0": Q4_0,
    "Q4_1": Q4_1,
    "Q4_K": Q4_K,
    "Q5_K": Q5_K,
    "Q6_K": Q6_K,
}

_KEPT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Q1_0", "TQ1_0", "TQ2_0"), ("q4_0",)),
    **dict.fromkeys(("Q5_0", "IQ4_NL", "MXFP4"), ("q8_0",)),
    **dict.fromkeys(("Q3_K", "IQ1_S", "IQ1_M", "IQ3_XXS", "IQ3_S"), ("q6_k",)),
    "NVFP4": ("float16",),
}
"""The smallest types with kernels that hold the numbers of another type. No type holds those of the remaining formats:
codes of IQ2 and IQ4_XS are too large for Q6_K, and Q8_0 has no scales of scales; Q2_K and Q5_1 have more offsets than
Q4_K and Q5_K."""

READERS: dict[str, Callable[[Bytes], Scaled]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q1_0": _q1_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "Q8_K": _q8_k,
    "TQ1_0": _tq1_0,
    "TQ2_0": _tq2_0,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
    "NVFP4": _nvfp4,
    **CODEBOOK_READERS,
}
"""The reader of each ggml type."""

SUPPORTED = (*_FLOATS, "F64", *READERS)
