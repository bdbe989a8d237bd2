"""Groups of 32 stored weights, decoded to vectors of 16 floats in registers.

Owns: decoding of dense weights and of weights in groups of 32. Definitions: the `dequantize` methods of
`ferrum.tensor.weights`; a property test compares the results.
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
"""From the address of a block to its weights: vectors of 16, in the order of columns. It is a generator, so a tile can
multiply one vector before the next one occupies a register."""


@dataclass(frozen=True)
class Kind:
    """How a kind of weight is stored: blocks of `size` weights in `bytes` bytes. `decoder` is called once before a loop
    over blocks, so that constants are computed outside of the loop. `run` describes several blocks, where decoding them
    together is faster; blocks at the end of a row that are no whole run are decoded one by one."""

    size: int
    bytes: int
    decoder: Callable[[Any], Decoder]
    run: Kind | None = None


RUN = 4
"""Blocks of a run: their scales are converted to float32 together."""

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
    The numbers of several blocks are converted together and stored on the stack, because loading one float into all
    lanes costs nothing extra."""
    places = [ir.offset(builder, address, size * i) for i in range(blocks)]
    if blocks == 1:
        yield address, _halves_in_all_lanes(builder, address, count)
        return
    raw = ir.pack(builder, [ir.load(builder, place, ir.IntType(16 * count)) for place in places])
    spot = ir.stack(builder, 4 * count * blocks)
    ir.store(builder, spot, floats_of(builder, builder.bitcast(raw, ir.Vector(ir.Int16, count * blocks))))
    for i, place in enumerate(places):
        yield place, [ir.spread(builder, spot, count * i + number) for number in range(count)]


@dataclass(frozen=True)
class Nibbles:
    """How 16 bytes of two 4-bit codes each are decoded on this target. All targets give the same numbers, because
    scale * code is exact in float32."""

    load: Callable[[Any], Any]  # address -> bytes
    levels: Callable[[Any, Any], Any]  # (scale, offset) -> `levels` for the numbers scale * code + offset
    centred: Callable[[Any], Any]  # scale -> `levels` for the numbers scale * (code - 8)
    value: Callable[[Any, bool, Any], Any]  # (bytes, True for the high nibbles, `levels`) -> 16 floats


def nibbles_of(builder: Any) -> Nibbles:
    """The fastest way to decode nibbles on this target."""
    if HAS_AVX512:
        return _nibbles_by_table(builder)
    return _nibbles_by_byte_shuffle(builder) if HAS_BYTE_SHUFFLE else _nibbles_by_widening(builder)


def _nibbles_by_table(builder: Any) -> Nibbles:
    """One permutation for 16 weights: a table holds the number of each of the 16 codes. The permutation reads only the
    low four bits of a lane, so the low nibbles need no mask."""

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
    """One byte shuffle for 8 weights puts each code into the lowest byte of its lane. Widening the bytes instead would
    take a second instruction, to move them between the halves of the register, and a quarter more time."""
    widen = _byte_widener(builder)

    def load(address: Any) -> Any:
        raw = ir.load(builder, address, _Bytes)
        return ir.shuffle(builder, raw, raw, [*range(16), *range(16)])  # one instruction loads them into both halves

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
    """scale * code and 8 * scale are exact, so their difference is scale * (code - 8), rounded once."""
    return scale, builder.fmul(scale, ir.constant(ir.Floats, -8.0))


def _byte_widener(builder: Any) -> Callable[[Any], Any]:
    """A function from 32 bytes, the same 16 unsigned ones in each half, to 16 floats, by shuffles within the halves."""

    def control(first: int) -> Any:
        nothing = -128  # the shuffle writes 0 for it
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
    """The float16 number at an address, in all lanes of float32. It is copied to all lanes before it is converted: the
    conversion of a scalar would depend on the previous iteration and take five times as long."""
    return floats_of(builder, ir.splat(builder, ir.load(builder, address, ir.Int16)))


def _halves_in_all_lanes(builder: Any, address: Any, count: int) -> list[Any]:
    """`count` float16 numbers at an address, each in all lanes; 1 or 2. Where a register holds 8 floats, converting two
    together takes four instructions instead of six."""
    if count == 1 or WIDTH != 8 or not HAS_HALF:
        return [half_in_all_lanes(builder, ir.offset(builder, address, 2 * i)) for i in range(count)]
    pair = ir.load(builder, address, ir.Vector(ir.Half, 2))
    floats = builder.fpext(ir.shuffle(builder, pair, pair, [0, 1] * 4), ir.Vector(ir.Float, 8))
    lanes = [[lane + number for lane in (0, 0, 2, 2, 4, 4, 6, 6)] * 2 for number in (0, 1)]
    return [ir.shuffle(builder, floats, floats, each) for each in lanes]


def sixteen_halves(builder: Any, address: Any) -> Any:
    """The 16 float16 numbers at an address, as floats."""
    return floats_of(builder, ir.load(builder, address, _Shorts))


def floats_of(builder: Any, shorts: Any) -> Any:
    """From the bits of float16 numbers to floats. A target without an instruction for it shifts the bits and multiplies
    once, which is exact for subnormal numbers too. Infinities and NaN then become large finite numbers; weights of a
    sound file have none."""
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
"""Kinds of weights whose blocks are groups of 32."""
