"""Writing of keys and values to their slots in the KV cache.

Owns: the kernels of `kv_write`, which may rotate the keys first: one for caches of float32 and float16, one for q8_0.
Definitions: `kv_write` and `rope` in `ferrum.tensor.compositions`, `quantize` in `ferrum.tensor.kv_q8`.
Next: `ferrum.backends.numba_kernels.compiled.splits`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.core import cgutils

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.copies import copy, copy_to_half, rotate
from ferrum.backends.numba_kernels.compiled.pages_q8 import GROUP, KEY_CODES
from ferrum.backends.numba_kernels.compiled.simd import Index, inlined, load_int32, load_word, word
from ferrum.backends.numba_kernels.loading.features import HAS_HALF
from ferrum.tensor.kv_q8 import LARGEST_CODE, LARGEST_SCALE, TO_WHOLE

_SIZE = 0x7FFFFFFF
_Bytes, _Fours = ir.Vector(ir.Int8, ir.LANES), ir.Vector(ir.Int32, ir.LANES // KEY_CODES)


@inlined
def new_head(row, unit, chunk):
    """-> addresses of the new key (rotated, if there is a rotation) and value of one head of a token, the number of the
    (block, head) pair that they are written to, and their offset in the block. `row`: as for `kv_write`; `unit`: token
    * kv_heads + head."""
    kv_heads, head_dim, block_size, half = (
        load_word(row + 72),
        load_word(row + 80),
        load_word(row + 88),
        load_word(row + 96),
    )
    token, head = unit // kv_heads, unit % kv_heads
    slot = load_int32(load_word(row + 56) + 4 * token)
    key = load_word(row + 24) + token * load_word(row + 32) + 4 * head * head_dim
    value = load_word(row + 40) + token * load_word(row + 48) + 4 * head * head_dim
    if half > 0:
        turn = 4 * half * load_int32(load_word(row + 120) + 4 * token)
        rotated = load_word(row + 128) + chunk * load_word(row + 136)
        cos, sin = load_word(row + 104) + turn, load_word(row + 112) + turn
        rotate(key, rotated, head_dim, half, cos, sin, np.float32(1))
        key = rotated
    return key, value, slot // block_size * kv_heads + head, slot % block_size


def kv_write(row, chunk, chunks):
    """1 keys, 2 values (cache), 3 key, 4 key stride, 5 value, 6 value stride (new ones, [tokens, kv_heads * head_dim]),
    7 slots (int32), 8 tokens, 9 kv_heads, 10 head_dim, 11 block_size, 12 half of rotary_dim (0: no rotation), 13 cos,
    14 sin, 15 positions (int32), 16 scratch, 17 scratch bytes per chunk, 18 bytes of a number in the cache"""
    tokens, kv_heads, head_dim, block_size = (
        load_word(row + 64),
        load_word(row + 72),
        load_word(row + 80),
        load_word(row + 88),
    )
    element = load_word(row + 144)
    for unit in range(tokens * kv_heads * chunk // chunks, tokens * kv_heads * (chunk + 1) // chunks):
        key, value, pair, offset = new_head(row, unit, chunk)
        key_place = load_word(row + 8) + element * (pair * head_dim * block_size + offset)
        value_place = load_word(row + 16) + element * (pair * block_size + offset) * head_dim
        if element == 4:
            copy(key, 4, key_place, 4 * block_size, head_dim)
            copy(value, 4, value_place, 4, head_dim)
        else:
            copy_to_half(key, 4, key_place, 2 * block_size, head_dim)
            copy_to_half(value, 4, value_place, 2, head_dim)


# ---- q8_0
@word(types.void, *[Index] * 6)
def round_head(builder, source, codes, step, scales, scale_step, groups):
    """Rounds `groups` times 32 floats to q8_0: four codes every `step` bytes, and a float16 scale every `scale_step`
    bytes. Targets without conversion to float16 do not use kernels for such caches."""
    if not HAS_HALF:
        return

    def number(value: float) -> object:
        return ir.constant(ir.Floats, value)

    with cgutils.for_range(builder, groups) as loop:
        start = builder.add(source, ir.scaled(builder, loop.index, 4 * GROUP))
        parts = [ir.load(builder, ir.offset(builder, start, distance), ir.Floats) for distance in (0, 64)]
        # the bits of absolute values, as integers, have the same order as the values, and NaN is the largest
        sizes = [builder.and_(builder.bitcast(part, ir.Ints), ir.constant(ir.Ints, _SIZE)) for part in parts]
        larger = builder.select(builder.icmp_signed(">", *sizes), *sizes)
        largest = builder.bitcast(ir.call(builder, "llvm.vector.reduce.smax.v16i32", ir.Int32, larger), ir.Float)
        scale = builder.fdiv(largest, ir.constant(ir.Float, float(LARGEST_CODE)))
        is_storable = builder.fcmp_ordered("<=", scale, ir.constant(ir.Float, LARGEST_SCALE))
        stored = builder.select(is_storable, builder.fptrunc(scale, ir.Half), ir.constant(ir.Half, math.nan))
        ir.store(builder, builder.add(scales, builder.mul(loop.index, scale_step)), stored)
        scale = ir.splat(builder, builder.fpext(stored, ir.Float))
        is_nonzero = builder.fcmp_ordered(">", scale, number(0.0))
        for half, part in enumerate(parts):
            steps = builder.select(is_nonzero, builder.fdiv(part, scale), number(0.0))
            steps = builder.select(
                builder.fcmp_ordered("<", steps, number(-LARGEST_CODE)), number(-LARGEST_CODE), steps
            )
            steps = builder.select(builder.fcmp_ordered(">", steps, number(LARGEST_CODE)), number(LARGEST_CODE), steps)
            # the lowest byte of the sum is the code; the other bits are those of TO_WHOLE
            moved = builder.bitcast(builder.fadd(steps, number(TO_WHOLE)), ir.Ints)
            fours = builder.bitcast(builder.trunc(moved, _Bytes), _Fours)
            for lane in range(_Fours.count):
                index = ir.offset(
                    builder, ir.scaled(builder, loop.index, GROUP // KEY_CODES), _Fours.count * half + lane
                )
                value = builder.extract_element(fours, ir.constant(ir.Int32, lane))
                ir.store(builder, builder.add(codes, builder.mul(index, step)), value)


def kv_write_q8(row, chunk, chunks):
    """Words as for `kv_write`, except 18, which is not read; 19 scales of keys, 20 scales of values (cache)."""
    tokens, kv_heads, head_dim, block_size = (
        load_word(row + 64),
        load_word(row + 72),
        load_word(row + 80),
        load_word(row + 88),
    )
    groups = head_dim // GROUP
    for unit in range(tokens * kv_heads * chunk // chunks, tokens * kv_heads * (chunk + 1) // chunks):
        key, value, pair, offset = new_head(row, unit, chunk)
        key_place = load_word(row + 8) + pair * head_dim * block_size + KEY_CODES * offset
        value_place = load_word(row + 16) + (pair * block_size + offset) * head_dim
        scale_place = 2 * (pair * groups * block_size + offset)
        round_head(key, key_place, KEY_CODES * block_size, load_word(row + 152) + scale_place, 2 * block_size, groups)
        round_head(value, value_place, KEY_CODES, load_word(row + 160) + scale_place, 2 * block_size, groups)
