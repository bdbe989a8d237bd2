"""K-quants: blocks of 256 stored weights, decoded to vectors of 16 floats in registers.

Owns: decoding of Q4_K, Q5_K and Q6_K, and the list of all kinds of weights that kernels decode. Definitions: the
`dequantize` methods of `ferrum.tensor.k_quants`; a property test compares the results.
Next: `ferrum.backends.numba_kernels.compiled.tiles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.blocks import GROUP_KINDS, Decoder, Kind, half_in_all_lanes, nibbles_of

_Bytes, _HalfLine, _Line = (ir.Vector(ir.Int8, count) for count in (16, 32, 64))
_FourInts = ir.Vector(ir.Int32, 4)


def _group_scales(builder: Any, address: Any) -> Callable[[int], list[Any]]:
    """The block at `address` begins with two float16 and 12 bytes of six-bit numbers, packed as
    `ferrum.tensor.k_quants` describes. -> a function from a group to scale * group scale and -(minimum * group
    minimum), in all lanes. All products are exact. They are stored on the stack, because loading one float into all
    lanes costs nothing extra."""
    raw = ir.load(builder, ir.offset(builder, address, 4), _FourInts)  # the first three hold the six-bit numbers

    def keep(lanes: list[int], shifts: Any, masks: list[int]) -> Any:
        shifted = builder.lshr(ir.shuffle(builder, raw, raw, lanes), ir.constant(_FourInts, shifts))
        return builder.and_(shifted, ir.constant(_FourInts, [mask * 0x01010101 for mask in masks]))

    # scales 0 to 3, minimums 0 to 3, scales 4 to 7, minimums 4 to 7
    low, high = keep([0, 1, 2, 2], [0, 0, 0, 4], [63, 63, 15, 15]), keep([0, 0, 0, 1], 2, [0, 0, 48, 48])
    codes = builder.uitofp(builder.zext(builder.bitcast(builder.or_(low, high), _Bytes), ir.Ints), ir.Floats)
    step, minimum = (half_in_all_lanes(builder, ir.offset(builder, address, distance)) for distance in (0, 2))
    offset = builder.fsub(ir.constant(ir.Floats, -0.0), minimum)
    factors = ir.shuffle(builder, step, offset, ([0] * 4 + [ir.LANES] * 4) * 2)
    spot = ir.stack(builder, 4 * ir.LANES)
    ir.store(builder, spot, builder.fmul(codes, factors))
    return lambda group: [ir.spread(builder, spot, group % 4 + 8 * (group // 4) + lane) for lane in (0, 4)]


def _q4_k(builder: Any) -> Decoder:
    nibbles = nibbles_of(builder)

    def decode(address: Any) -> Iterator[Any]:
        scales_of = _group_scales(builder, address)
        for pair in range(4):  # 32 bytes hold two groups
            raws = [nibbles.load(ir.offset(builder, address, 16 + 32 * pair + distance)) for distance in (0, 16)]
            for high in (False, True):
                levels = nibbles.levels(*scales_of(2 * pair + high))
                yield from (nibbles.value(raw, high, levels) for raw in raws)

    return decode


def _q5_k(builder: Any) -> Decoder:
    def decode(address: Any) -> Iterator[Any]:
        scales_of = _group_scales(builder, address)
        fifth = ir.load(builder, ir.offset(builder, address, 16), _HalfLine)
        for group in range(8):
            low = ir.load(builder, ir.offset(builder, address, 48 + 32 * (group // 2)), _HalfLine)
            codes = builder.or_(_bits(builder, low, 4 * (group % 2), 15), _bits(builder, fifth, group - 4, 16))
            step, offset = scales_of(group)
            for first in (0, 16):
                part = builder.zext(ir.shuffle(builder, codes, codes, range(first, first + 16)), ir.Ints)
                yield ir.multiply_add(builder, builder.sitofp(part, ir.Floats), step, offset)

    return decode


def _q6_k(builder: Any) -> Decoder:
    """64 codes are unpacked at a time. Codes and scales are stored on the stack, because loads can convert codes and
    copy a scale to all lanes."""

    def decode(address: Any) -> Iterator[Any]:
        scale = half_in_all_lanes(builder, ir.offset(builder, address, 208))
        groups = ir.widen(builder, ir.load(builder, ir.offset(builder, address, 192), _Bytes))
        steps, spot = ir.stack(builder, 64), ir.stack(builder, 256)
        ir.store(builder, steps, builder.fmul(groups, scale))
        for quarter in range(4):  # two quarters share the bytes of their low and of their high bits
            place = ir.offset(builder, spot, 64 * quarter)
            ir.store(builder, place, builder.sub(_six_bits(builder, address, quarter), ir.constant(_Line, 32)))
            for i in range(4):
                codes = ir.widen(builder, ir.load(builder, ir.offset(builder, place, 16 * i), _Bytes))
                yield builder.fmul(codes, ir.spread(builder, steps, 4 * quarter + i))

    return decode


def _six_bits(builder: Any, address: Any, quarter: int) -> Any:
    """The 64 codes of a quarter of a block of Q6_K."""
    half, second = divmod(quarter, 2)
    low = ir.load(builder, ir.offset(builder, address, 64 * half), _Line)
    high = ir.load(builder, ir.offset(builder, address, 128 + 32 * half), _HalfLine)
    pairs = [_bits(builder, high, shift, 48) for shift in ((0, 2) if second else (-4, -2))]
    return builder.or_(_bits(builder, low, 4 * second, 15), ir.shuffle(builder, pairs[0], pairs[1], range(64)))


def _bits(builder: Any, values: Any, shift: int, mask: int) -> Any:
    """Each byte shifted to the right, or to the left by a negative `shift`, and masked."""
    distance = ir.constant(values.type, abs(shift))
    moved = builder.lshr(values, distance) if shift > 0 else builder.shl(values, distance) if shift < 0 else values
    return builder.and_(moved, ir.constant(values.type, mask))


KINDS = {
    **GROUP_KINDS,
    "q4_k": Kind(256, 144, _q4_k),
    "q5_k": Kind(256, 176, _q5_k),
    "q6_k": Kind(256, 210, _q6_k),
}
"""Every kind of weight that kernels decode."""
