"""Groups of 32 stored weights, decoded to vectors of 16 floats in registers.

Owns: the decoding of dense weights and of those in groups of 32. The readable definitions are the `dequantize` methods
of `ferrum.tensor.weights`; a property test holds these against them.
Next: `ferrum.backends.numba_kernels.k_blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ferrum.backends.numba_kernels import ir
from ferrum.backends.numba_kernels.features import HAS_AVX512, HAS_BYTE_SHUFFLE, HAS_HALF, WIDTH

Decoder = Callable[[Any], Iterator[Any]]
"""The block at an address -> its weights, 16 at a time, in the order of their columns. Each vector is made when it is
asked for, so that a tile can use it up before the next one takes a register."""


@dataclass(frozen=True)
class Kind:
    """How a kind of weight is stored: `size` weights in `bytes` bytes. `decoder` is called once where a loop begins, so
    that what all blocks share is computed outside of it."""

    size: int
    bytes: int
    decoder: Callable[[Any], Decoder]


Pair = tuple[Any, Any]
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


def _q8_0(builder: Any) -> Decoder:
    def decode(address: Any) -> Iterator[Any]:
        scale = half_in_all_lanes(builder, address)
        for distance in (2, 18):
            codes = ir.widen(builder, ir.load(builder, ir.offset(builder, address, distance), _Bytes))
            yield builder.fmul(codes, scale)

    return decode


def _q4_0(builder: Any) -> Decoder:
    """scale * code - 8 * scale: both products are exact, so the difference has the bits of scale * (code - 8)."""
    nibbles = nibbles_of(builder)

    def decode(address: Any) -> Iterator[Any]:
        scale = half_in_all_lanes(builder, address)
        offset = builder.fmul(scale, ir.constant(ir.Floats, -8.0))
        raw = nibbles.load(ir.offset(builder, address, 2))
        yield nibbles.value(raw, False, scale, offset)
        yield nibbles.value(raw, True, scale, offset)

    return decode


def _q4_1(builder: Any) -> Decoder:
    nibbles = nibbles_of(builder)

    def decode(address: Any) -> Iterator[Any]:
        scale, minimum = _two_halves_in_all_lanes(builder, address)
        raw = nibbles.load(ir.offset(builder, address, 4))
        yield nibbles.value(raw, False, scale, minimum)
        yield nibbles.value(raw, True, scale, minimum)

    return decode


@dataclass(frozen=True)
class Nibbles:
    """How 16 bytes of two nibbles each are decoded. `load`: address -> bytes; `value`: (bytes, False for the low or
    True for the high nibbles, scale, offset) -> scale * code + offset. All targets give the same bits: scale * code is
    exact in float32."""

    load: Callable[[Any], Any]
    value: Callable[[Any, bool, Any, Any], Any]


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

    def value(codes: Any, high: bool, scale: Any, offset: Any) -> Any:
        table = ir.multiply_add(builder, ir.constant(ir.Floats, _CODES), scale, offset)
        lanes = builder.lshr(codes, ir.constant(ir.Ints, 4)) if high else codes
        return ir.call(builder, "llvm.x86.avx512.permvar.sf.512", ir.Floats, table, lanes)

    return Nibbles(load, value)


def _nibbles_by_byte_shuffle(builder: Any) -> Nibbles:
    """One byte shuffle per 8 weights puts each code into the lowest byte of its lane. A widening load does it in two
    steps, because it must cross between the halves of the register: a quarter slower."""
    widen = _byte_widener(builder)

    def load(address: Any) -> Any:
        raw = ir.load(builder, address, _Bytes)
        return ir.shuffle(builder, raw, raw, [*range(16), *range(16)])  # in both halves: loaded so, at no cost

    def value(raw: Any, high: bool, scale: Any, offset: Any) -> Any:
        mask, four = ir.constant(_TwiceBytes, 15), ir.constant(_TwiceBytes, 4)
        codes = builder.lshr(raw, four) if high else builder.and_(raw, mask)
        return ir.multiply_add(builder, widen(codes), scale, offset)

    return Nibbles(load, value)


def _nibbles_by_widening(builder: Any) -> Nibbles:
    def load(address: Any) -> Any:
        return ir.load(builder, address, _Bytes)

    def value(raw: Any, high: bool, scale: Any, offset: Any) -> Any:
        mask, four = ir.constant(_Bytes, 15), ir.constant(_Bytes, 4)
        codes = builder.lshr(raw, four) if high else builder.and_(raw, mask)
        return ir.multiply_add(builder, ir.widen(builder, codes), scale, offset)

    return Nibbles(load, value)


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
    if HAS_HALF:
        return builder.fpext(ir.splat(builder, ir.load(builder, address, ir.Half)), ir.Floats)
    return _half_from_bits(builder, ir.splat(builder, ir.load(builder, address, ir.Int16)))


def _two_halves_in_all_lanes(builder: Any, address: Any) -> Pair:
    """Two float16 numbers that lie side by side. Widening both at once takes four instructions instead of six where a
    register holds 8 floats; elsewhere it takes more."""
    if WIDTH != 8 or not HAS_HALF:
        return half_in_all_lanes(builder, address), half_in_all_lanes(builder, ir.offset(builder, address, 2))
    pair = ir.load(builder, address, ir.Vector(ir.Half, 2))
    floats = builder.fpext(ir.shuffle(builder, pair, pair, [0, 1] * 4), ir.Vector(ir.Float, 8))
    first, second = ([lane + which for lane in (0, 0, 2, 2, 4, 4, 6, 6)] * 2 for which in (0, 1))
    return ir.shuffle(builder, floats, floats, first), ir.shuffle(builder, floats, floats, second)


def sixteen_halves(builder: Any, address: Any) -> Any:
    """16 float16 numbers as floats"""
    if HAS_HALF:
        return builder.fpext(ir.load(builder, address, ir.Vector(ir.Half, 16)), ir.Floats)
    return _half_from_bits(builder, ir.load(builder, address, _Shorts))


def _half_from_bits(builder: Any, shorts: Any) -> Any:
    """float16 -> float32 by shifts and one exact multiplication, which also rescales subnormals. Infinities and NaN,
    which no sound weight holds, come out as large finite numbers."""
    bits = builder.zext(shorts, ir.Ints)
    magnitude = builder.shl(builder.and_(bits, ir.constant(ir.Ints, 0x7FFF)), ir.constant(ir.Ints, 13))
    sign = builder.shl(builder.and_(bits, ir.constant(ir.Ints, 0x8000)), ir.constant(ir.Ints, 16))
    rescaled = builder.fmul(builder.bitcast(magnitude, ir.Floats), ir.constant(ir.Floats, 2.0**112))
    return builder.bitcast(builder.or_(builder.bitcast(rescaled, ir.Ints), sign), ir.Floats)


GROUP_KINDS = {
    "f32": Kind(32, 128, _float32),
    "f16": Kind(32, 64, _float16),
    "bf16": Kind(32, 64, _bfloat16),
    "q8_0": Kind(32, 34, _q8_0),
    "q4_0": Kind(32, 18, _q4_0),
    "q4_1": Kind(32, 20, _q4_1),
}
"""Kinds whose blocks are single groups of 32 weights."""
