"""Activations rounded to eight bits, in groups of 32 neighbours.

Owns: the kernel that rounds rows, after a norm if there is one. `sizes` describes the layout of its result. Definition:
`rounded` in `ferrum.tensor.int8`, with the same bits.
Next: `ferrum.backends.numba_kernels.compiled.interleaving`.
"""

from __future__ import annotations

import math
from typing import Any

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.elementwise import normalise
from ferrum.backends.numba_kernels.compiled.simd import inlined, load_word, store_word
from ferrum.backends.numba_kernels.compiled.tiles import named_word
from ferrum.backends.numba_kernels.sizes import (
    GROUP,
    X_BYTES,
    X_MINUS_8,
    X_MINUS_32_OF_HALVES,
    X_MINUS_128,
    X_SCALE,
    X_SCALED_SUM,
)
from ferrum.tensor.int8 import LARGEST_CODE, NOTHING, WHOLE

_WHOLE_BITS = 0x4B400000
"""The bits of the float 1.5 * 2**23. Adding an integer to the float adds the same integer to its bits."""
_SIZE = 0x7FFFFFFF
"""Mask of the bits of an absolute value."""


def _round_group(builder: Any, x: Any, out: Any) -> None:
    """Rounds 32 floats to one group."""
    low, high = (ir.load(builder, ir.offset(builder, x, distance), ir.Floats) for distance in (0, 64))
    sizes = [builder.and_(builder.bitcast(part, ir.Ints), ir.constant(ir.Ints, _SIZE)) for part in (low, high)]
    # the bits of absolute values, as integers, have the same order as the values, and NaN is the largest
    larger = builder.select(builder.icmp_signed(">", *sizes), *sizes)
    largest = ir.call(builder, "llvm.vector.reduce.smax.v16i32", ir.Int32, larger)
    largest = builder.bitcast(largest, ir.Float)
    scale = builder.fdiv(largest, ir.constant(ir.Float, float(LARGEST_CODE)))
    is_finite = builder.fcmp_ordered("<", largest, ir.constant(ir.Float, math.inf))
    has_scale = builder.and_(is_finite, builder.fcmp_ordered(">", largest, ir.constant(ir.Float, NOTHING)))
    inverse = builder.select(has_scale, builder.fdiv(ir.constant(ir.Float, 1.0), scale), ir.constant(ir.Float, 0.0))
    nothing = builder.select(is_finite, ir.constant(ir.Float, 0.0), ir.constant(ir.Float, math.nan))
    scale = builder.select(has_scale, scale, nothing)
    sums = []
    for place, part in ((0, low), (16, high)):
        moved = builder.fadd(builder.fmul(part, ir.splat(builder, inverse)), ir.constant(ir.Floats, WHOLE["float32"]))
        codes = builder.sub(builder.bitcast(moved, ir.Ints), ir.constant(ir.Ints, _WHOLE_BITS))
        ir.store(builder, ir.offset(builder, out, place), builder.trunc(codes, ir.Vector(ir.Int8, ir.LANES)))
        sums.append(ir.call(builder, "llvm.vector.reduce.add.v16i32", ir.Int32, codes))
    total = builder.add(*sums)
    fields = {
        X_SCALE: scale,
        X_MINUS_8: builder.mul(total, ir.constant(ir.Int32, -8)),
        X_MINUS_128: builder.mul(total, ir.constant(ir.Int32, -128)),
        X_SCALED_SUM: builder.fmul(scale, builder.sitofp(total, ir.Float)),
    }
    fields |= {
        place: builder.mul(each, ir.constant(ir.Int32, -32))
        for place, each in zip(X_MINUS_32_OF_HALVES, sums, strict=True)
    }
    for place, value in fields.items():
        ir.store(builder, ir.offset(builder, out, place), value)


round_group = named_word(_round_group, "round_group", 2)


@inlined
def _clear(out):
    """Writes a group of zeros."""
    for place in range(0, X_BYTES, 8):
        store_word(out + place, 0)


def rounded(row, chunk, chunks):
    """1 x, 2 x stride, 3 tokens, 4 words of the norm (0: none), 5 columns, a multiple of 32, 6 out, 7 out stride,
    8 groups of a row of `out`; groups after the last column are zeros, 9 scratch, 10 scratch bytes per chunk.

    A chunk is a part of the tokens, or without a norm a part of the groups of all tokens, so that one token keeps all
    threads busy."""
    x, x_stride, tokens, norm = load_word(row + 8), load_word(row + 16), load_word(row + 24), load_word(row + 32)
    columns, out, out_stride, groups = (
        load_word(row + 40),
        load_word(row + 48),
        load_word(row + 56),
        load_word(row + 64),
    )
    normed = load_word(row + 72) + chunk * load_word(row + 80)
    parts = groups if norm == 0 else 1
    width = groups // parts
    for unit in range(tokens * parts * chunk // chunks, tokens * parts * (chunk + 1) // chunks):
        token, first = unit // parts, unit % parts
        source = x + token * x_stride
        if norm != 0:
            normalise(norm, 0, source, x_stride, normed, 4 * columns, columns, 0, 1)
            source = normed
        target = out + token * out_stride
        for group in range(first, first + width):
            if group * GROUP < columns:
                round_group(source + 4 * GROUP * group, target + X_BYTES * group)
            else:
                _clear(target + X_BYTES * group)
