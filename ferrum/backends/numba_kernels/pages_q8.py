"""Register tiles of attention over keys and values in q8_0: scores and weighted values of pages of 16 positions.

Owns: the inner loops of `splits_q8`, for up to six query rows that share a key/value head. Codes are multiplied as they
are, and what they add up to with the scale of their group: a score costs one more multiplication for each 32 numbers of
a key, a value one for each row and group.
Next: `ferrum.backends.numba_kernels.moves`.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils

from ferrum.backends.numba_kernels import ir
from ferrum.backends.numba_kernels.blocks import sixteen_halves
from ferrum.backends.numba_kernels.features import REGISTERS, WIDTH
from ferrum.backends.numba_kernels.simd import Index, word
from ferrum.backends.numba_kernels.sizes import QUERY_ROWS

GROUP = 32
BESIDE = 4
"""Codes of a key that lie side by side."""
WIDE = 4 if REGISTERS * WIDTH >= 512 else 1
"""Vectors of output columns that the value loop carries at once where there are as many."""
_Bytes = ir.Vector(ir.Int8, ir.LANES)


def _code(builder: Any, fours: Any, number: int) -> Any:
    """One of the four signed codes in each lane, as floats."""
    above = 24 - 8 * number
    lifted = builder.shl(fours, ir.constant(ir.Ints, above)) if above else fours
    return builder.sitofp(builder.ashr(lifted, ir.constant(ir.Ints, 24)), ir.Floats)


@word(types.void, *[Index] * 13)
def score_pages_q8(
    builder, query, query_stride, first, first_scales, second, second_scales, stride, scale_stride, groups,
    first_scores, second_scores, score_stride, rows,
):  # fmt: skip
    """scores[row] (16 floats each) = query[row] · keys, of two pages at a time, so that the sums of one do not wait for
    each other. A page is, for each four dimensions, the codes of 16 positions, and for each group their scales."""
    pages = (first, first_scales, first_scores), (second, second_scales, second_scores)

    def tile(count: int) -> None:
        lines = [builder.add(query, builder.mul(query_stride, ir.constant(ir.Int64, m))) for m in range(count)]
        totals = ir.allocate_zeros(builder, 2 * count)
        with cgutils.for_range(builder, groups) as loop:
            own = [builder.add(line, ir.scaled(builder, loop.index, 4 * GROUP)) for line in lines]
            sums = ir.allocate_zeros(builder, 2 * count)
            with cgutils.for_range(builder, ir.constant(ir.Int64, GROUP // BESIDE)) as inner:
                fours = builder.add(ir.scaled(builder, loop.index, GROUP // BESIDE), inner.index)
                place = builder.mul(fours, stride)
                raw = [ir.load(builder, builder.add(page, place), ir.Ints) for page, _, _ in pages]
                for number in range(BESIDE):
                    codes = [_code(builder, each, number) for each in raw]
                    for m in range(count):
                        at = ir.offset(builder, builder.add(own[m], ir.scaled(builder, inner.index, 16)), 4 * number)
                        element = ir.splat(builder, ir.load(builder, at, ir.Float))
                        for page in (0, 1):
                            slot = sums[2 * m + page]
                            added = ir.multiply_add(builder, element, codes[page], builder.load(slot))
                            builder.store(added, slot)
            for page in (0, 1):
                place = builder.add(pages[page][1], builder.mul(loop.index, scale_stride))
                scales = sixteen_halves(builder, place)
                for m in range(count):
                    slot = totals[2 * m + page]
                    total = ir.multiply_add(builder, scales, builder.load(sums[2 * m + page]), builder.load(slot))
                    builder.store(total, slot)
        for m in range(count):
            for page in (0, 1):
                place = builder.add(pages[page][2], builder.mul(score_stride, ir.constant(ir.Int64, m)))
                ir.store(builder, place, builder.load(totals[2 * m + page]))

    ir.switch_on(builder, rows, range(1, QUERY_ROWS + 1), tile)


def _fold(builder: Any, weights: Any, weight_stride: Any, scales: Any, slots: list[Any]) -> None:
    """Each row's 16 weights times the 16 scales of a group, to memory, where a multiplication finds them one by one."""
    own = sixteen_halves(builder, scales)
    for m, slot in enumerate(slots):
        line = builder.add(weights, builder.mul(weight_stride, ir.constant(ir.Int64, m)))
        builder.store(builder.fmul(ir.load(builder, line, ir.Floats), own), slot)


def _add_values(
    builder: Any, out: list[Any], vectors: int, values: Any, value_stride: Any, positions: Any, slots: list[list[Any]]
) -> None:
    """`vectors` times 16 columns of each row, whose addresses are `out`, grow by weights of their group (in
    slots[group][row]) times codes."""
    places = [ir.offset(builder, start, 64 * v) for start in out for v in range(vectors)]
    sums = ir.allocate(builder, [ir.load(builder, place, ir.Floats) for place in places])
    with cgutils.for_range(builder, positions) as loop:
        line, lane = builder.add(values, builder.mul(loop.index, value_stride)), ir.scaled(builder, loop.index, 4)
        raw = [ir.load(builder, ir.offset(builder, line, ir.LANES * v), _Bytes) for v in range(vectors)]
        codes = [ir.widen(builder, each) for each in raw]
        for m in range(len(out)):
            for v in range(vectors):
                place = builder.add(builder.ptrtoint(slots[v * ir.LANES // GROUP][m], ir.Int64), lane)
                weight = ir.splat(builder, ir.load(builder, place, ir.Float))
                slot = sums[m * vectors + v]
                builder.store(ir.multiply_add(builder, weight, codes[v], builder.load(slot)), slot)
    for place, slot in zip(places, sums, strict=True):
        ir.store(builder, place, builder.load(slot))


@word(types.void, *[Index] * 11)
def weigh_page_q8(
    builder,
    weights,
    weight_stride,
    values,
    value_stride,
    scales,
    scale_stride,
    out,
    out_stride,
    groups,
    positions,
    rows,
):
    """out[row] += weights[row] · values, for the first `positions` of 16 positions: later ones may be unwritten memory,
    and 0 * NaN is NaN. A page is the codes of each position, and for each group the scales of all."""
    zero, together = ir.constant(ir.Int64, 0), max(1, WIDE * ir.LANES // GROUP)

    def tile(count: int, step: int, group: Any, slots: list[list[Any]]) -> None:
        """`step` groups of columns of so many rows."""
        for number in range(step):
            own = builder.mul(ir.offset(builder, group, number), scale_stride)
            _fold(builder, weights, weight_stride, builder.add(scales, own), slots[number])
        width, first = step * GROUP // ir.LANES, ir.scaled(builder, group, GROUP)
        for part in range(0, width, min(width, WIDE)):
            column = ir.offset(builder, first, ir.LANES * part)
            starts = [builder.add(out, builder.mul(out_stride, ir.constant(ir.Int64, m))) for m in range(count)]
            own_out = [builder.add(start, ir.scaled(builder, column, 4)) for start in starts]
            _add_values(builder, own_out, min(width, WIDE), builder.add(values, column), value_stride, positions, slots)

    def all_columns(count: int) -> None:
        slots = [ir.allocate_zeros(builder, count) for _ in range(together)]
        whole = builder.sub(groups, builder.srem(groups, ir.constant(ir.Int64, together)))
        for start, end, step in ((zero, whole, together), (whole, groups, 1))[: min(2, together)]:
            with cgutils.for_range_slice(builder, start, end, ir.constant(ir.Int64, step), inc=True) as (group, _):
                tile(count, step, group, slots)

    ir.switch_on(builder, rows, range(1, QUERY_ROWS + 1), all_columns)
