"""Paged attention over a whole context, split by split.

Owns: the kernel of `paged_attention`, which may rotate the queries first. Definitions: `ferrum.tensor.attention` and
the methods `rope` and `rope_attention` of `ferrum.tensor.compositions`.
Papers: online softmax 1805.02867, PagedAttention 2309.06180.

A context is cut into splits of 128 positions, counted from its start. The softmax of a split is computed at once;
splits are merged in order, each time with the larger of both maxima. Either one thread computes all splits of a tile,
or each split is a unit of work and `merge_attention` merges them afterwards. Both ways do the same arithmetic and give
the same bits: a split that a row may not see is merged with the factor 1 and adds 0.
Next: `ferrum.backends.numba_kernels.compiled.primitives`.
"""

from __future__ import annotations

import numpy as np

from ferrum.backends.numba_kernels.compiled.copies import rotate
from ferrum.backends.numba_kernels.compiled.simd import (
    call3,
    call6,
    exp,
    fma,
    inlined,
    load,
    load_float,
    load_int32,
    load_word,
    max_lanes,
    mul,
    splat,
    store,
    store_float,
    zeros,
)
from ferrum.backends.numba_kernels.compiled.splits import NEVER, reach
from ferrum.backends.numba_kernels.sizes import NO_WINDOW, PAGE, QUERY_ROWS, SPLIT


@inlined
def _merge(out, maxima, part, part_maxima, rows, padded):
    """Adds the outputs, maxima and sums of one split to those of all splits before it."""
    for m in range(rows):
        old, new = load_float(maxima + 4 * m), load_float(part_maxima + 4 * m)
        maximum = max(old, new)
        old_factor, new_factor = exp(splat(old - maximum)), exp(splat(new - maximum))
        for i in range(4 * padded * m, 4 * padded * (m + 1), 64):
            store(out + i, fma(load(part + i), new_factor, mul(load(out + i), old_factor)))
        sums, part_sums = maxima + 4 * (QUERY_ROWS + m), part_maxima + 4 * (QUERY_ROWS + m)
        total = load_float(sums) * max_lanes(old_factor) + load_float(part_sums) * max_lanes(new_factor)
        store_float(sums, total)
        store_float(maxima + 4 * m, maximum)


# ---- units: a tile of the batch, a key/value head, some splits
@inlined
def _initialise(tile, rows, padded, sinks, first_row, group):
    """Writes the state of a tile before its first split: no position, or the sink of each head, whose value is 0.
    `sinks`: the address of the sinks of the tile's heads, or 0. -> the addresses of the outputs, and of the maxima and
    sums."""
    out = tile + 4 * QUERY_ROWS * padded
    maxima = tile + 4 * (3 * QUERY_ROWS * padded + 2 * PAGE * padded + QUERY_ROWS * SPLIT)
    for i in range(0, 4 * padded * rows, 64):
        store(out + i, zeros())
    for m in range(rows):
        highest, total = NEVER, np.float32(0)
        if sinks != 0:
            highest, total = load_float(sinks + 4 * ((first_row + m) % group)), np.float32(1)
        store_float(maxima + 4 * m, highest)
        store_float(maxima + 4 * (QUERY_ROWS + m), total)
    return out, maxima


@inlined
def _attend(row, entry, head, first_split, end_split, tile):
    """Computes the splits first_split..end_split of a tile. The outputs, maxima and sums stay in `tile`."""
    heads, kv_heads, head_dim = load_word(row + 88), load_word(row + 96), load_word(row + 104)
    half, scale = load_word(row + 120), load_float(row + 152)
    group, padded = heads // kv_heads, (head_dim + 15) // 16 * 16
    token, first_row = load_int32(entry + 4), load_int32(entry + 12)
    rows, first_new, first, end = reach(row, entry)
    sinks, growth = load_word(row + 216), load_word(row + 224)
    if sinks != 0:  # if splits are merged later, the merge adds the sink
        sinks = sinks + 4 * group * head if load_word(row + 192) == 1 else 0
    out, maxima = _initialise(tile, rows, padded, sinks, first_row, group)
    for m in range(rows):
        step, lane = (first_row + m) // group, head * group + (first_row + m) % group
        source = load_word(row + 24) + (token + step) * load_word(row + 32) + 4 * lane * head_dim
        turn = 4 * half * (first_new + step)
        cos, sin = load_word(row + 128) + turn, load_word(row + 136) + turn
        if growth != 0:
            scale = load_float(row + 152) * load_float(growth + 4 * (first_new + step))
        rotate(source, tile + 4 * padded * m, head_dim, half, cos, sin, scale)
    if load_word(row + 248) != 0:
        call3(load_word(row + 248), tile, rows, head_dim)
    for split in range(max(first_split, first // SPLIT), min(end_split, (end + SPLIT - 1) // SPLIT)):
        begin, stop = max(first, split * SPLIT), min(end, (split + 1) * SPLIT)
        call6(load_word(row + 208), row, entry, head, begin, stop, tile)
        _merge(out, maxima, out + 4 * QUERY_ROWS * padded, maxima + 8 * QUERY_ROWS, rows, padded)


@inlined
def _finish(row, entry, head, out, maxima):
    """Divides the outputs of a tile by their sums and writes them to the result."""
    heads, kv_heads, head_dim = load_word(row + 88), load_word(row + 96), load_word(row + 104)
    group, padded = heads // kv_heads, (head_dim + 15) // 16 * 16
    token, first_row = load_int32(entry + 4), load_int32(entry + 12)
    rows = min(QUERY_ROWS, load_int32(entry + 8) * group - first_row)
    for m in range(rows):
        scale = np.float32(1) / load_float(maxima + 4 * (QUERY_ROWS + m))
        step, lane = (first_row + m) // group, head * group + (first_row + m) % group
        target = load_word(row + 40) + 4 * ((token + step) * heads + lane) * head_dim
        source = out + 4 * padded * m
        for i in range(head_dim):
            store_float(target + 4 * i, load_float(source + 4 * i) * scale)


# ---- kernels
def attention(row, chunk, chunks):
    """The kernel of `paged_attention` and `rope_attention`.

    1 keys, 2 values (cache), 3 query, 4 query stride, 5 out (contiguous [tokens, heads * head_dim]), 6 tiles (int32
    [count, 4]: sequence, first packed token, tokens, first row of the tile within the sequence), 7 count of tiles,
    8 block tables (int32), 9 their width, 10 context lengths (int32), 11 heads, 12 kv_heads, 13 head_dim,
    14 block_size, 15 half of rotary_dim (0: no rotation), 16 cos, 17 sin, 18 window, 19 scale, 20 softcap (0: none)
    (float bits both), 21 scratch, 22 scratch bytes per chunk, 23 bytes of a number in the cache, 24 splits that are
    units of their own (1: a unit computes all splits of a tile), 25 states [tiles, kv_heads, splits] for
    `merge_attention`, 26 address of `attend_split`, 27 sinks (float32 [heads], 0: none),
    28 growth of queries (float32 [positions], 0: none), 29 scales of keys, 30 of values (cache; 0: there are none),
    31 address of the function that rounds the queries of a tile (0: they are not rounded).

    A unit is a tile times a key/value head: up to six query rows of one sequence that read the same keys. Chunk i
    computes the units i, i + chunks, i + 2 chunks, …, because later tiles of a prompt see more positions and take
    longer."""
    kv_heads, head_dim, splits = load_word(row + 96), load_word(row + 104), load_word(row + 192)
    padded = (head_dim + 15) // 16 * 16
    tile = load_word(row + 168) + chunk * load_word(row + 176)
    out = tile + 4 * QUERY_ROWS * padded
    maxima = tile + 4 * (3 * QUERY_ROWS * padded + 2 * PAGE * padded + QUERY_ROWS * SPLIT)
    for unit in range(chunk, load_word(row + 56) * kv_heads * splits, chunks):
        entry, head = load_word(row + 48) + 16 * (unit // splits // kv_heads), unit // splits % kv_heads
        first_split, end_split = (0, NO_WINDOW) if splits == 1 else (unit % splits, unit % splits + 1)
        _attend(row, entry, head, first_split, end_split, tile)
        if splits == 1:
            _finish(row, entry, head, out, maxima)
        else:
            state = load_word(row + 200) + unit * 4 * (QUERY_ROWS * padded + 16)
            for i in range(0, 4 * QUERY_ROWS * padded, 64):
                store(state + i, load(out + i))
            store(state + 4 * QUERY_ROWS * padded, load(maxima))


def merge_attention(row, chunk, chunks):
    """Merges the splits that `attention` computed, in order. Words as for `attention`."""
    kv_heads, head_dim, splits = load_word(row + 96), load_word(row + 104), load_word(row + 192)
    padded = (head_dim + 15) // 16 * 16
    tile = load_word(row + 168) + chunk * load_word(row + 176)
    for unit in range(chunk, load_word(row + 56) * kv_heads, chunks):
        entry = load_word(row + 48) + 16 * (unit // kv_heads)
        rows, _, first, end = reach(row, entry)
        sinks, group = load_word(row + 216), load_word(row + 88) // kv_heads
        if sinks != 0:
            sinks += 4 * group * (unit % kv_heads)
        out, maxima = _initialise(tile, rows, padded, sinks, load_int32(entry + 12), group)
        for split in range(first // SPLIT, (end + SPLIT - 1) // SPLIT):
            state = load_word(row + 200) + (unit * splits + split) * 4 * (QUERY_ROWS * padded + 16)
            _merge(out, maxima, state, state + 4 * QUERY_ROWS * padded, rows, padded)
        _finish(row, entry, unit % kv_heads, out, maxima)
