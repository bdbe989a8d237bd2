"""Groups of 32 stored weights, decoded to two vectors of 16 floats in registers.

Owns: the decoding of every weight kind that has a native kernel: f32, f16, bf16, q8_0, q4_0, q4_1. The readable
definitions are the `dequantize` methods of `ferrum.tensor.weights`; a property test holds these against them.
Next: `ferrum.backends.numba_kernels.tiles`.
"""

from __future__ import annotations

from typing import Any

from ferrum.backends.numba_kernels import ir
from ferrum.backends.numba_kernels.features import HAS_AVX512, HAS_HALF

GROUP_BYTES = {"f32": 128, "f16": 64, "bf16": 64, "q8_0": 34, "q4_0": 18, "q4_1": 20}
"""Bytes of 32 weights."""

Pair = tuple[Any, Any]
_Bytes, _Shorts = ir.Vector(ir.Int8, 16), ir.Vector(ir.Int16, 16)
_CODES = [float(code) for code in range(16)]


def decode_group(builder: Any, kind: str, address: Any) -> Pair:
    """The 32 weights at `address`, as two vectors of 16 floats."""
    return _DECODERS[kind](builder, address)


def _float32(builder: Any, address: Any) -> Pair:
    return ir.load(builder, address, ir.Floats), ir.load(builder, ir.offset(builder, address, 64), ir.Floats)


def _float16(builder: Any, address: Any) -> Pair:
    return _sixteen_halves(builder, address), _sixteen_halves(builder, ir.offset(builder, address, 32))


def _bfloat16(builder: Any, address: Any) -> Pair:
    """A bfloat16 is the upper half of a float32."""

    def upper(start: Any) -> Any:
        bits = builder.zext(ir.load(builder, start, _Shorts), ir.Ints)
        return builder.bitcast(builder.shl(bits, ir.constant(ir.Ints, 16)), ir.Floats)

    return upper(address), upper(ir.offset(builder, address, 32))


def _q8_0(builder: Any, address: Any) -> Pair:
    scale = _half_in_all_lanes(builder, address)

    def codes(distance: int) -> Any:
        return ir.widen(builder, ir.load(builder, ir.offset(builder, address, distance), _Bytes))

    return builder.fmul(codes(2), scale), builder.fmul(codes(18), scale)


def _q4_0(builder: Any, address: Any) -> Pair:
    scale = _half_in_all_lanes(builder, address)
    raw = ir.load(builder, ir.offset(builder, address, 2), _Bytes)
    if HAS_AVX512:
        return _look_up(builder, builder.fmul(ir.constant(ir.Floats, [c - 8 for c in _CODES]), scale), raw)
    low, high = _nibbles(builder, raw)
    eight = ir.constant(ir.Floats, 8.0)
    return builder.fmul(builder.fsub(low, eight), scale), builder.fmul(builder.fsub(high, eight), scale)


def _q4_1(builder: Any, address: Any) -> Pair:
    scale = _half_in_all_lanes(builder, address)
    minimum = _half_in_all_lanes(builder, ir.offset(builder, address, 2))
    raw = ir.load(builder, ir.offset(builder, address, 4), _Bytes)
    if HAS_AVX512:
        return _look_up(builder, ir.multiply_add(builder, ir.constant(ir.Floats, _CODES), scale, minimum), raw)
    low, high = _nibbles(builder, raw)
    return ir.multiply_add(builder, low, scale, minimum), ir.multiply_add(builder, high, scale, minimum)


def _look_up(builder: Any, table: Any, raw: Any) -> Pair:
    """One permute per 16 weights: the table holds the value of each of the 16 codes. The permute reads only the low
    four bits of a lane, so the low nibbles need no masking. Same bits as the arithmetic form."""
    codes = builder.zext(raw, ir.Ints)

    def permute(lanes: Any) -> Any:
        return ir.call(builder, "llvm.x86.avx512.permvar.sf.512", ir.Floats, table, lanes)

    return permute(codes), permute(builder.lshr(codes, ir.constant(ir.Ints, 4)))


def _nibbles(builder: Any, raw: Any) -> Pair:
    low = builder.and_(raw, ir.constant(_Bytes, 15))
    high = builder.lshr(raw, ir.constant(_Bytes, 4))
    return ir.widen(builder, low), ir.widen(builder, high)


def _half_in_all_lanes(builder: Any, address: Any) -> Any:
    """A float16 scale, splat *before* it is widened: the scalar conversion would carry a false dependence from one
    iteration to the next and cost five times as much."""
    if HAS_HALF:
        return builder.fpext(ir.splat(builder, ir.load(builder, address, ir.Half)), ir.Floats)
    return _half_from_bits(builder, ir.splat(builder, ir.load(builder, address, ir.Int16)))


def _sixteen_halves(builder: Any, address: Any) -> Any:
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


_DECODERS = {"f32": _float32, "f16": _float16, "bf16": _bfloat16, "q8_0": _q8_0, "q4_0": _q4_0, "q4_1": _q4_1}
