"""K-quants: blocks of 256 stored weights, decoded to vectors of 16 floats in registers.

Owns: the decoding of Q4_K, Q5_K and Q6_K, and the list of all kinds that have native kernels. The readable definitions
are the `dequantize` methods of `ferrum.tensor.k_quants`; a property test holds these against them.
Next: `ferrum.backends.numba_kernels.tiles`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ferrum.backends.numba_kernels import ir
from ferrum.backends.numba_kernels.blocks import GROUP_KINDS, Decoder, Kind, half_in_all_lanes, nibbles_of

_Bytes, _EightFloats = ir.Vector(ir.Int8, 16), ir.Vector(ir.Float, 8)


def _lane(builder: Any, vector: Any, lane: int) -> Any:
    """One lane of a vector in all 16 lanes of another."""
    return ir.shuffle(builder, vector, vector, [lane] * ir.LANES)


def _eight(builder: Any, low: Any, high: Any) -> Any:
    """Two int32, eight bytes -> 8 floats"""
    packed = builder.bitcast(ir.pack(builder, [low, high]), ir.Vector(ir.Int8, 8))
    return builder.uitofp(packed, _EightFloats)


def _group_scales(builder: Any, address: Any) -> tuple[Any, Any]:
    """-> scale * group scales and -(minimum * group minimums), 8 floats each, of the block at `address`: two float16,
    then 12 bytes of six-bit numbers, packed as `ferrum.tensor.k_quants` tells. All products are exact."""
    words = [ir.load(builder, ir.offset(builder, address, 4 + 4 * i), ir.Int32) for i in range(3)]

    def keep(word: Any, shift: int, mask: int) -> Any:
        return builder.and_(builder.lshr(word, ir.constant(ir.Int32, shift)), ir.constant(ir.Int32, mask * 0x01010101))

    def late(low: Any, high: Any) -> Any:
        return builder.or_(low, builder.shl(keep(high, 6, 3), ir.constant(ir.Int32, 4)))

    scales = _eight(builder, keep(words[0], 0, 63), late(keep(words[2], 0, 15), words[0]))
    minimums = _eight(builder, keep(words[1], 0, 63), late(keep(words[2], 4, 15), words[1]))
    factors = [half_in_all_lanes(builder, ir.offset(builder, address, distance)) for distance in (0, 2)]
    step, offset = (ir.shuffle(builder, factor, factor, range(8)) for factor in factors)
    return builder.fmul(scales, step), builder.fmul(minimums, builder.fsub(ir.constant(_EightFloats, -0.0), offset))


def _q4_k(builder: Any) -> Decoder:
    nibbles = nibbles_of(builder)

    def decode(address: Any) -> Iterator[Any]:
        steps, offsets = _group_scales(builder, address)
        for pair in range(4):  # 32 bytes hold two groups
            raws = [nibbles.load(ir.offset(builder, address, 16 + 32 * pair + distance)) for distance in (0, 16)]
            for high in (False, True):
                step, offset = (_lane(builder, each, 2 * pair + high) for each in (steps, offsets))
                yield from (nibbles.value(raw, high, step, offset) for raw in raws)

    return decode


def _q5_k(builder: Any) -> Decoder:
    def decode(address: Any) -> Iterator[Any]:
        steps, offsets = _group_scales(builder, address)
        for group in range(8):
            step, offset = (_lane(builder, each, group) for each in (steps, offsets))
            for distance in (0, 16):
                low = ir.load(builder, ir.offset(builder, address, 48 + 32 * (group // 2) + distance), _Bytes)
                high = ir.load(builder, ir.offset(builder, address, 16 + distance), _Bytes)
                codes = builder.or_(_bits(builder, low, 4 * (group % 2), 15), _bits(builder, high, group, 1, 4))
                yield ir.multiply_add(builder, ir.widen(builder, codes), step, offset)

    return decode


def _q6_k(builder: Any) -> Decoder:
    def decode(address: Any) -> Iterator[Any]:
        scale = half_in_all_lanes(builder, ir.offset(builder, address, 208))
        steps = builder.fmul(ir.widen(builder, ir.load(builder, ir.offset(builder, address, 192), _Bytes)), scale)
        for run in range(16):  # 16 weights each: two runs a quarter, four quarters a half
            half, quarter, distance = run // 8, run % 8 // 2, 16 * (run % 2)
            low = ir.load(builder, ir.offset(builder, address, 64 * half + 32 * (quarter % 2) + distance), _Bytes)
            high = ir.load(builder, ir.offset(builder, address, 128 + 32 * half + distance), _Bytes)
            codes = builder.or_(_bits(builder, low, 4 * (quarter // 2), 15), _bits(builder, high, 2 * quarter, 3, 4))
            centred = builder.sub(codes, ir.constant(_Bytes, 32))
            yield builder.fmul(ir.widen(builder, centred), _lane(builder, steps, run))

    return decode


def _bits(builder: Any, values: Any, shift: int, mask: int, place: int = 0) -> Any:
    """The bits of each byte that the mask keeps after a shift to the right, moved to the left by `place`."""
    kept = builder.and_(builder.lshr(values, ir.constant(_Bytes, shift)), ir.constant(_Bytes, mask))
    return builder.shl(kept, ir.constant(_Bytes, place)) if place else kept


KINDS = {
    **GROUP_KINDS,
    "q4_k": Kind(256, 144, _q4_k),
    "q5_k": Kind(256, 176, _q5_k),
    "q6_k": Kind(256, 210, _q6_k),
}
"""Every kind of weight that has a native kernel."""
