"""K-quants: blocks of 256 weights in groups; a group's scale is a small integer times the block's float16 scale.

Owns: Q4_K, Q5_K and Q6_K, the formats of most GGUF files, in the byte layout of GGUF. A weight is computed by ggml's
operations in ggml's order: in float32 the result has ggml's bits.
Refuses to know: files and models.
Specs: QUANT. Source: ggml's `block_q4_K`, `block_q5_K`, `block_q6_K` and their `dequantize_row_*`.
Next: `ferrum.tensor.int8`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ferrum.tensor.weights import BlockWeight, Groups, half, nibbles

if TYPE_CHECKING:
    from ferrum.tensor.compositions import TensorOps
    from ferrum.tensor.ops import Tensor

SUPER_GROUP = 256
"""Weights in a block of every format here."""


def _low_bits(ops: TensorOps, field: Tensor, mask: int) -> Tensor:
    """The bits of each byte that are set in `mask`: uint8, any shape."""
    return ops.bitwise_and(field, ops.constant(mask, "uint8"))


def _above(ops: TensorOps, low: Tensor, high: Tensor, place: int) -> Tensor:
    """low + high * place: uint8, any shapes that broadcast. The bits of `high` are put above those of `low`."""
    return ops.add(low, ops.mul(high, ops.constant(place, "uint8")))


def _group_scales(ops: TensorOps, packed: Tensor) -> tuple[Tensor, Tensor]:
    """The 6-bit scales and minimums of 8 groups: uint8 [rows, blocks, 12] -> float [rows, blocks, 8] twice.

    Bytes 0-3 hold scales 0-3, and bytes 4-7 minimums 0-3, in their low 6 bits. Bytes 8-11 hold the low 4 bits of scales
    4-7 (low nibble) and of minimums 4-7 (high nibble); the 2 high bits of those are the high bits of bytes 0-7.
    """
    first, last = ops.split(packed, (8, 4), axis=-1)
    early = _low_bits(ops, first, 63)  # scales 0-3, then minimums 0-3
    late = _above(ops, nibbles(ops, last), ops.right_shift(first, ops.constant(6, "uint8")), 16)  # those of groups 4-7
    pairs = zip(*(ops.split(ops.cast(each, ops.float_dtype), (4, 4), axis=-1) for each in (early, late)), strict=True)
    scales, minimums = (ops.concat(pair, axis=-1) for pair in pairs)
    return scales, minimums


def _affine(ops: TensorOps, scale: Tensor, minimum: Tensor, packed: Tensor, codes: Tensor) -> Groups:
    """Codes uint8 [rows, blocks, 8, 32] -> groups whose step is scale * group scale, and whose minimum is -(minimum *
    group minimum)."""
    scales, minimums = _group_scales(ops, packed)
    rows, blocks, groups = (int(length) for length in scales.shape)
    by_group = (rows, blocks * groups, 1)
    steps = ops.reshape(ops.mul(half(ops, scale), scales), by_group)
    offsets = ops.reshape(ops.mul(ops.mul(half(ops, minimum), ops.scalar(-1)), minimums), by_group)
    return Groups(ops.reshape(ops.cast(codes, ops.float_dtype), (rows, blocks * groups, 32)), steps, offsets)


def _runs(ops: TensorOps, field: Tensor, run: int) -> Tensor:
    """uint8 [rows, blocks, bytes] -> uint8 [rows, blocks, bytes / run, 2 * run]: every `run` bytes hold twice as many
    4-bit codes, the low nibbles first."""
    rows, blocks, size = (int(length) for length in field.shape)
    return nibbles(ops, ops.reshape(field, (rows, blocks, size // run, run)))


def _groups(ops: TensorOps, codes: Tensor) -> Tensor:
    """uint8 [rows, blocks, 128] -> uint8 [rows, blocks, 8, 32]: 4-bit codes; 32 bytes hold two groups."""
    rows, blocks, _ = (int(length) for length in codes.shape)
    return ops.reshape(_runs(ops, codes, 32), (rows, blocks, 8, 32))


@dataclass(frozen=True, eq=False)
class Q4_K(BlockWeight):
    """weight = (scale * group scale) * code - (minimum * group minimum), for 8 groups of 32; block: float16 scale,
    float16 minimum, 12 bytes of six-bit group scales and minimums, 256 four-bit codes (32 bytes hold two groups)."""

    kind = "q4_k"
    block_size = SUPER_GROUP
    block_bytes = 144

    def grouped(self, ops: TensorOps, data: Tensor) -> Groups:
        scale, minimum, packed, codes = self._fields(ops, data, (2, 2, 12, 128))
        return _affine(ops, scale, minimum, packed, _groups(ops, codes))


@dataclass(frozen=True, eq=False)
class Q5_K(BlockWeight):
    """As Q4_K, but codes have a fifth bit. Block: float16 scale, float16 minimum, 12 bytes of six-bit group scales and
    minimums, 32 bytes of fifth bits (bit g of byte i belongs to code i of group g), 256 four-bit codes."""

    kind = "q5_k"
    block_size = SUPER_GROUP
    block_bytes = 176

    def grouped(self, ops: TensorOps, data: Tensor) -> Groups:
        scale, minimum, packed, high, codes = self._fields(ops, data, (2, 2, 12, 32, 128))
        rows, blocks, _ = (int(length) for length in high.shape)
        shifts = ops.reshape(ops.arange(8, "uint8"), (8, 1))
        fifth = _low_bits(ops, ops.right_shift(ops.reshape(high, (rows, blocks, 1, 32)), shifts), 1)
        return _affine(ops, scale, minimum, packed, _above(ops, _groups(ops, codes), fifth, 16))


@dataclass(frozen=True, eq=False)
class Q6_K(BlockWeight):
    """weight = (scale * group scale) * (code - 32), for 16 groups of 16. Block: 128 bytes of low nibbles, 64 bytes of
    high bit pairs, 16 int8 group scales, float16 scale. Each half of a block, 128 weights, has 64 bytes of nibbles (low
    ones first) and 32 bytes of pairs: bits 2q and 2q + 1 of byte i belong to code i of quarter q."""

    kind = "q6_k"
    block_size = SUPER_GROUP
    block_bytes = 210

    def grouped(self, ops: TensorOps, data: Tensor) -> Groups:
        low, high, scales, scale = self._fields(ops, data, (128, 64, 16, 2))
        rows, blocks, _ = (int(length) for length in low.shape)
        quarters = ops.reshape(_runs(ops, low, 64), (rows, blocks, 2, 4, 32))
        shifts = ops.reshape(ops.mul(ops.arange(4, "uint8"), ops.constant(2, "uint8")), (4, 1))
        pairs = _low_bits(ops, ops.right_shift(ops.reshape(high, (rows, blocks, 2, 1, 32)), shifts), 3)
        codes = ops.reshape(_above(ops, quarters, pairs, 16), (rows, blocks, 16, 16))
        centred = ops.sub(ops.cast(codes, ops.float_dtype), ops.scalar(32.0))
        steps = ops.mul(half(ops, scale), ops.cast(ops.bitcast(scales, "int8"), ops.float_dtype))
        return Groups(ops.reshape(centred, (rows, -1, 16)), ops.reshape(steps, (rows, -1, 1)))
