"""Register tiles of attention: scores and weighted values of one page of 16 positions.

Owns: the two inner loops of paged attention, for up to six query rows that share a key/value head, over caches of
float32 or float16.
Next: `ferrum.backends.numba_kernels.moves`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils

from ferrum.backends.numba_kernels import ir
from ferrum.backends.numba_kernels.blocks import sixteen_halves
from ferrum.backends.numba_kernels.features import REGISTERS, WIDTH
from ferrum.backends.numba_kernels.simd import Index, word
from ferrum.backends.numba_kernels.sizes import QUERY_ROWS

WIDE = 4 if REGISTERS * WIDTH >= 512 else 1
"""Vectors of output columns that the value loop carries at once where there are as many."""

Load = Callable[[Any, Any], Any]


def _floats(builder: Any, address: Any) -> Any:
    return ir.load(builder, address, ir.Floats)


def _score(name: str, load: Load) -> Any:
    """Word (query, query stride, keys, key stride, head_dim, scores, score stride, rows): scores[row] (16 floats each)
    = query[row] · keys; `keys` holds, for each of head_dim dimensions, 16 positions in a row. A vector of scores comes
    out without horizontal sums."""

    def build(builder, query, query_stride, keys, key_stride, head_dim, scores, score_stride, rows):
        def tile(count: int) -> None:
            starts = [builder.add(query, builder.mul(query_stride, ir.constant(ir.Int64, m))) for m in range(count)]
            sums = ir.allocate_zeros(builder, count)
            with cgutils.for_range(builder, head_dim) as loop:
                positions = load(builder, builder.add(keys, builder.mul(loop.index, key_stride)))
                for start, slot in zip(starts, sums, strict=True):
                    element = ir.load(builder, builder.add(start, ir.scaled(builder, loop.index, 4)), ir.Float)
                    updated = ir.multiply_add(builder, ir.splat(builder, element), positions, builder.load(slot))
                    builder.store(updated, slot)
            for m, slot in enumerate(sums):
                place = builder.add(scores, builder.mul(score_stride, ir.constant(ir.Int64, m)))
                ir.store(builder, place, builder.load(slot))

        ir.switch_on(builder, rows, range(1, QUERY_ROWS + 1), tile)

    build.__name__ = f"score_page_{name}"
    return word(types.void, *[Index] * 8)(build)


def _weigh(name: str, load: Load, element_bytes: int, wide: int) -> Any:
    """Word (weights, weight stride, values, value stride, out, out stride, columns, positions, rows): out[row] +=
    weights[row] · values, for a multiple of 16 columns, `wide` vectors of them at a time and then one, and the first
    `positions` of 16 positions: later ones may be unwritten memory, and 0 * NaN is NaN."""

    def build(builder, weights, weight_stride, values, value_stride, out, out_stride, columns, positions, rows):
        step, zero = ir.constant(ir.Int64, ir.LANES), ir.constant(ir.Int64, 0)
        whole = builder.mul(
            builder.sdiv(columns, ir.constant(ir.Int64, wide * ir.LANES)), ir.constant(ir.Int64, wide * ir.LANES)
        )

        def tile(count: int, vectors: int, column: Any) -> None:
            starts = [builder.add(out, builder.mul(out_stride, ir.constant(ir.Int64, m))) for m in range(count)]
            lines = [builder.add(weights, builder.mul(weight_stride, ir.constant(ir.Int64, m))) for m in range(count)]
            own = ir.scaled(builder, column, 4)
            places = [ir.offset(builder, builder.add(start, own), 64 * v) for start in starts for v in range(vectors)]
            sums = ir.allocate(builder, [ir.load(builder, place, ir.Floats) for place in places])
            first = builder.add(values, ir.scaled(builder, column, element_bytes))
            with cgutils.for_range(builder, positions) as loop:
                line = builder.add(first, builder.mul(loop.index, value_stride))
                distances = [ir.offset(builder, line, ir.LANES * element_bytes * v) for v in range(vectors)]
                found = [load(builder, distance) for distance in distances]
                for m in range(count):
                    place = builder.add(lines[m], ir.scaled(builder, loop.index, 4))
                    weight = ir.splat(builder, ir.load(builder, place, ir.Float))
                    for v in range(vectors):
                        slot = sums[m * vectors + v]
                        builder.store(ir.multiply_add(builder, weight, found[v], builder.load(slot)), slot)
            for place, slot in zip(places, sums, strict=True):
                ir.store(builder, place, builder.load(slot))

        def all_columns(count: int) -> None:
            if wide > 1:
                stride = ir.constant(ir.Int64, wide * ir.LANES)
                with cgutils.for_range_slice(builder, zero, whole, stride, inc=True) as (column, _):
                    tile(count, wide, column)
            rest = whole if wide > 1 else zero
            with cgutils.for_range_slice(builder, rest, columns, step, inc=True) as (column, _):
                tile(count, 1, column)

        ir.switch_on(builder, rows, range(1, QUERY_ROWS + 1), all_columns)

    build.__name__ = f"weigh_page_{name}"
    return word(types.void, *[Index] * 9)(build)


score_page = _score("float32", _floats)
score_page_half = _score("float16", sixteen_halves)
weigh_page = _weigh("float32", _floats, 4, WIDE)
weigh_page_half = _weigh("float16", sixteen_halves, 2, 1)
