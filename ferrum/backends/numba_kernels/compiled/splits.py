"""One split of a context: scores, softmax and weighted values of up to 128 positions.

Owns: `attend_split`, the inner part of attention, which is called by its address. A page of 16 positions is read in the
KV cache if the block size and head_dim are multiples of 16; otherwise it is copied into scratch first, and the
arithmetic is the same. Positions that a query row may not see get the weight 0, so the bits of a row do not depend on
the other rows of its tile.
Paper: FlashAttention 2205.14135.
Next: `ferrum.backends.numba_kernels.compiled.splits_q8`.
"""

from __future__ import annotations

import numpy as np

from ferrum.backends.numba_kernels.compiled.copies import copy, copy_from_half, fetch, key_place, value_place
from ferrum.backends.numba_kernels.compiled.pages import (
    score_page,
    score_page_half,
    score_two_pages,
    score_two_pages_half,
    weigh_page,
    weigh_page_half,
)
from ferrum.backends.numba_kernels.compiled.simd import (
    add,
    div,
    exp,
    inlined,
    keep_lanes,
    larger,
    load,
    load_float,
    load_int32,
    load_word,
    max_lanes,
    mul,
    splat,
    store,
    store_float,
    sub,
    sum_lanes,
    zeros,
)
from ferrum.backends.numba_kernels.sizes import PAGE, QUERY_ROWS, SPLIT

NEVER = np.float32(-1e30)
"""The score of a position that a row may not see. It is finite, so that the difference of two such scores is 0, not
NaN."""


@inlined
def _gather(caches, shape, begin, end, page_keys, page_values, padded):
    """Copies the positions begin..end (at most 16) of one head to keys [head_dim, 16] and values [16, padded]; the rest
    is 0."""
    keys, values, table, head = caches
    kv_heads, head_dim, block_size, element = shape
    for i in range(0, 64 * padded, 64):
        store(page_keys + i, zeros())
        store(page_values + i, zeros())
    for position in range(begin, end):
        key = key_place(keys, table, head, kv_heads, head_dim, block_size, element, position)
        value = value_place(values, table, head, kv_heads, head_dim, block_size, element, position)
        to_keys, to_values = page_keys + 4 * (position - begin), page_values + 4 * padded * (position - begin)
        if element == 4:
            copy(key, 4 * block_size, to_keys, 64, head_dim)
            copy(value, 4, to_values, 4, head_dim)
        else:
            copy_from_half(key, 2 * block_size, to_keys, 64, head_dim)
            copy_from_half(value, 2, to_values, 4, head_dim)


@inlined
def _cap(scores, softcap):
    """softcap * tanh(scores / softcap), with tanh(x) = 1 - 2 / (exp(2 x) + 1)"""
    one, cap = splat(np.float32(1)), splat(softcap)
    doubled = mul(scores, splat(np.float32(2) / softcap))
    return mul(cap, sub(one, div(splat(np.float32(2)), add(exp(doubled), one))))


@inlined
def _softmax(scores, begin, count, first, end, softcap):
    """Turns the scores of one row for the positions begin..count of a split into weights, in place -> their maximum and
    their sum. The row sees only the positions first..end."""
    highest = splat(NEVER)
    for page in range(begin, count, PAGE):
        values = load(scores + 4 * page)
        if softcap > 0:
            values = _cap(values, softcap)
        values = keep_lanes(values, first - page, end - page, NEVER)
        store(scores + 4 * page, values)
        highest = larger(highest, values)
    maximum, sums = max_lanes(highest), zeros()
    for page in range(begin, count, PAGE):
        weights = exp(sub(load(scores + 4 * page), splat(maximum)))
        weights = keep_lanes(weights, first - page, end - page, np.float32(0))
        store(scores + 4 * page, weights)
        sums = add(sums, weights)
    return maximum, sum_lanes(sums)


@inlined
def reach(row, entry):
    """-> the rows of the tile at `entry`, the position of the first new token of its sequence, and the positions
    first..end that at least one row sees."""
    group = load_word(row + 88) // load_word(row + 96)
    sequence, tokens, first_row = load_int32(entry), load_int32(entry + 8), load_int32(entry + 12)
    rows = min(QUERY_ROWS, tokens * group - first_row)
    start = load_int32(load_word(row + 80) + 4 * sequence) - tokens
    end = start + (first_row + rows - 1) // group + 1  # the last row sees the most positions
    return rows, start, max(0, start + first_row // group + 1 - load_word(row + 144)), end


@inlined
def _score_pages(caches, shape, queries, scores, base, begin, end, rows, page_keys, page_values, padded):
    """The scores of the query rows for the positions begin..end. `base`: the first position of the split."""
    _, head_dim, block_size, _ = shape
    if block_size % PAGE == 0 and head_dim % PAGE == 0:
        for page in range(begin, end, 2 * PAGE):
            _score_in_place(caches, shape, queries, scores + 4 * (page - base), page, end, rows, padded)
    else:
        for page in range(begin, end, PAGE):
            _gather(caches, shape, page, min(page + PAGE, end), page_keys, page_values, padded)
            place = scores + 4 * (page - base)
            score_page(queries, 4 * padded, page_keys, 64, head_dim, place, 4 * SPLIT, rows)


@inlined
def _score_in_place(caches, shape, queries, scores, page, end, rows, padded):
    """The scores of two pages, or of the last page, read in the KV cache."""
    keys, _, table, head = caches
    kv_heads, head_dim, block_size, element = shape
    stride = element * block_size
    first = key_place(keys, table, head, kv_heads, head_dim, block_size, element, page)
    for later in range(page + 2 * PAGE, min(page + 4 * PAGE, end), PAGE):
        # the next block may lie anywhere, so the hardware does not prefetch it
        fetch(key_place(keys, table, head, kv_heads, head_dim, block_size, element, later), stride, head_dim)
    if page + PAGE < end:
        second = key_place(keys, table, head, kv_heads, head_dim, block_size, element, page + PAGE)
        if element == 2:
            score_two_pages_half(queries, 4 * padded, first, second, stride, head_dim, scores, 4 * SPLIT, rows)
        else:
            score_two_pages(queries, 4 * padded, first, second, stride, head_dim, scores, 4 * SPLIT, rows)
    elif element == 2:
        score_page_half(queries, 4 * padded, first, stride, head_dim, scores, 4 * SPLIT, rows)
    else:
        score_page(queries, 4 * padded, first, stride, head_dim, scores, 4 * SPLIT, rows)


@inlined
def _weigh_pages(caches, shape, weights, out, base, begin, end, rows, page_keys, page_values, padded):
    """out = the weighted sum of the values of the positions begin..end."""
    _, values, table, head = caches
    kv_heads, head_dim, block_size, element = shape
    in_place = block_size % PAGE == 0 and head_dim % PAGE == 0
    for i in range(0, 4 * padded * rows, 64):
        store(out + i, zeros())
    for page in range(begin, end, PAGE):
        place, count, address = weights + 4 * (page - base), min(PAGE, end - page), page_values
        if in_place:
            address = value_place(values, table, head, kv_heads, head_dim, block_size, element, page)
            if page + PAGE < end:
                ahead = value_place(values, table, head, kv_heads, head_dim, block_size, element, page + PAGE)
                fetch(ahead, 64, (PAGE * element * head_dim + 63) // 64)
        elif end - begin > PAGE:  # a single page is still in scratch
            _gather(caches, shape, page, page + count, page_keys, page_values, padded)
        if in_place and element == 2:
            weigh_page_half(place, 4 * SPLIT, address, 2 * padded, out, 4 * padded, padded, count, rows)
        else:
            weigh_page(place, 4 * SPLIT, address, 4 * padded, out, 4 * padded, padded, count, rows)


@inlined
def soften(row, entry, scores, start, base, end, rows, begin):
    """Turns the scores of the positions start..end of a split into weights, and stores the maxima and sums of the rows
    after the scores. `begin`: the position of the first new token, as from `reach`."""
    group, window = load_word(row + 88) // load_word(row + 96), load_word(row + 144)
    maxima = scores + 4 * QUERY_ROWS * SPLIT + 8 * QUERY_ROWS
    for m in range(rows):
        visible_end = begin + (load_int32(entry + 12) + m) // group + 1 - base
        maximum, total = _softmax(
            scores + 4 * SPLIT * m, start - base, end - base, visible_end - window, visible_end, load_float(row + 160)
        )
        store_float(maxima + 4 * m, maximum)
        store_float(maxima + 4 * (QUERY_ROWS + m), total)


def attend_split(row, entry, head, begin, end, tile):
    """Softmax and weighted values of the positions begin..end of one split, for the query rows in `tile`. The words of
    the row are those of `attention`, which calls this function by its address.

    A row sees positions up to its own, at most `window` of them. tile: queries [6, padded], outputs of all splits
    [6, padded], outputs of this split [6, padded], page keys [padded, 16], page values [16, padded], scores [6, SPLIT],
    then [6] each: maxima of all splits, sums of all splits, maxima of this split, sums of this split."""
    head_dim = load_word(row + 104)
    shape = (load_word(row + 96), head_dim, load_word(row + 112), load_word(row + 184))
    table = load_word(row + 64) + 4 * load_word(row + 72) * load_int32(entry)
    caches = (load_word(row + 8), load_word(row + 16), table, head)
    rows, first_new, _, _ = reach(row, entry)
    padded = (head_dim + 15) // 16 * 16
    out = tile + 8 * QUERY_ROWS * padded
    page_keys = out + 4 * QUERY_ROWS * padded
    page_values = page_keys + 64 * padded
    scores = page_values + 64 * padded
    start, base = begin // PAGE * PAGE, begin // SPLIT * SPLIT
    _score_pages(caches, shape, tile, scores, base, start, end, rows, page_keys, page_values, padded)
    soften(row, entry, scores, start, base, end, rows, first_new)
    _weigh_pages(caches, shape, scores, out, base, start, end, rows, page_keys, page_values, padded)
