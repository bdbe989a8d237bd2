"""The inner loops of attention: scores and weighted values of one page of 16 positions.

Owns: both loops, for at most six query rows that share a key/value head, and caches of float32 or float16.
Next: `ferrum.backends.numba_kernels.compiled.pages_q8`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numba import types
from numba.core import cgutils

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.blocks import sixteen_halves
from ferrum.backends.numba_kernels.compiled.simd import Index, word
from ferrum.backends.numba_kernels.compiled.tiles import spaced
from ferrum.backends.numba_kernels.loading.features import REGISTERS, WIDTH
from ferrum.backends.numba_kernels.sizes import QUERY_ROWS

WIDE = 4 if REGISTERS * WIDTH >= 512 else 1
"""Vectors of output columns that the loop over positions keeps in registers."""
TOGETHER = 2 if REGISTERS * WIDTH >= 512 else 1
"""Pages whose scores are computed together. With one page, the few accumulators would wait for their own additions."""

Load = Callable[[Any, Any], Any]


def _floats(builder: Any, address: Any) -> Any:
    return ir.load(builder, address, ir.Floats)


def _score(name: str, load: Load, pages: int) -> Any:
    """Word (query, query stride, addresses of `pages` pages of keys, key stride, head_dim, scores, score stride, rows):
    scores[row] (16 floats for each page) = query[row] · keys. A page holds, for each of head_dim dimensions, the
    numbers of 16 neighbouring positions, so a vector of 16 scores needs no sum over lanes."""

    def build(builder, query, query_stride, *rest):
        keys, (key_stride, head_dim, scores, score_stride, rows) = rest[:pages], rest[pages:]

        def tile(count: int, keys: Sequence[Any], scores: Any) -> None:
            starts = spaced(builder, query, query_stride, count)
            sums = ir.allocate_zeros(builder, count * len(keys))
            with cgutils.for_range(builder, head_dim) as loop:
                line, place = builder.mul(loop.index, key_stride), ir.scaled(builder, loop.index, 4)
                positions = [load(builder, builder.add(page, line)) for page in keys]
                for m, start in enumerate(starts):
                    element = ir.splat(builder, ir.load(builder, builder.add(start, place), ir.Float))
                    for slot, vector in zip(sums[m * len(keys) :], positions, strict=False):
                        builder.store(ir.multiply_add(builder, element, vector, builder.load(slot)), slot)
            for m, out in enumerate(spaced(builder, scores, score_stride, count)):
                for i in range(len(keys)):
                    ir.store(builder, ir.offset(builder, out, 64 * i), builder.load(sums[m * len(keys) + i]))

        def tiles(count: int) -> None:
            for first in range(0, pages, TOGETHER):
                tile(count, keys[first : first + TOGETHER], ir.offset(builder, scores, 64 * first))

        ir.switch_on(builder, rows, range(1, QUERY_ROWS + 1), tiles)

    build.__name__ = f"score_{pages}_{name}"
    return word(types.void, *[Index] * (7 + pages))(build)


def _weigh(name: str, load: Load, element_bytes: int, wide: int) -> Any:
    """Word (weights, weight stride, values, value stride, out, out stride, columns, positions, rows): out[row] +=
    weights[row] · values. `columns` is a multiple of 16; `wide` vectors of columns are computed at a time, then single
    ones. Only the first `positions` of the 16 positions are read: later ones may be NaN in memory, and 0 * NaN is
    NaN."""

    def build(builder, weights, weight_stride, values, value_stride, out, out_stride, columns, positions, rows):
        step, zero = ir.constant(ir.Int64, ir.LANES), ir.constant(ir.Int64, 0)
        whole = builder.mul(
            builder.sdiv(columns, ir.constant(ir.Int64, wide * ir.LANES)), ir.constant(ir.Int64, wide * ir.LANES)
        )

        def tile(count: int, vectors: int, column: Any) -> None:
            starts = [builder.add(out, builder.mul(out_stride, ir.constant(ir.Int64, m))) for m in range(count)]
            lines = [builder.add(weights, builder.mul(weight_stride, ir.constant(ir.Int64, m))) for m in range(count)]
            shift = ir.scaled(builder, column, 4)
            places = [ir.offset(builder, builder.add(start, shift), 64 * v) for start in starts for v in range(vectors)]
            sums = ir.allocate(builder, [ir.load(builder, place, ir.Floats) for place in places])
            first = builder.add(values, ir.scaled(builder, column, element_bytes))
            with cgutils.for_range(builder, positions) as loop:
                line = builder.add(first, builder.mul(loop.index, value_stride))
                distances = [ir.offset(builder, line, ir.LANES * element_bytes * v) for v in range(vectors)]
                numbers = [load(builder, distance) for distance in distances]
                for m in range(count):
                    place = builder.add(lines[m], ir.scaled(builder, loop.index, 4))
                    weight = ir.splat(builder, ir.load(builder, place, ir.Float))
                    for v in range(vectors):
                        slot = sums[m * vectors + v]
                        builder.store(ir.multiply_add(builder, weight, numbers[v], builder.load(slot)), slot)
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


score_page, score_two_pages = (_score("float32", _floats, pages) for pages in (1, 2))
score_page_half, score_two_pages_half = (_score("float16", sixteen_halves, pages) for pages in (1, 2))
weigh_page = _weigh("float32", _floats, 4, WIDE)
weigh_page_half = _weigh("float16", sixteen_halves, 2, 1)
