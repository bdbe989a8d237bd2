"""Paged attention in splits of the context, and the writing of keys and values.

Owns: the kernels of `kv_write` and `paged_attention`, each with rotary embedding optionally fused in. Definitions:
`ferrum.tensor.attention` and the methods `rope`, `kv_write`, `rope_attention` of `ferrum.tensor.compositions`.
Papers: online softmax 1805.02867, PagedAttention 2309.06180, FlashAttention 2205.14135.

A context is cut into splits of 128 positions, counted from its start. The softmax of a split is computed at once;
splits are merged one after the other, each time with the larger of both maxima. Whether one thread walks over all
splits or each split is somebody's unit of work and `merge_attention` comes after them, the arithmetic is the same, and
so are the bits. A split is read in pages of 16 positions: in place where a page lies in one block as the tile wants it,
otherwise (block size or head_dim no multiple of 16) gathered into scratch first. A position that a row may not see
contributes exp(-inf) = 0 and a factor of 1, so a row's bits do not depend on the rows beside it.
Next: `ferrum.backends.numba_kernels.launch`.
"""

from __future__ import annotations

import numpy as np

from ferrum.backends.numba_kernels.pages import (
    PAGE,
    QUERY_ROWS,
    WIDE,
    load_half,
    score_page,
    score_page_half,
    store_half,
    weigh_page_half,
    weigh_page_narrow,
    weigh_page_wide,
)
from ferrum.backends.numba_kernels.simd import (
    add,
    call6,
    div,
    exp,
    fma,
    inlined,
    keep_lanes,
    larger,
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

SPLIT = 128
"""Positions whose softmax is computed at once: their scores and keys stay in the first-level cache."""
NEVER = np.float32(-1e30)
"""Score of what may not be seen: finite, so that differences of two such scores are defined."""
NO_WINDOW = 1 << 30
"""A window that no context reaches."""


def padded_dim(head_dim: int) -> int:
    return -(-head_dim // 16) * 16


def scratch_bytes(head_dim: int) -> int:
    """Private memory of a chunk: see `attend_split`."""
    padded = padded_dim(head_dim)
    return 4 * (3 * QUERY_ROWS * padded + 2 * PAGE * padded + QUERY_ROWS * SPLIT + 4 * QUERY_ROWS + 64)


def state_bytes(head_dim: int) -> int:
    """Memory of one unit's state between a split and the merge: outputs, maxima, sums."""
    return 4 * (QUERY_ROWS * padded_dim(head_dim) + 16)


# ---- rotation and writing
@inlined
def _rotate(source, target, head_dim, half, cos, sin, scale):
    """One head: dimensions i and i + half turn by angle i; the rest passes. All times `scale`."""
    for i in range(half):
        c, s = load_float(cos + 4 * i), load_float(sin + 4 * i)
        first, second = load_float(source + 4 * i), load_float(source + 4 * (i + half))
        store_float(target + 4 * i, (first * c - second * s) * scale)
        store_float(target + 4 * (i + half), (second * c + first * s) * scale)
    for i in range(2 * half, head_dim):
        store_float(target + 4 * i, load_float(source + 4 * i) * scale)


@inlined
def _write_one(key, value, keys, values, block, offset, head, kv_heads, head_dim, block_size, element):
    """Put one key and its value into their slot; `element` bytes a number."""
    key_place = keys + element * ((block * kv_heads + head) * head_dim * block_size + offset)
    value_place = values + element * ((block * kv_heads + head) * block_size + offset) * head_dim
    if element == 4:
        for i in range(head_dim):
            store_float(key_place + 4 * block_size * i, load_float(key + 4 * i))
            store_float(value_place + 4 * i, load_float(value + 4 * i))
    else:
        for i in range(head_dim):
            store_half(key_place + 2 * block_size * i, load_float(key + 4 * i))
            store_half(value_place + 2 * i, load_float(value + 4 * i))


# ---- one split
@inlined
def _gather(keys, values, table, head, shape, begin, end, page_keys, page_values, padded):
    """Positions begin..end (at most 16) of one head into [head_dim, 16] and [16, padded]; the rest becomes 0."""
    kv_heads, head_dim, block_size, element = shape
    for i in range(0, 64 * padded, 64):
        store(page_keys + i, zeros())
        store(page_values + i, zeros())
    for position in range(begin, end):
        lane = position - begin
        block, offset = load_int32(table + 4 * (position // block_size)), position % block_size
        head_block = block * kv_heads + head
        key = keys + element * (head_block * head_dim * block_size + offset)
        value = values + element * (head_block * block_size + offset) * head_dim
        for i in range(head_dim):
            if element == 4:
                store_float(page_keys + 64 * i + 4 * lane, load_float(key + 4 * block_size * i))
                store_float(page_values + 4 * (padded * lane + i), load_float(value + 4 * i))
            else:
                store_float(page_keys + 64 * i + 4 * lane, load_half(key + 2 * block_size * i))
                store_float(page_values + 4 * (padded * lane + i), load_half(value + 2 * i))


@inlined
def _page_place(shape, keys, values, table, head, begin):
    """Addresses of the keys and the values of the page at `begin` where it lies in the cache."""
    kv_heads, head_dim, block_size, element = shape
    head_block = load_int32(table + 4 * (begin // block_size)) * kv_heads + head
    offset = begin % block_size
    return (
        keys + element * (head_block * head_dim * block_size + offset),
        values + element * (head_block * block_size + offset) * head_dim,
    )


@inlined
def _fetch_ahead(shape, keys, values, table, head, begin):
    """Ask for the page at `begin`: blocks lie anywhere, so the hardware cannot foresee them."""
    _, head_dim, block_size, element = shape
    page_keys, page_values = _page_place(shape, keys, values, table, head, begin)
    for line in range(head_dim):
        prefetch(page_keys + element * block_size * line)
    for place in range(0, PAGE * element * head_dim, 64):
        prefetch(page_values + place)


@inlined
def _weigh(weights, values, out, padded, positions, rows, half):
    """All output columns of a page: WIDE vectors at a time, then one."""
    column = 0
    if half:
        while column < padded:
            weigh_page_half(
                weights, 4 * SPLIT, values + 2 * column, 2 * padded, out + 4 * column, 4 * padded, positions, rows
            )
            column += 16
    while column + 16 * WIDE <= padded:
        weigh_page_wide(
            weights, 4 * SPLIT, values + 4 * column, 4 * padded, out + 4 * column, 4 * padded, positions, rows
        )
        column += 16 * WIDE
    while column < padded:
        weigh_page_narrow(
            weights, 4 * SPLIT, values + 4 * column, 4 * padded, out + 4 * column, 4 * padded, positions, rows
        )
        column += 16


@inlined
def _cap(scores, softcap):
    """softcap * tanh(scores / softcap), tanh(x) being 1 - 2 / (exp(2 x) + 1)"""
    one, cap = splat(np.float32(1)), splat(softcap)
    doubled = mul(scores, splat(np.float32(2) / softcap))
    return mul(cap, sub(one, div(splat(np.float32(2)), add(exp(doubled), one))))


@inlined
def _softmax(scores, begin, count, first, end, softcap):
    """One row's scores of a split, the positions begin..count of which were computed, become weights, in place;
    -> their maximum and their sum. Only positions first..end are seen."""
    highest = splat(NEVER)
    for page in range(begin, count, PAGE):
        found = load(scores + 4 * page)
        if softcap > 0:
            found = _cap(found, softcap)
        found = keep_lanes(found, first - page, end - page, NEVER)
        store(scores + 4 * page, found)
        highest = larger(highest, found)
    maximum, sums = max_lanes(highest), zeros()
    for page in range(begin, count, PAGE):
        weights = exp(sub(load(scores + 4 * page), splat(maximum)))
        weights = keep_lanes(weights, first - page, end - page, np.float32(0))
        store(scores + 4 * page, weights)
        sums = add(sums, weights)
    return maximum, sum_lanes(sums)


@inlined
def _reach(row, entry):
    """What the tile at `entry` sees -> rows, position of its sequence's first new token, first and end position."""
    group = load_word(row + 88) // load_word(row + 96)
    sequence, tokens, first_row = load_int32(entry), load_int32(entry + 8), load_int32(entry + 12)
    rows = min(QUERY_ROWS, tokens * group - first_row)
    own = load_int32(load_word(row + 80) + 4 * sequence) - tokens
    end = own + (first_row + rows - 1) // group + 1  # the last row sees most
    return rows, own, max(0, own + first_row // group + 1 - load_word(row + 144)), end


def attend_split(row, entry, head, begin, end, tile):
    """Softmax and weighted values of the positions begin..end, all of one split, for the query rows in `tile`. Words of
    the row as for `attention`, which calls this by its address.

    A row sees positions up to its own, at most `window` of them. tile: queries [6, padded], total outputs [6, padded],
    outputs of this split [6, padded], page keys [padded, 16], page values [16, padded], scores [6, SPLIT], then maxima
    and sums, of all and of this split, [6] each."""
    head_dim, block_size, element = load_word(row + 104), load_word(row + 112), load_word(row + 184)
    group, window = load_word(row + 88) // load_word(row + 96), load_word(row + 144)
    shape = (load_word(row + 96), head_dim, block_size, element)
    keys, values = load_word(row + 8), load_word(row + 16)
    table = load_word(row + 64) + 4 * load_word(row + 72) * load_int32(entry)
    rows, own, _, _ = _reach(row, entry)
    padded = (head_dim + 15) // 16 * 16
    out = tile + 8 * QUERY_ROWS * padded
    page_keys = out + 4 * QUERY_ROWS * padded
    page_values = page_keys + 64 * padded
    scores = page_values + 64 * padded
    maxima = scores + 4 * QUERY_ROWS * SPLIT + 8 * QUERY_ROWS
    in_place = block_size % PAGE == 0 and head_dim % PAGE == 0
    halves = in_place and element == 2
    start, base = begin // PAGE * PAGE, begin // SPLIT * SPLIT
    for page in range(start, end, PAGE):
        place = scores + 4 * (page - base)
        here, stride = page_keys, 64
        if in_place:
            here, stride = _page_place(shape, keys, values, table, head, page)[0], element * block_size
            if page + PAGE < end:
                _fetch_ahead(shape, keys, values, table, head, page + PAGE)
        else:
            _gather(keys, values, table, head, shape, page, min(page + PAGE, end), page_keys, page_values, padded)
        if halves:
            score_page_half(tile, 4 * padded, here, stride, head_dim, place, 4 * SPLIT, rows)
        else:
            score_page(tile, 4 * padded, here, stride, head_dim, place, 4 * SPLIT, rows)
    for m in range(rows):
        seen = own + (load_int32(entry + 12) + m) // group + 1 - base
        maximum, total = _softmax(
            scores + 4 * SPLIT * m, start - base, end - base, seen - window, seen, load_float(row + 160)
        )
        store_float(maxima + 4 * m, maximum)
        store_float(maxima + 4 * (QUERY_ROWS + m), total)
    for i in range(0, 4 * padded * rows, 64):
        store(out + i, zeros())
    for page in range(start, end, PAGE):
        place, count, here = scores + 4 * (page - base), min(PAGE, end - page), page_values
        if in_place:
            here = _page_place(shape, keys, values, table, head, page)[1]
        elif end - start > PAGE:  # or it still lies there
            _gather(keys, values, table, head, shape, page, page + count, page_keys, page_values, padded)
        _weigh(place, here, out, padded, count, rows, halves)


@inlined
def _merge(out, maxima, part, part_maxima, rows, padded):
    """Add one split's outputs, maxima and sums to those of all before it."""
    for m in range(rows):
        old, new = load_float(maxima + 4 * m), load_float(part_maxima + 4 * m)
        maximum = max(old, new)
        kept, added = exp(splat(old - maximum)), exp(splat(new - maximum))
        for i in range(4 * padded * m, 4 * padded * (m + 1), 64):
            store(out + i, fma(load(part + i), added, mul(load(out + i), kept)))
        sums, part_sums = maxima + 4 * (QUERY_ROWS + m), part_maxima + 4 * (QUERY_ROWS + m)
        total = load_float(sums) * max_lanes(kept) + load_float(part_sums) * max_lanes(added)
        store_float(sums, total)
        store_float(maxima + 4 * m, maximum)


# ---- units: a tile of the batch, a key/value head, some splits
@inlined
def _forget(tile, rows, padded):
    """The state of a tile that has seen nothing: -> addresses of its outputs and of its maxima and sums."""
    out = tile + 4 * QUERY_ROWS * padded
    maxima = tile + 4 * (3 * QUERY_ROWS * padded + 2 * PAGE * padded + QUERY_ROWS * SPLIT)
    for i in range(0, 4 * padded * rows, 64):
        store(out + i, zeros())
    for m in range(rows):
        store_float(maxima + 4 * m, NEVER)
        store_float(maxima + 4 * (QUERY_ROWS + m), np.float32(0))
    return out, maxima


@inlined
def _attend(row, entry, head, first_split, end_split, tile):
    """The splits first_split..end_split of a tile, from its queries to the state left in `tile`."""
    heads, kv_heads, head_dim = load_word(row + 88), load_word(row + 96), load_word(row + 104)
    half, scale = load_word(row + 120), load_float(row + 152)
    group, padded = heads // kv_heads, (head_dim + 15) // 16 * 16
    token, first_row = load_int32(entry + 4), load_int32(entry + 12)
    rows, own, first, end = _reach(row, entry)
    out, maxima = _forget(tile, rows, padded)
    for m in range(rows):
        step, lane = (first_row + m) // group, head * group + (first_row + m) % group
        source = load_word(row + 24) + (token + step) * load_word(row + 32) + 4 * lane * head_dim
        turn = 4 * half * (own + step)
        cos, sin = load_word(row + 128) + turn, load_word(row + 136) + turn
        _rotate(source, tile + 4 * padded * m, head_dim, half, cos, sin, scale)
    for split in range(max(first_split, first // SPLIT), min(end_split, (end + SPLIT - 1) // SPLIT)):
        begin, stop = max(first, split * SPLIT), min(end, (split + 1) * SPLIT)
        call6(load_word(row + 208), row, entry, head, begin, stop, tile)
        _merge(out, maxima, out + 4 * QUERY_ROWS * padded, maxima + 8 * QUERY_ROWS, rows, padded)


@inlined
def _finish(row, entry, head, out, maxima):
    """Outputs divided by their sums, to where the batch wants them."""
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
def kv_write(row, chunk, chunks):
    """1 keys, 2 values (cache), 3 key, 4 key stride, 5 value, 6 value stride (new ones, [tokens, kv_heads * head_dim]),
    7 slots (int32), 8 tokens, 9 kv_heads, 10 head_dim, 11 block_size, 12 half of rotary_dim (0: no rotation),
    13 cos, 14 sin, 15 positions (int32), 16 scratch, 17 scratch bytes per chunk, 18 bytes of a number in the cache"""
    slots, tokens = load_word(row + 56), load_word(row + 64)
    kv_heads, head_dim, block_size = load_word(row + 72), load_word(row + 80), load_word(row + 88)
    half, cos, sin, positions = load_word(row + 96), load_word(row + 104), load_word(row + 112), load_word(row + 120)
    rotated = load_word(row + 128) + chunk * load_word(row + 136)
    for unit in range(tokens * kv_heads * chunk // chunks, tokens * kv_heads * (chunk + 1) // chunks):
        token, head = unit // kv_heads, unit % kv_heads
        slot = load_int32(slots + 4 * token)
        key = load_word(row + 24) + token * load_word(row + 32) + 4 * head * head_dim
        value = load_word(row + 40) + token * load_word(row + 48) + 4 * head * head_dim
        if half > 0:
            turn = 4 * half * load_int32(positions + 4 * token)
            _rotate(key, rotated, head_dim, half, cos + turn, sin + turn, np.float32(1))
            key = rotated
        _write_one(
            key, value, load_word(row + 8), load_word(row + 16), slot // block_size, slot % block_size, head,
            kv_heads, head_dim, block_size, load_word(row + 144),
        )  # fmt: skip


def attention(row, chunk, chunks):
    """1 keys, 2 values (cache), 3 query, 4 query stride, 5 out (contiguous [tokens, heads * head_dim]), 6 tiles (int32
    [count, 4]: sequence, first packed token, tokens, first row of the tile within the sequence), 7 count of tiles,
    8 block tables (int32), 9 their width, 10 context lengths (int32), 11 heads, 12 kv_heads, 13 head_dim,
    14 block_size, 15 half of rotary_dim (0: no rotation), 16 cos, 17 sin, 18 window, 19 scale, 20 softcap (0: none)
    (float bits both), 21 scratch, 22 scratch bytes per chunk, 23 bytes of a number in the cache, 24 splits that are
    units of their own (1: a unit walks over all), 25 states [tiles, kv_heads, splits] for
    `merge_attention`, 26 address of `attend_split`.

    A unit is a tile times a key/value head: up to six query rows of one sequence that read the same keys. Units are
    dealt round robin, because later tiles of a prompt see more."""
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
    """What `attention` left of each split, merged in order. Words as for `attention`."""
    kv_heads, head_dim, splits = load_word(row + 96), load_word(row + 104), load_word(row + 192)
    padded = (head_dim + 15) // 16 * 16
    tile = load_word(row + 168) + chunk * load_word(row + 176)
    for unit in range(chunk, load_word(row + 56) * kv_heads, chunks):
        entry = load_word(row + 48) + 16 * (unit // kv_heads)
        rows, _, first, end = _reach(row, entry)
        out, maxima = _forget(tile, rows, padded)
        for split in range(first // SPLIT, (end + SPLIT - 1) // SPLIT):
            state = load_word(row + 200) + (unit * splits + split) * 4 * (QUERY_ROWS * padded + 16)
            _merge(out, maxima, state, state + 4 * QUERY_ROWS * padded, rows, padded)
        _finish(row, entry, unit % kv_heads, out, maxima)
