"""Paged attention with online softmax, and the writing of keys and values.

Owns: the kernels of `kv_write` and `paged_attention`, each with rotary embedding optionally fused in. Definitions:
`ferrum.tensor.attention` and the methods `rope`, `kv_write`, `rope_attention` of `ferrum.tensor.compositions`.
Papers: online softmax 1805.02867, PagedAttention 2309.06180, FlashAttention 2205.14135.

Positions are taken in runs of 16, counted from the start of the sequence. Where a run lies in one block as the tile
wants it, it is read in place; otherwise (block size or head_dim no multiple of 16) it is gathered into scratch first.
The arithmetic, and so the bits, are the same either way. A position that a row may not see contributes exp(-inf) = 0
and a factor of 1, so a row's bits do not depend on the rows beside it.
Next: `ferrum.backends.numba_kernels.launch`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ferrum.backends.numba_kernels.pages import QUERY_ROWS, WIDE, score_page, weigh_page_narrow, weigh_page_wide
from ferrum.backends.numba_kernels.simd import (
    add,
    div,
    exp,
    keep_lanes,
    load,
    load_float,
    load_int32,
    load_word,
    max_lanes,
    mul,
    prefetch,
    splat,
    store,
    store_float,
    sub,
    sum_lanes,
    zeros,
)

RUN = 16
NEVER = np.float32(-1e30)
"""Score of what may not be seen: finite, so that differences of two such scores are defined."""


def scratch_bytes(head_dim: int) -> int:
    """Private memory of a chunk: see `_attend_tile`."""
    padded = -(-head_dim // 16) * 16
    return 4 * (2 * QUERY_ROWS * padded + 2 * RUN * padded + QUERY_ROWS * (RUN + 3) + 64)


# ---- building blocks
@njit(cache=True, error_model="numpy")
def _rotate(source, target, head_dim, half, cos, sin, scale):
    """One head: dimensions i and i + half turn by angle i; the rest passes. All times `scale`."""
    for i in range(half):
        c, s = load_float(cos + 4 * i), load_float(sin + 4 * i)
        first, second = load_float(source + 4 * i), load_float(source + 4 * (i + half))
        store_float(target + 4 * i, (first * c - second * s) * scale)
        store_float(target + 4 * (i + half), (second * c + first * s) * scale)
    for i in range(2 * half, head_dim):
        store_float(target + 4 * i, load_float(source + 4 * i) * scale)


@njit(cache=True, error_model="numpy")
def _write_one(
    key, value, keys, values, block, offset, head, kv_heads, head_dim, block_size, half, cos, sin, temporary
):
    """Rotate one key (half > 0) and put it and its value into their slot."""
    if half > 0:
        _rotate(key, temporary, head_dim, half, cos, sin, np.float32(1))
        key = temporary
    place = keys + 4 * ((block * kv_heads + head) * head_dim * block_size + offset)
    for i in range(head_dim):
        store_float(place + 4 * block_size * i, load_float(key + 4 * i))
    place = values + 4 * ((block * kv_heads + head) * block_size + offset) * head_dim
    for i in range(head_dim):
        store_float(place + 4 * i, load_float(value + 4 * i))


@njit(cache=True, error_model="numpy")
def _gather(keys, values, table, head, kv_heads, head_dim, block_size, begin, end, run_keys, run_values, padded):
    """Positions begin..end (at most 16) of one head into [head_dim, 16] and [16, padded]; the rest becomes 0."""
    for i in range(0, 64 * padded, 64):
        store(run_keys + i, zeros())
        store(run_values + i, zeros())
    for position in range(begin, end):
        lane = position - begin
        block, offset = load_int32(table + 4 * (position // block_size)), position % block_size
        head_block = block * kv_heads + head
        source = keys + 4 * (head_block * head_dim * block_size + offset)
        for i in range(head_dim):
            store_float(run_keys + 64 * i + 4 * lane, load_float(source + 4 * block_size * i))
        source = values + 4 * (head_block * block_size + offset) * head_dim
        for i in range(head_dim):
            store_float(run_values + 4 * (padded * lane + i), load_float(source + 4 * i))


@njit(cache=True, error_model="numpy")
def _cap(scores, softcap):
    """softcap * tanh(scores / softcap), tanh(x) being 1 - 2 / (exp(2 x) + 1)"""
    one, cap = splat(np.float32(1)), splat(softcap)
    doubled = mul(scores, splat(np.float32(2) / softcap))
    return mul(cap, sub(one, div(splat(np.float32(2)), add(exp(doubled), one))))


@njit(cache=True, error_model="numpy")
def _fold_run(scores, maxima, sums, decay, row, first, end, softcap):
    """One row's scores of a run -> weights, in place; updates its running maximum, sum and decay factor."""
    found = load(scores + 64 * row)
    if softcap > 0:
        found = _cap(found, softcap)
    found = keep_lanes(found, first, end, NEVER)
    old = load_float(maxima + 4 * row)
    maximum = max(old, max_lanes(found))
    factor = max_lanes(exp(splat(old - maximum)))
    weights = keep_lanes(exp(sub(found, splat(maximum))), first, end, np.float32(0))
    store(scores + 64 * row, weights)
    store_float(maxima + 4 * row, maximum)
    store_float(decay + 4 * row, factor)
    store_float(sums + 4 * row, load_float(sums + 4 * row) * factor + sum_lanes(weights))


@njit(cache=True, error_model="numpy")
def _weigh_run(scores, values, value_stride, decay, out, padded, positions, rows):
    """All output columns: four vectors at a time, then one."""
    column = 0
    while column + 16 * WIDE <= padded:
        weigh_page_wide(scores, values + 4 * column, value_stride, decay, out + 4 * column, 4 * padded, positions, rows)
        column += 16 * WIDE
    while column < padded:
        weigh_page_narrow(
            scores, values + 4 * column, value_stride, decay, out + 4 * column, 4 * padded, positions, rows
        )
        column += 16


@njit(cache=True, error_model="numpy")
def _fetch_ahead(shape, keys, values, table, head, begin):
    """Ask for the keys and values of the run at `begin`: blocks lie anywhere, so the hardware cannot foresee them."""
    kv_heads, head_dim, block_size = shape
    head_block = load_int32(table + 4 * (begin // block_size)) * kv_heads + head
    offset = begin % block_size
    page_keys = keys + 4 * (head_block * head_dim * block_size + offset)
    page_values = values + 4 * (head_block * block_size + offset) * head_dim
    for line in range(head_dim):
        prefetch(page_keys + 4 * block_size * line)
        prefetch(page_values + 64 * line)


@njit(cache=True, error_model="numpy")
def _attend_tile(shape, keys, values, table, head, rows, first_row, group, base, window, softcap, tile, padded):
    """Online softmax over the context for query rows already rotated and scaled in `tile`.

    Row m is query token (first_row + m) // group, whose position is base + that token; it sees positions up to its own
    and at most `window` of them. tile: queries [6, padded], outputs [6, padded], run keys [padded, 16], run values
    [16, padded], scores [6, 16], then maxima, sums, decay [6] each. Leaves normalised outputs."""
    kv_heads, head_dim, block_size = shape
    out = tile + 4 * QUERY_ROWS * padded
    run_keys = out + 4 * QUERY_ROWS * padded
    run_values = run_keys + 64 * padded
    scores = run_values + 64 * padded
    maxima = scores + 64 * QUERY_ROWS
    sums, decay = maxima + 4 * QUERY_ROWS, maxima + 8 * QUERY_ROWS
    for m in range(rows):
        store_float(maxima + 4 * m, NEVER)
        store_float(sums + 4 * m, np.float32(0))
        for i in range(0, 4 * padded, 64):
            store(out + 4 * padded * m + i, zeros())
    context = base + (first_row + rows - 1) // group + 1  # positions the last row sees
    oldest = max(0, base + first_row // group + 1 - window)  # first position any row sees
    in_place = block_size % RUN == 0 and head_dim % RUN == 0
    for begin in range(oldest // RUN * RUN, context, RUN):
        count = min(RUN, context - begin)
        if in_place:
            head_block = load_int32(table + 4 * (begin // block_size)) * kv_heads + head
            offset = begin % block_size
            page_keys = keys + 4 * (head_block * head_dim * block_size + offset)
            page_values = values + 4 * (head_block * block_size + offset) * head_dim
            key_stride = 4 * block_size
            if begin + RUN < context:
                _fetch_ahead(shape, keys, values, table, head, begin + RUN)
        else:
            _gather(
                keys, values, table, head, kv_heads, head_dim, block_size, begin, begin + count,
                run_keys, run_values, padded,
            )  # fmt: skip
            page_keys, page_values, key_stride = run_keys, run_values, 64
        score_page(tile, 4 * padded, page_keys, key_stride, head_dim, scores, rows)
        for m in range(rows):
            own = base + (first_row + m) // group
            _fold_run(scores, maxima, sums, decay, m, own + 1 - window - begin, own + 1 - begin, softcap)
        _weigh_run(scores, page_values, 4 * padded, decay, out, padded, count, rows)
    for m in range(rows):
        scale = splat(np.float32(1) / load_float(sums + 4 * m))
        for i in range(0, 4 * padded, 64):
            place = out + 4 * padded * m + i
            store(place, mul(load(place), scale))


# ---- kernels
def kv_write(row, chunk, chunks):
    """1 keys, 2 values (cache), 3 key, 4 key stride, 5 value, 6 value stride (new ones, [tokens, kv_heads * head_dim]),
    7 slots (int32), 8 tokens, 9 kv_heads, 10 head_dim, 11 block_size, 12 half of rotary_dim (0: no rotation),
    13 cos, 14 sin, 15 positions (int32), 16 scratch, 17 scratch bytes per chunk"""
    key, value, slots, tokens = load_word(row + 24), load_word(row + 40), load_word(row + 56), load_word(row + 64)
    kv_heads, head_dim, block_size = load_word(row + 72), load_word(row + 80), load_word(row + 88)
    half, cos, sin, positions = load_word(row + 96), load_word(row + 104), load_word(row + 112), load_word(row + 120)
    temporary = load_word(row + 128) + chunk * load_word(row + 136)
    for unit in range(tokens * kv_heads * chunk // chunks, tokens * kv_heads * (chunk + 1) // chunks):
        token, head = unit // kv_heads, unit % kv_heads
        slot = load_int32(slots + 4 * token)
        turn = 4 * half * load_int32(positions + 4 * token) if half > 0 else 0
        _write_one(
            key + token * load_word(row + 32) + 4 * head * head_dim,
            value + token * load_word(row + 48) + 4 * head * head_dim,
            load_word(row + 8), load_word(row + 16), slot // block_size, slot % block_size, head, kv_heads, head_dim,
            block_size, half, cos + turn, sin + turn, temporary,
        )  # fmt: skip


@njit(cache=True, error_model="numpy")
def _attend_unit(row, entry, head, tile):
    """One tile of the row's tile list for one key/value head, from its queries to its outputs."""
    heads, kv_heads, head_dim = load_word(row + 88), load_word(row + 96), load_word(row + 104)
    query, query_stride, out = load_word(row + 24), load_word(row + 32), load_word(row + 40)
    half, scale = load_word(row + 120), load_float(row + 152)
    group, padded = heads // kv_heads, (head_dim + 15) // 16 * 16
    sequence, token, tokens, first_row = (
        load_int32(entry), load_int32(entry + 4), load_int32(entry + 8), load_int32(entry + 12),
    )  # fmt: skip
    rows = min(QUERY_ROWS, tokens * group - first_row)
    base = load_int32(load_word(row + 80) + 4 * sequence) - tokens
    for m in range(rows):
        step, lane = (first_row + m) // group, head * group + (first_row + m) % group
        source = query + (token + step) * query_stride + 4 * lane * head_dim
        turn = 4 * half * (base + step)
        cos, sin = load_word(row + 128) + turn, load_word(row + 136) + turn
        _rotate(source, tile + 4 * padded * m, head_dim, half, cos, sin, scale)
    table = load_word(row + 64) + 4 * load_word(row + 72) * sequence
    shape = (kv_heads, head_dim, load_word(row + 112))
    _attend_tile(
        shape, load_word(row + 8), load_word(row + 16), table, head, rows, first_row, group, base,
        load_word(row + 144), load_float(row + 160), tile, padded,
    )  # fmt: skip
    for m in range(rows):
        step, lane = (first_row + m) // group, head * group + (first_row + m) % group
        target = out + 4 * ((token + step) * heads + lane) * head_dim
        source = tile + 4 * padded * (QUERY_ROWS + m)
        for i in range(head_dim):
            store_float(target + 4 * i, load_float(source + 4 * i))


def attention(row, chunk, chunks):
    """1 keys, 2 values (cache), 3 query, 4 query stride, 5 out (contiguous [tokens, heads * head_dim]), 6 tiles (int32
    [count, 4]: sequence, first packed token, tokens, first row of the tile within the sequence), 7 count of tiles,
    8 block tables (int32), 9 their width, 10 context lengths (int32), 11 heads, 12 kv_heads, 13 head_dim,
    14 block_size, 15 half of rotary_dim (0: no rotation), 16 cos, 17 sin, 18 window, 19 scale, 20 softcap (0: none)
    (float bits both), 21 scratch, 22 scratch bytes per chunk.

    A unit is a tile times a key/value head: up to six query rows of one sequence that read the same keys. Units are
    dealt round robin, because later tiles of a prompt see more."""
    kv_heads = load_word(row + 96)
    tile = load_word(row + 168) + chunk * load_word(row + 176)
    for unit in range(chunk, load_word(row + 56) * kv_heads, chunks):
        _attend_unit(row, load_word(row + 48) + 16 * (unit // kv_heads), unit % kv_heads, tile)


def write_attention(row, chunk, chunks):
    """`kv_write` and `attention` in one launch, for batches in which one tile holds all new tokens of its sequence: a
    unit then writes the very keys and values that nobody else reads. Words as for `attention`, and 23 key, 24 value,
    25 their stride, 26 slots (int32)."""
    kv_heads, head_dim, block_size = load_word(row + 96), load_word(row + 104), load_word(row + 112)
    half, tile = load_word(row + 120), load_word(row + 168) + chunk * load_word(row + 176)
    for unit in range(chunk, load_word(row + 56) * kv_heads, chunks):
        entry, head = load_word(row + 48) + 16 * (unit // kv_heads), unit % kv_heads
        sequence, first, tokens = load_int32(entry), load_int32(entry + 4), load_int32(entry + 8)
        base = load_int32(load_word(row + 80) + 4 * sequence) - tokens
        for step in range(tokens):
            slot, turn = load_int32(load_word(row + 208) + 4 * (first + step)), 4 * half * (base + step)
            place = (first + step) * load_word(row + 200) + 4 * head * head_dim
            _write_one(
                load_word(row + 184) + place, load_word(row + 192) + place, load_word(row + 8), load_word(row + 16),
                slot // block_size, slot % block_size, head, kv_heads, head_dim, block_size, half,
                load_word(row + 128) + turn, load_word(row + 136) + turn, tile,
            )  # fmt: skip
        _attend_unit(row, entry, head, tile)


NO_WINDOW = 1 << 30
"""A window that no context reaches."""
