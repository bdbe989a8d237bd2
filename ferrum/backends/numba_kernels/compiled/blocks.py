"""Groups of 32 stored weights, decoded to vectors of 16 floats in registers.

Owns: the decoding of dense weights and of those in groups of 32. The readable definitions are the `dequantize` methods
of `ferrum.tensor.weights`; a property test holds these against them.
Next: `ferrum.backends.numba_kernels.compiled.k_blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.loading.features import HAS_AVX512, HAS_BYTE_SHUFFLE, HAS_HALF, WIDTH

Decoder = Callable[[Any], Iterator[Any]]
"""The block at an address -> its weights, 16 at a time, in the order of their columns. Each vector is made when it is
asked for, so that a tile can use it up before the next one takes a register."""


@dataclass(frozen=True)
class Kind:
    """How a kind of weight is stored: `size` weights in `bytes` bytes. `decoder` is called once where a loop begins, so
    that what all blocks share is computed outside of it. `run`: several blocks, where they are decoded faster together;
    those at the end of a row that are no whole run come one by one."""

    size: int
    bytes: int
    decoder: Callable[[Any], Decoder]
    run: Kind | None = None


RUN = 4
"""Blocks whose scales are widened together."""

_Bytes, _Shorts = ir.Vector(ir.Int8, 16), ir.Vector(ir.Int16, 16)
_TwiceBytes = ir.Vector(ir.Int8, 32)
_CODES = [float(code) for code in range(16)]


def _float32(builder: Any) -> Decoder:
    def decode(address: Any) -> Iterator[Any]:
        for distance in (0, 64):
            yield ir.load(builder, ir.offset(builder, address, distance), ir.Floats)

    return decode


def _float16(builder: Any) -> Decoder:
    def decode(address: Any) -> Iterator[Any]:
        for distance in (0, 32):
            yield sixteen_halves(builder, ir.offset(builder, address, distance))

    return decode


def _bfloat16(builder: Any) -> Decoder:
    """A bfloat16 is the upper half of a float32."""

    def decode(address: Any) -> Iterator[Any]:
        for distance in (0, 32):
            bits = builder.zext(ir.load(builder, ir.offset(builder, address, distance), _Shorts), ir.Ints)
            yield builder.bitcast(builder.shl(bits, ir.constant(ir.Ints, 16)), ir.Floats)

    return decode


def _q8_0(blocks: int, builder: Any) -> Decoder:
    def decode(address: Any) -> Iterator[Any]:
        for block, (scale,) in _blocks_with_halves(builder, address, blocks, 34, 1):
            for distance in (2, 18):
                codes = ir.widen(builder, ir.load(builder, ir.offset(builder, block, distance), _Bytes))
                yield builder.fmul(codes, scale)

    return decode


def _q4_0(blocks: int, builder: Any) -> Decoder:
    nibbles = nibbles_of(builder)

    def decode(address: Any) -> Iterator[Any]:
        for block, (scale,) in _blocks_with_halves(builder, address, blocks, 18, 1):
            raw, levels = nibbles.load(ir.offset(builder, block, 2)), nibbles.centred(scale)
            yield from (nibbles.value(raw, high, levels) for high in (False, True))

    return decode


def _q4_1(blocks: int, builder: Any) -> Decoder:
    nibbles = nibbles_of(builder)

    def decode(address: Any) -> Iterator[Any]:
        for block, (scale, minimum) in _blocks_with_halves(builder, address, blocks, 20, 2):
            raw, levels = nibbles.load(ir.offset(builder, block, 4)), nibbles.levels(scale, minimum)
            yield from (nibbles.value(raw, high, levels) for high in (False, True))

    return decode


def _blocks_with_halves(
    builder: Any, address: Any, blocks: int, size: int, count: int
) -> Iterator[tuple[Any, list[Any]]]:
    """The addresses of blocks of `size` bytes, and the `count` float16 numbers at the beginning of each, in all lanes.
    Those of several blocks are widened at once and laid down, since a float from memory fills all lanes at no cost."""
    places = [ir.offset(builder, address, size * i) for i in range(blocks)]
    if blocks == 1:
        yield address, _halves_in_all_lanes(builder, address, count)
        return
    raw = ir.pack(builder, [ir.load(builder, place, ir.IntType(16 * count)) for place in places])
    spot = ir.stack(builder, 4 * count * blocks)
    ir.store(builder, spot, floats_of(builder, builder.bitcast(raw, ir.Vector(ir.Int16, count * blocks))))
    for i, place in enumerate(places):
        yield place, [ir.spread(builder, spot, count * i + which) for which in range(count)]


@dataclass(frozen=True)
class Nibbles:
    """How 16 bytes of two nibbles each are decoded. `load`: address -> bytes; `levels`: (scale, offset) -> what codes
    stand for, scale * code + offset; `centred`: scale -> the same for scale * (code - 8); `value`: (bytes, False for
    the low or True for the high nibbles, levels) -> 16 floats. All targets give the same numbers, because scale * code
    is exact in float32."""

    load: Callable[[Any], Any]
    levels: Callable[[Any, Any], Any]
    centred: Callable[[Any], Any]
    value: Callable[[Any, bool, Any], Any]


def nibbles_of(builder: Any) -> Nibbles:
    """The target's way."""
    if HAS_AVX512:
        return _nibbles_by_table(builder)
    return _nibbles_by_byte_shuffle(builder) if HAS_BYTE_SHUFFLE else _nibbles_by_widening(builder)


def _nibbles_by_table(builder: Any) -> Nibbles:
    """One permute per 16 weights: the table holds the value of each of the 16 codes. The permute reads only the low
    four bits of a lane, so the low nibbles need no masking."""

    def load(address: Any) -> Any:
        return builder.zext(ir.load(builder, address, _Bytes), ir.Ints)

    def levels(scale: Any, offset: Any) -> Any:
        return ir.multiply_add(builder, ir.constant(ir.Floats, _CODES), scale, offset)

    def centred(scale: Any) -> Any:
        return builder.fmul(ir.constant(ir.Floats, [code - 8 for code in _CODES]), scale)

    def value(codes: Any, high: bool, table: Any) -> Any:
        lanes = builder.lshr(codes, ir.constant(ir.Ints, 4)) if high else codes
        return ir.call(builder, "llvm.x86.avx512.permvar.sf.512", ir.Floats, table, lanes)

    return Nibbles(load, levels, centred, value)


def _nibbles_by_byte_shuffle(builder: Any) -> Nibbles:
    """One byte shuffle per 8 weights puts each code into the lowest byte of its lane. A widening load does it in two
    steps, because it must cross between the halves of the register: a quarter slower."""
    widen = _byte_widener(builder)

    def load(address: Any) -> Any:
        raw = ir.load(builder, address, _Bytes)
        return ir.shuffle(builder, raw, raw, [*range(16), *range(16)])  # in both halves: loaded so, at no cost

    def value(raw: Any, high: bool, levels: Any) -> Any:
        mask, four = ir.constant(_TwiceBytes, 15), ir.constant(_TwiceBytes, 4)
        codes = builder.lshr(raw, four) if high else builder.and_(raw, mask)
        return ir.multiply_add(builder, widen(codes), *levels)

    return Nibbles(load, _pair, partial(_centred_pair, builder), value)


def _nibbles_by_widening(builder: Any) -> Nibbles:
    def load(address: Any) -> Any:
        return ir.load(builder, address, _Bytes)

    def value(raw: Any, high: bool, levels: Any) -> Any:
        mask, four = ir.constant(_Bytes, 15), ir.constant(_Bytes, 4)
        codes = builder.lshr(raw, four) if high else builder.and_(raw, mask)
        return ir.multiply_add(builder, ir.widen(builder, codes), *levels)

    return Nibbles(load, _pair, partial(_centred_pair, builder), value)


def _pair(scale: Any, offset: Any) -> tuple[Any, Any]:
    return scale, offset


def _centred_pair(builder: Any, scale: Any) -> tuple[Any, Any]:
    """Both products are exact, so scale * code - 8 * scale is scale * (code - 8)."""
    return scale, builder.fmul(scale, ir.constant(ir.Floats, -8.0))


def _byte_widener(builder: Any) -> Callable[[Any], Any]:
    """<32 x i8>, 16 unsigned bytes in each half -> 16 floats, by shuffles within the halves of a register."""

    def control(first: int) -> Any:
        nothing = -128  # such a byte becomes 0
        lanes = [[first + 4 * half + i, nothing, nothing, nothing] for half in (0, 1) for i in range(4)]
        return ir.opaque(builder, ir.constant(_TwiceBytes, [byte for lane in lanes for byte in lane]))

    controls = control(0), control(8)
    integers = ir.Vector(ir.Int32, 8)

    def widen(values: Any) -> Any:
        halves = [ir.call(builder, "llvm.x86.avx2.pshuf.b", _TwiceBytes, values, each) for each in controls]
        low, high = (builder.sitofp(builder.bitcast(half, integers), ir.Vector(ir.Float, 8)) for half in halves)
        return ir.shuffle(builder, low, high, range(16))

    return widen


def half_in_all_lanes(builder: Any, address: Any) -> Any:
    """A float16 scale, splat *before* it is widened: the scalar conversion would carry a false dependence from one
    iteration to the next and cost five times as much."""
    return floats_of(builder, ir.splat(builder, ir.load(builder, address, ir.Int16)))


def _halves_in_all_lanes(builder: Any, address: Any, count: int) -> list[Any]:
    """One float16 number, or two side by side. Widening two at once takes four instructions instead of six where a
    register holds 8 floats; elsewhere it takes more."""
    if count == 1 or WIDTH != 8 or not HAS_HALF:
        return [half_in_all_lanes(builder, ir.offset(builder, address, 2 * i)) for i in range(count)]
    pair = ir.load(builder, address, ir.Vector(ir.Half, 2))
    floats = builder.fpext(ir.shuffle(builder, pair, pair, [0, 1] * 4), ir.Vector(ir.Float, 8))
    lanes = [[lane + which for lane in (0, 0, 2, 2, 4, 4, 6, 6)] * 2 for which in (0, 1)]
    return [ir.shuffle(builder, floats, floats, each) for each in lanes]


def sixteen_halves(builder: Any, address: Any) -> Any:
    """16 float16 numbers as floats"""
    return floats_of(builder, ir.load(builder, address, _Shorts))


def floats_of(builder: Any, shorts: Any) -> Any:
    """The bits of float16 numbers -> as many floats. Without an instruction: by shifts and one exact multiplication,
    which also rescales subnormals. Infinities and NaN, which no sound weight holds, then come out as large finite
    numbers."""
    count = shorts.type.count
    halves, floats, integers = (ir.Vector(kind, count) for kind in (ir.Half, ir.Float, ir.Int32))
    if HAS_HALF:
        return builder.fpext(builder.bitcast(shorts, halves), floats)
    bits = builder.zext(shorts, integers)
    magnitude = builder.shl(builder.and_(bits, ir.constant(integers, 0x7FFF)), ir.constant(integers, 13))
    sign = builder.shl(builder.and_(bits, ir.constant(integers, 0x8000)), ir.constant(integers, 16))
    rescaled = builder.fmul(builder.bitcast(magnitude, floats), ir.constant(floats, 2.0**112))
    return builder.bitcast(builder.or_(builder.bitcast(rescaled, integers), sign), floats)


def _in_runs(size: int, stored: int, decoder: Callable[[int, Any], Decoder]) -> Kind:
    return Kind(size, stored, partial(decoder, 1), Kind(RUN * size, RUN * stored, partial(decoder, RUN)))


GROUP_KINDS = {
    "f32": Kind(32, 128, _float32),
    "f16": Kind(32, 64, _float16),
    "bf16": Kind(32, 64, _bfloat16),
    "q8_0": _in_runs(32, 34, _q8_0),
    "q4_0": _in_runs(32, 18, _q4_0),
    "q4_1": _in_runs(32, 20, _q4_1),
}
"""Kinds whose blocks are single groups of 32 weights."""
