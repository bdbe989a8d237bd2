"""One split of a context whose keys and values are in q8_0: scores, softmax and weighted values of 128 positions.

Owns: `attend_split` for such a cache, which is called by its address instead of `splits.attend_split`. A page is read
in the KV cache if blocks consist of whole pages; otherwise its codes and scales are copied into scratch first, and the
arithmetic is the same.
Next: `ferrum.backends.numba_kernels.compiled.attention`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels.compiled.copies import copy, copy_shorts, fetch_near
from ferrum.backends.numba_kernels.compiled.pages_q8 import (
    GROUP,
    KEY_CODES,
    score_pages_float,
    score_pages_rounded,
    weigh_page_q8,
)
from ferrum.backends.numba_kernels.compiled.rounding import round_group
from ferrum.backends.numba_kernels.compiled.simd import inlined, load_int32, load_word, store, zeros
from ferrum.backends.numba_kernels.compiled.splits import reach, soften
from ferrum.backends.numba_kernels.sizes import PAGE, QUERY_ROWS, SPLIT

AHEAD = 4 * PAGE
"""Positions from a page to the pages that are prefetched while it is read."""


@inlined
def _pair(caches, shape, position):
    """-> the number of the (block, head) pair of a position, and the offset of the position in the block."""
    _, _, _, _, table, head = caches
    kv_heads, _, block_size = shape
    number = position // block_size
    return load_int32(table + 4 * number) * kv_heads + head, position - number * block_size


@inlined
def _scales(start, shape, pair, offset):
    """The address of the scale of the first group of a position; that of the next group is block_size numbers later."""
    _, head_dim, block_size = shape
    return start + 2 * (pair * (head_dim // GROUP) * block_size + offset)


@inlined
def _key(caches, shape, pair, offset):
    """The address of the first four codes of the key of a position; the next four are 4 * block_size bytes later."""
    _, head_dim, block_size = shape
    return caches[0] + pair * head_dim * block_size + KEY_CODES * offset


@inlined
def _value(caches, shape, pair, offset):
    """The address of the codes of the value of a position."""
    _, head_dim, block_size = shape
    return caches[1] + (pair * block_size + offset) * head_dim


@inlined
def _fetch_keys(caches, shape, page):
    """Prefetches a page of keys. Blocks may lie anywhere, so the hardware does not prefetch them."""
    _, head_dim, block_size = shape
    pair, offset = _pair(caches, shape, page)
    fetch_near(_key(caches, shape, pair, offset), KEY_CODES * block_size, head_dim // KEY_CODES)
    fetch_near(_scales(caches[2], shape, pair, offset), 2 * block_size, head_dim // GROUP)


@inlined
def _fetch_values(caches, shape, page):
    """Prefetches a page of values."""
    _, head_dim, block_size = shape
    pair, offset = _pair(caches, shape, page)
    fetch_near(_value(caches, shape, pair, offset), 64, PAGE * head_dim // 64)
    fetch_near(_scales(caches[3], shape, pair, offset), 2 * block_size, head_dim // GROUP)


@inlined
def _keys_of_page(caches, shape, page, end, scratch):
    """-> the addresses of the codes and scales of the keys of a page; they are copied into scratch if the page does not
    lie in one block."""
    _, head_dim, block_size = shape
    if block_size % PAGE == 0:
        pair, offset = _pair(caches, shape, page)
        return _key(caches, shape, pair, offset), _scales(caches[2], shape, pair, offset)
    scales = scratch + PAGE * head_dim
    for position in range(page, min(page + PAGE, end)):
        pair, offset = _pair(caches, shape, position)
        lane = position - page
        from_codes, from_scales = _key(caches, shape, pair, offset), _scales(caches[2], shape, pair, offset)
        copy(from_codes, KEY_CODES * block_size, scratch + KEY_CODES * lane, KEY_CODES * PAGE, head_dim // KEY_CODES)
        copy_shorts(from_scales, 2 * block_size, scales + 2 * lane, 2 * PAGE, head_dim // GROUP)
    return scratch, scales


@inlined
def _values_of_page(caches, shape, page, end, scratch):
    """The same for its values."""
    _, head_dim, block_size = shape
    if block_size % PAGE == 0:
        pair, offset = _pair(caches, shape, page)
        return _value(caches, shape, pair, offset), _scales(caches[3], shape, pair, offset)
    scales = scratch + PAGE * head_dim
    for position in range(page, min(page + PAGE, end)):
        pair, offset = _pair(caches, shape, position)
        lane = position - page
        from_codes, from_scales = _value(caches, shape, pair, offset), _scales(caches[3], shape, pair, offset)
        copy(from_codes, 4, scratch + head_dim * lane, 4, head_dim // 4)
        copy_shorts(from_scales, 2 * block_size, scales + 2 * lane, 2 * PAGE, head_dim // GROUP)
    return scratch, scales


@inlined
def _page_steps(block_size):
    """-> the bytes from four dimensions of a page to the next four, and from the scales of a group to those of the next
    one."""
    width = block_size if block_size % PAGE == 0 else PAGE
    return KEY_CODES * width, 2 * width


def _scorer(score):
    """The function that computes the scores of the query rows for the positions begin..end by the word `score` of
    `pages_q8`. `base`: the first position of the split. It prefetches the values of these positions, and the next keys
    unless the previous split has prefetched them (`is_walk`)."""

    def score_pages(caches, shape, queries, scores, base, begin, end, rows, scratch, is_walk):
        _, head_dim, block_size = shape
        stride, scale_stride = _page_steps(block_size)
        for page in range(begin, end, 2 * PAGE):
            place, beside = scores + 4 * (page - base), page + PAGE if page + PAGE < end else page
            codes, scales = _keys_of_page(caches, shape, page, end, scratch)
            more_codes, more_scales = _keys_of_page(caches, shape, beside, end, scratch + 32 * head_dim)
            if block_size % PAGE == 0:
                _fetch_values(caches, shape, page)
                _fetch_values(caches, shape, beside)
                for ahead in range(page + AHEAD, min(page + AHEAD + 2 * PAGE, end), PAGE):
                    if not is_walk:
                        _fetch_keys(caches, shape, ahead)
            score(
                queries, 4 * head_dim, codes, scales, more_codes, more_scales, stride, scale_stride, head_dim // GROUP,
                place, place + 4 * (beside - page), 4 * SPLIT, rows,
            )  # fmt: skip

    return inlined(score_pages)


_score_pages, _score_rounded = _scorer(score_pages_float), _scorer(score_pages_rounded)


@inlined
def _weigh_pages(caches, shape, weights, out, base, begin, end, rows, scratch, last):
    """out = the weighted sum of the values of the positions begin..end. Prefetches the keys of the next split up to the
    position `last`."""
    _, head_dim, block_size = shape
    _, scale_stride = _page_steps(block_size)
    for i in range(0, 4 * head_dim * rows, 64):
        store(out + i, zeros())
    for page in range(begin, end, PAGE):
        codes, scales = _values_of_page(caches, shape, page, end, scratch)
        if page + SPLIT < last and block_size % PAGE == 0:
            _fetch_keys(caches, shape, page + SPLIT)
        weigh_page_q8(
            weights + 4 * (page - base), 4 * SPLIT, codes, head_dim, scales, scale_stride, out, 4 * head_dim,
            head_dim // GROUP, min(PAGE, end - page), rows,
        )  # fmt: skip


@inlined
def _words(row, entry, head, tile):
    """-> caches, shape, and the addresses of outputs, scratch and scores in `tile`."""
    head_dim = load_word(row + 104)
    shape = (load_word(row + 96), head_dim, load_word(row + 112))
    table = load_word(row + 64) + 4 * load_word(row + 72) * load_int32(entry)
    caches = (load_word(row + 8), load_word(row + 16), load_word(row + 232), load_word(row + 240), table, head)
    out = tile + 8 * QUERY_ROWS * head_dim
    scratch = out + 4 * QUERY_ROWS * head_dim
    return caches, shape, out, scratch, scratch + 128 * head_dim


def attend_split_q8(row, entry, head, begin, end, tile):
    """Arguments and words as for `splits.attend_split`; 29 scales of keys, 30 scales of values. The pages in `tile`
    hold codes and scales. `is_walk`: one unit computes all splits of a tile, one after the other."""
    rows, first_new, _, last = reach(row, entry)
    is_walk = load_word(row + 192) == 1
    caches, shape, out, scratch, scores = _words(row, entry, head, tile)
    start, base = begin // PAGE * PAGE, begin // SPLIT * SPLIT
    _score_pages(caches, shape, tile, scores, base, start, end, rows, scratch, is_walk)
    soften(row, entry, scores, start, base, end, rows, first_new)
    _weigh_pages(caches, shape, scores, out, base, start, end, rows, scratch, last if is_walk else 0)


def attend_split_rounded(row, entry, head, begin, end, tile):
    """The same for queries that were rounded by `round_queries`."""
    rows, first_new, _, last = reach(row, entry)
    is_walk = load_word(row + 192) == 1
    caches, shape, out, scratch, scores = _words(row, entry, head, tile)
    start, base = begin // PAGE * PAGE, begin // SPLIT * SPLIT
    _score_rounded(caches, shape, tile, scores, base, start, end, rows, scratch, is_walk)
    soften(row, entry, scores, start, base, end, rows, first_new)
    _weigh_pages(caches, shape, scores, out, base, start, end, rows, scratch, last if is_walk else 0)


def round_queries(tile, rows, head_dim):
    """Rounds each group of each row of queries [6, head_dim], in place: a rounded group takes less than half of the
    memory."""
    for group in range(rows * head_dim // GROUP):
        round_group(tile + 4 * GROUP * group, tile + 4 * GROUP * group)
