"""Products of quantised weights with rounded activations (int8), for any number of tokens.

Owns: the loops over units and tokens, and which tile computes which of them. The weights of a panel of units stay in
the second-level cache of a core while all tokens pass over them. Weights are not decoded to floats. Definition:
`product` in `ferrum.tensor.int8`.
Next: `ferrum.backends.numba_kernels.compiled.rounding`.
"""

from __future__ import annotations

import numpy as np

from ferrum.backends.numba_kernels.compiled.integer_tiles import tile
from ferrum.backends.numba_kernels.compiled.simd import call10, inlined, load_float, load_word, store_float
from ferrum.backends.numba_kernels.layouts import WEIGHT_COLUMNS, WEIGHT_DATA, WEIGHT_PRODUCT, WEIGHT_ROW_BYTES
from ferrum.backends.numba_kernels.loading.features import HAS_WIDE_BYTE_DOTS
from ferrum.backends.numba_kernels.sizes import UNIT_ROWS

AHEAD = 8192
"""Distance of prefetching in bytes: what memory delivers within its latency."""
PANEL_BYTES = 256 << 10
"""Bytes of a panel of units, which stays in the second-level cache of a core."""
MOST_UNITS = 6
"""Most units of a panel."""
MANY = 8
"""Tokens from which on the large tile is faster."""
LARGE = dict.fromkeys(("q4_k", "q5_k", "q6_k"), (1, 6)) if HAS_WIDE_BYTE_DOTS else {}
"""Units and tokens of the large tile, by the kind of weight; LARGE_TILE for all other kinds."""
LARGE_TILE = (2, 4) if HAS_WIDE_BYTE_DOTS else (1, 4)


def single(kind):
    """The product of some units with one token, as a function."""
    one = tile(kind, 1, 1, 0)

    def multiply_one(w, unit, c, x, xs, y, ys, s, ss, count):
        one(w, unit, c, x, xs, y, ys, s, ss, count)

    return multiply_one


def multiply(kind):
    """The function out[t, r] = start[t, r] + weight[r] · x[t] for rows first..end of a weight of this kind in units;
    `first` is a multiple of 16. x: rounded groups. `out` and `start` point to row 0; `start` may be null. Kernels call
    it by its address in the descriptor (`unit_descriptor`)."""
    units, tile_tokens = LARGE.get(kind, LARGE_TILE)
    one, two, four = (tile(kind, 1, tokens, AHEAD) for tokens in (1, 2, 4))
    large = tile(kind, units, tile_tokens, 0)

    @inlined
    def panel(w, unit, c, x, xs, y, ys, s, ss, count, tokens):
        """The product of some units and all tokens. Each tile is called at one place, to save time of compilation."""
        token = 0
        while token < tokens:
            tokens_left, large_units = tokens - token, 0
            xt, yt, st = x + token * xs, y + token * ys, s + token * ss if s != 0 else 0
            is_large = token > 0 and tokens_left >= tile_tokens and tokens >= MANY  # the first strip prefetches
            strip = tile_tokens if is_large else 4 if tokens_left >= 4 else 2 if tokens_left >= 2 else 1
            if is_large:
                large_units = count // units * units
                large(w, unit, c, xt, xs, yt, ys, st, ss, large_units)
            w2, y2, s2, small_units = (
                w + large_units * unit,
                yt + 64 * large_units,
                st + 64 * large_units if s != 0 else 0,
                count - large_units,
            )
            if small_units != 0:
                if strip == 4:
                    four(w2, unit, c, xt, xs, y2, ys, s2, ss, small_units)
                elif strip == 2:
                    two(w2, unit, c, xt, xs, y2, ys, s2, ss, small_units)
                else:
                    one(w2, unit, c, xt, xs, y2, ys, s2, ss, small_units)
            token += strip

    def multiply_units(weight, x, xs, y, ys, s, ss, first, end, tokens, scratch):
        if first >= end:
            return
        unit, c = load_word(weight + WEIGHT_ROW_BYTES), load_word(weight + WEIGHT_COLUMNS)
        data = load_word(weight + WEIGHT_DATA) + first // UNIT_ROWS * unit
        whole, rest = (end - first) // UNIT_ROWS, (end - first) % UNIT_ROWS
        size = max(units, min(MOST_UNITS, PANEL_BYTES // unit // units * units))
        if tokens <= 2 or tokens == 4:
            size = max(1, whole)
        for top in range(0, whole, size):
            place = 4 * (first + UNIT_ROWS * top)
            begin = s + place if s != 0 else 0
            panel(data + top * unit, unit, c, x, xs, y + place, ys, begin, ss, min(size, whole - top), tokens)
        if rest:
            _last_rows(weight, data + whole * unit, x, xs, y, ys, s, ss, end - rest, rest, tokens, scratch)

    return multiply_units


@inlined
def _last_rows(weight, data, x, xs, y, ys, s, ss, first, rest, tokens, scratch):
    """The last rows, fewer than a unit: the whole unit is multiplied, and the results of these rows are kept."""
    for token in range(tokens):
        call10(
            load_word(weight + WEIGHT_PRODUCT), data, load_word(weight + WEIGHT_ROW_BYTES),
            load_word(weight + WEIGHT_COLUMNS), x + token * xs, xs, scratch, 4 * UNIT_ROWS, 0, 0, 1,
        )  # fmt: skip
        for row in range(rest):
            base = load_float(s + token * ss + 4 * (first + row)) if s != 0 else np.float32(0)
            store_float(y + token * ys + 4 * (first + row), load_float(scratch + 4 * row) + base)
