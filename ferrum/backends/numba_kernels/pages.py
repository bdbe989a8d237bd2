"""Register tiles of attention: scores and weighted values of one run of 16 positions.

Owns: the two inner loops of paged attention, for up to six query rows that share a key/value head.
Next: `ferrum.backends.numba_kernels.attention`.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils

from ferrum.backends.numba_kernels import ir
from ferrum.backends.numba_kernels.simd import Index, word

QUERY_ROWS = 6
"""Query rows of a tile: their sums, and four vectors of each row's output, stay in registers."""
WIDE = 4
"""Vectors of output columns that the value loop carries at once where there are as many."""


@word(types.void, *[Index] * 7)
def score_page(builder, query, query_stride, keys, key_stride, head_dim, scores, rows):
    """scores[row] (16 floats each) = query[row] · keys; `keys` holds, for each of head_dim dimensions, 16 positions in
    a row. A vector of scores comes out without horizontal sums."""

    def tile(count: int) -> None:
        starts = [builder.add(query, builder.mul(query_stride, ir.constant(ir.Int64, m))) for m in range(count)]
        sums = ir.allocate_zeros(builder, count)
        with cgutils.for_range(builder, head_dim) as loop:
            positions = ir.load(builder, builder.add(keys, builder.mul(loop.index, key_stride)), ir.Floats)
            for start, slot in zip(starts, sums, strict=True):
                element = ir.load(builder, builder.add(start, ir.scaled(builder, loop.index, 4)), ir.Float)
                updated = ir.multiply_add(builder, ir.splat(builder, element), positions, builder.load(slot))
                builder.store(updated, slot)
        for m, slot in enumerate(sums):
            ir.store(builder, ir.offset(builder, scores, 64 * m), builder.load(slot))

    ir.switch_on(builder, rows, range(1, QUERY_ROWS + 1), tile)


def _weigh(vectors: int) -> Any:
    """Word: out[row] = out[row] * decay[row] + weights[row] · values, for 16 * vectors columns and the first
    `positions` of 16 positions: later ones may be unwritten memory, and 0 * NaN is NaN."""

    def build(builder, weights, values, value_stride, decay, out, out_stride, positions, rows):
        def tile(count: int) -> None:
            starts = [builder.add(out, builder.mul(out_stride, ir.constant(ir.Int64, m))) for m in range(count)]
            sums = ir.allocate_zeros(builder, count * vectors)
            for m, start in enumerate(starts):
                factor = ir.splat(builder, ir.load(builder, ir.offset(builder, decay, 4 * m), ir.Float))
                for v in range(vectors):
                    carried = ir.load(builder, ir.offset(builder, start, 64 * v), ir.Floats)
                    builder.store(builder.fmul(carried, factor), sums[m * vectors + v])
            with cgutils.for_range(builder, positions) as loop:
                line = builder.add(values, builder.mul(loop.index, value_stride))
                columns = [ir.load(builder, ir.offset(builder, line, 64 * v), ir.Floats) for v in range(vectors)]
                for m in range(count):
                    place = builder.add(ir.offset(builder, weights, 64 * m), ir.scaled(builder, loop.index, 4))
                    weight = ir.splat(builder, ir.load(builder, place, ir.Float))
                    for v in range(vectors):
                        slot = sums[m * vectors + v]
                        builder.store(ir.multiply_add(builder, weight, columns[v], builder.load(slot)), slot)
            for m, start in enumerate(starts):
                for v in range(vectors):
                    ir.store(builder, ir.offset(builder, start, 64 * v), builder.load(sums[m * vectors + v]))

        ir.switch_on(builder, rows, range(1, QUERY_ROWS + 1), tile)

    build.__name__ = f"weigh_page_{vectors}"
    return word(types.void, *[Index] * 8)(build)


weigh_page_wide = _weigh(WIDE)
weigh_page_narrow = _weigh(1)
