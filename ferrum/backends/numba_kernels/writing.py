"""The writing of keys and values into their blocks.

Owns: the kernel of `kv_write`, with rotary embedding of the keys optionally fused in. Definitions: `kv_write` and
`rope` in `ferrum.tensor.compositions`.
Next: `ferrum.backends.numba_kernels.writing_q8`.
"""

from __future__ import annotations

import numpy as np

from ferrum.backends.numba_kernels.moves import copy, copy_to_half, rotate
from ferrum.backends.numba_kernels.simd import inlined, load_int32, load_word


@inlined
def new_head(row, unit, chunk):
    """-> the key of one head of a token, rotated if it is to be, its value, and where they go: which block and head,
    and which position of it. `row`: as for `kv_write`; `unit` counts the heads of all tokens."""
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
    7 slots (int32), 8 tokens, 9 kv_heads, 10 head_dim, 11 block_size, 12 half of rotary_dim (0: no rotation),
    13 cos, 14 sin, 15 positions (int32), 16 scratch, 17 scratch bytes per chunk, 18 bytes of a number in the cache"""
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
