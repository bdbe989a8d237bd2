"""The writing of keys and values into their blocks, rounded to q8_0.

Owns: the kernel of `kv_write` for such a cache, with rotary embedding of the keys optionally fused in. Definitions:
`quantize` in `ferrum.tensor.kv_q8`, whose bits these are, `rope` in `ferrum.tensor.compositions`.
Next: `ferrum.backends.numba_kernels.splits`.
"""

from __future__ import annotations

import math

from numba import types
from numba.core import cgutils

from ferrum.backends.numba_kernels import ir
from ferrum.backends.numba_kernels.features import HAS_HALF
from ferrum.backends.numba_kernels.pages_q8 import BESIDE, GROUP
from ferrum.backends.numba_kernels.simd import Index, load_word, word
from ferrum.backends.numba_kernels.writing import new_head
from ferrum.tensor.kv_q8 import LARGEST_CODE, LARGEST_SCALE, TO_WHOLE

_SIZE = 0x7FFFFFFF
_Bytes, _Fours = ir.Vector(ir.Int8, ir.LANES), ir.Vector(ir.Int32, ir.LANES // BESIDE)


@word(types.void, *[Index] * 6)
def round_head(builder, source, codes, step, scales, scale_step, groups):
    """`groups` times 32 floats: to codes, four of them every `step` bytes, and to a float16 every `scale_step` bytes.
    Where the target has no conversion to float16 no such cache comes to the kernels."""
    if not HAS_HALF:
        return

    def number(value: float) -> object:
        return ir.constant(ir.Floats, value)

    with cgutils.for_range(builder, groups) as loop:
        start = builder.add(source, ir.scaled(builder, loop.index, 4 * GROUP))
        parts = [ir.load(builder, ir.offset(builder, start, distance), ir.Floats) for distance in (0, 64)]
        # sizes as whole numbers are in the order of what they stand for, and NaN is above all
        sizes = [builder.and_(builder.bitcast(part, ir.Ints), ir.constant(ir.Ints, _SIZE)) for part in parts]
        larger = builder.select(builder.icmp_signed(">", *sizes), *sizes)
        largest = builder.bitcast(ir.call(builder, "llvm.vector.reduce.smax.v16i32", ir.Int32, larger), ir.Float)
        scale = builder.fdiv(largest, ir.constant(ir.Float, float(LARGEST_CODE)))
        fits = builder.fcmp_ordered("<=", scale, ir.constant(ir.Float, LARGEST_SCALE))
        stored = builder.select(fits, builder.fptrunc(scale, ir.Half), ir.constant(ir.Half, math.nan))
        ir.store(builder, builder.add(scales, builder.mul(loop.index, scale_step)), stored)
        scale = ir.splat(builder, builder.fpext(stored, ir.Float))
        used = builder.fcmp_ordered(">", scale, number(0.0))
        for half, part in enumerate(parts):
            steps = builder.select(used, builder.fdiv(part, scale), number(0.0))
            steps = builder.select(
                builder.fcmp_ordered("<", steps, number(-LARGEST_CODE)), number(-LARGEST_CODE), steps
            )
            steps = builder.select(builder.fcmp_ordered(">", steps, number(LARGEST_CODE)), number(LARGEST_CODE), steps)
            # the lowest byte of the sum is the code: the rest of its bits are those of TO_WHOLE
            moved = builder.bitcast(builder.fadd(steps, number(TO_WHOLE)), ir.Ints)
            fours = builder.bitcast(builder.trunc(moved, _Bytes), _Fours)
            for lane in range(_Fours.count):
                index = ir.offset(builder, ir.scaled(builder, loop.index, GROUP // BESIDE), _Fours.count * half + lane)
                value = builder.extract_element(fours, ir.constant(ir.Int32, lane))
                ir.store(builder, builder.add(codes, builder.mul(index, step)), value)


def kv_write_q8(row, chunk, chunks):
    """Words as for `writing.kv_write`, whose 18th has no say; 19 scales of keys, 20 of values (cache)."""
    tokens, kv_heads, head_dim, block_size = (
        load_word(row + 64),
        load_word(row + 72),
        load_word(row + 80),
        load_word(row + 88),
    )
    groups = head_dim // GROUP
    for unit in range(tokens * kv_heads * chunk // chunks, tokens * kv_heads * (chunk + 1) // chunks):
        key, value, pair, offset = new_head(row, unit, chunk)
        key_place = load_word(row + 8) + pair * head_dim * block_size + BESIDE * offset
        value_place = load_word(row + 16) + (pair * block_size + offset) * head_dim
        scale_place = 2 * (pair * groups * block_size + offset)
        round_head(key, key_place, BESIDE * block_size, load_word(row + 152) + scale_place, 2 * block_size, groups)
        round_head(value, value_place, BESIDE, load_word(row + 160) + scale_place, 2 * block_size, groups)
