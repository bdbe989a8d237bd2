"""One split of a context whose keys and values are in q8_0: scores, softmax and weighted values of 128 positions.

Owns: `attend_split` for such a cache, which is called by its address in place of the other. Pages are read in place
where blocks are whole pages; otherwise they are gathered into scratch first, as they are: the same arithmetic.
Next: `ferrum.backends.numba_kernels.attention`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels.moves import copy, copy_shorts, fetch, key_place, value_place
from ferrum.backends.numba_kernels.pages_q8 import BESIDE, GROUP, score_pages_q8, weigh_page_q8
from ferrum.backends.numba_kernels.simd import inlined, load_int32, load_word, store, zeros
from ferrum.backends.numba_kernels.sizes import PAGE, QUERY_ROWS, SPLIT
from ferrum.backends.numba_kernels.splits import reach, soften


@inlined
def _key_places(caches, shape, position):
    """Where the codes and the scales of a position's key begin."""
    keys, _, key_scales, _, table, head = caches
    kv_heads, head_dim, block_size = shape
    codes = key_place(keys, table, head, kv_heads, head_dim // BESIDE, block_size, BESIDE, position)
    return codes, key_place(key_scales, table, head, kv_heads, head_dim // GROUP, block_size, 2, position)


@inlined
def _value_places(caches, shape, position):
    """The same of its value."""
    _, values, _, value_scales, table, head = caches
    kv_heads, head_dim, block_size = shape
    codes = value_place(values, table, head, kv_heads, head_dim, block_size, 1, position)
    return codes, key_place(value_scales, table, head, kv_heads, head_dim // GROUP, block_size, 2, position)


@inlined
def _keys_of_page(caches, shape, page, end, scratch):
    """Addresses of a page's codes and scales; where it does not lie in one block, in scratch."""
    _, head_dim, block_size = shape
    if block_size % PAGE == 0:
        return _key_places(caches, shape, page)
    scales = scratch + PAGE * head_dim
    for position in range(page, min(page + PAGE, end)):
        codes_there, scales_there = _key_places(caches, shape, position)
        lane = position - page
        copy(codes_there, BESIDE * block_size, scratch + BESIDE * lane, BESIDE * PAGE, head_dim // BESIDE)
        copy_shorts(scales_there, 2 * block_size, scales + 2 * lane, 2 * PAGE, head_dim // GROUP)
    return scratch, scales


@inlined
def _values_of_page(caches, shape, page, end, scratch):
    """The same of its values."""
    _, head_dim, block_size = shape
    if block_size % PAGE == 0:
        return _value_places(caches, shape, page)
    scales = scratch + PAGE * head_dim
    for position in range(page, min(page + PAGE, end)):
        codes_there, scales_there = _value_places(caches, shape, position)
        lane = position - page
        copy(codes_there, 4, scratch + head_dim * lane, 4, head_dim // 4)
        copy_shorts(scales_there, 2 * block_size, scales + 2 * lane, 2 * PAGE, head_dim // GROUP)
    return scratch, scales


@inlined
def _page_steps(block_size):
    """From four dimensions of a page to the next ones, and from the scales of a group to those of the next."""
    width = block_size if block_size % PAGE == 0 else PAGE
    return BESIDE * width, 2 * width


@inlined
def _score_pages(caches, shape, queries, scores, base, begin, end, rows, scratch):
    """Scores of the query rows and the positions begin..end; position base is the first of its split."""
    _, head_dim, block_size = shape
    stride, scale_stride = _page_steps(block_size)
    for page in range(begin, end, 2 * PAGE):
        place, beside = scores + 4 * (page - base), page + PAGE if page + PAGE < end else page
        codes, scales = _keys_of_page(caches, shape, page, end, scratch)
        more_codes, more_scales = _keys_of_page(caches, shape, beside, end, scratch + 32 * head_dim)
        for ahead in (page + 2 * PAGE, page + 3 * PAGE):
            if ahead < end and block_size % PAGE == 0:  # blocks lie anywhere, so the hardware cannot foresee them
                codes_ahead, scales_ahead = _key_places(caches, shape, ahead)
                fetch(codes_ahead, stride, head_dim // BESIDE)
                fetch(scales_ahead, scale_stride, head_dim // GROUP)
        score_pages_q8(
            queries, 4 * head_dim, codes, scales, more_codes, more_scales, stride, scale_stride, head_dim // GROUP,
            place, place + 4 * (beside - page), 4 * SPLIT, rows,
        )  # fmt: skip


@inlined
def _weigh_pages(caches, shape, weights, out, base, begin, end, rows, scratch):
    """out = the values of the positions begin..end, weighted."""
    _, head_dim, block_size = shape
    _, scale_stride = _page_steps(block_size)
    for i in range(0, 4 * head_dim * rows, 64):
        store(out + i, zeros())
    for page in range(begin, end, PAGE):
        codes, scales = _values_of_page(caches, shape, page, end, scratch)
        if page + PAGE < end and block_size % PAGE == 0:
            codes_ahead, scales_ahead = _value_places(caches, shape, page + PAGE)
            fetch(codes_ahead, 64, PAGE * head_dim // 64)
            fetch(scales_ahead, scale_stride, head_dim // GROUP)
        weigh_page_q8(
            weights + 4 * (page - base), 4 * SPLIT, codes, head_dim, scales, scale_stride, out, 4 * head_dim,
            head_dim // GROUP, min(PAGE, end - page), rows,
        )  # fmt: skip


def attend_split_q8(row, entry, head, begin, end, tile):
    """Arguments and words as for `splits.attend_split`; 29 scales of keys, 30 of values. The pages in `tile` hold codes
    and scales."""
    head_dim, block_size = load_word(row + 104), load_word(row + 112)
    shape = (load_word(row + 96), head_dim, block_size)
    table = load_word(row + 64) + 4 * load_word(row + 72) * load_int32(entry)
    caches = (load_word(row + 8), load_word(row + 16), load_word(row + 232), load_word(row + 240), table, head)
    rows, own, _, _ = reach(row, entry)
    out = tile + 8 * QUERY_ROWS * head_dim
    scratch = out + 4 * QUERY_ROWS * head_dim
    scores = scratch + 128 * head_dim
    start, base = begin // PAGE * PAGE, begin // SPLIT * SPLIT
    _score_pages(caches, shape, tile, scores, base, start, end, rows, scratch)
    soften(row, entry, scores, start, base, end, rows, own)
    _weigh_pages(caches, shape, scores, out, base, start, end, rows, scratch)
