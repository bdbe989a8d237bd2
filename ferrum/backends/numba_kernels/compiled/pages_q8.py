"""The inner loops of attention over keys and values in q8_0: scores and weighted values of pages of 16 positions.

Owns: the inner loops of `splits_q8`, for at most six query rows that share a key/value head. For scores, the sum over
the codes of a group is multiplied with the scale of the group. For values, the weights of the positions are multiplied
with the scales first, and then with the codes.
Next: `ferrum.backends.numba_kernels.compiled.copies`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.blocks import sixteen_halves
from ferrum.backends.numba_kernels.compiled.integer_dots import (
    HAS_DOTS,
    ROWS_AT_ONCE,
    ZERO,
    Bytes,
    Codes,
    Dot,
    Ints,
    four_in_all_rows,
    in_all_rows,
)
from ferrum.backends.numba_kernels.compiled.simd import Index, word
from ferrum.backends.numba_kernels.loading.features import REGISTERS, WIDTH
from ferrum.backends.numba_kernels.sizes import QUERY_ROWS, X_MINUS_128, X_SCALE

GROUP = 32
KEY_CODES = 4
"""Neighbouring dimensions of a key whose codes lie side by side, for each position."""
WIDE = 4 if REGISTERS * WIDTH >= 512 else 1
"""Vectors of output columns that the loop over positions keeps in registers."""
_Bytes = ir.Vector(ir.Int8, ir.LANES)


def _code(builder: Any, fours: Any, number: int) -> Any:
    """Code number `number` of the four signed codes in each lane, as floats."""
    above = 24 - 8 * number
    lifted = builder.shl(fours, ir.constant(ir.Ints, above)) if above else fours
    return builder.sitofp(builder.ashr(lifted, ir.constant(ir.Ints, 24)), ir.Floats)


Page = tuple[Any, Any, Any]
"""Three addresses of a page: its codes (for each four dimensions, those of 16 positions), its scales (for each group,
those of 16 positions), and where its scores go."""


def _float_sums(builder: Any, lines: list[Any], group: Any, pages: list[Page], stride: Any) -> list[Any]:
    """The sums of query times code over a group of 32 dimensions, for each query row and page. `lines`: addresses of
    query rows."""
    sums = ir.allocate_zeros(builder, len(lines) * len(pages))
    starts = [builder.add(line, ir.scaled(builder, group, 4 * GROUP)) for line in lines]
    with cgutils.for_range(builder, ir.constant(ir.Int64, GROUP // KEY_CODES)) as loop:
        place = builder.mul(builder.add(ir.scaled(builder, group, GROUP // KEY_CODES), loop.index), stride)
        raw = [ir.load(builder, builder.add(codes, place), ir.Ints) for codes, _, _ in pages]
        for number in range(KEY_CODES):
            codes = [_code(builder, each, number) for each in raw]
            for m, line in enumerate(starts):
                at = ir.offset(builder, builder.add(line, ir.scaled(builder, loop.index, 4 * KEY_CODES)), 4 * number)
                element = ir.splat(builder, ir.load(builder, at, ir.Float))
                for page, code in enumerate(codes):
                    slot = sums[len(pages) * m + page]
                    builder.store(ir.multiply_add(builder, element, code, builder.load(slot)), slot)
    return [builder.load(slot) for slot in sums]


def _integer_sums(builder: Any, lines: list[Any], group: Any, pages: list[Page], stride: Any) -> list[Any]:
    """The same for rounded queries. The sums of products of codes are exact integers; they are multiplied with the
    scales of the queries."""
    places = [builder.add(line, ir.scaled(builder, group, 4 * GROUP)) for line in lines]
    parts: list[list[Any]] = [[] for _ in range(len(lines) * len(pages))]
    for first in range(0, ir.LANES, ROWS_AT_ONCE):
        starts = [_start(builder, line) for line in places]
        dots = [Dot(builder, start, True, 1) for start in starts for _ in pages]
        for four in range(GROUP // KEY_CODES):
            place = builder.mul(ir.offset(builder, ir.scaled(builder, group, GROUP // KEY_CODES), four), stride)
            at = ir.offset(builder, place, KEY_CODES * first)
            raw = [ir.load(builder, builder.add(codes, at), Bytes) for codes, _, _ in pages]
            ready = [Codes(builder, each, True) for each in raw]
            for m, line in enumerate(places):
                token = four_in_all_rows(builder, ir.offset(builder, line, KEY_CODES * four))
                for page, codes in enumerate(ready):
                    dots[len(pages) * m + page].add(codes, token)
        for whole, dot in zip(parts, dots, strict=True):
            whole.append(dot.floats())
    scales = [ir.splat(builder, ir.load(builder, ir.offset(builder, line, X_SCALE), ir.Float)) for line in places]
    return [builder.fmul(_joined(builder, each), scales[index // len(pages)]) for index, each in enumerate(parts)]


def _start(builder: Any, group: Any) -> Any:
    """The initial value of the sum of a rounded group, in each lane."""
    if not HAS_DOTS:
        return ZERO
    return in_all_rows(builder, ir.load(builder, ir.offset(builder, group, X_MINUS_128), ir.Int32), Ints)


def _joined(builder: Any, parts: list[Any]) -> Any:
    """The concatenation of vectors."""
    while len(parts) > 1:
        lanes = range(2 * parts[0].type.count)
        parts = [ir.shuffle(builder, low, high, lanes) for low, high in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _score_pages(name: str, sums_of: Callable[..., list[Any]]) -> Any:
    """Word (query, query stride, codes and scales of a page, those of a second one, stride, scale stride, groups,
    scores of both pages, score stride, rows): scores[row] (16 floats) = query[row] · keys. Two pages are computed
    together: with one, the few accumulators would wait for their own additions."""

    def build(
        builder, query, query_stride, first, first_scales, second, second_scales, stride, scale_stride, groups,
        first_scores, second_scores, score_stride, rows,
    ):  # fmt: skip
        pages = [(first, first_scales, first_scores), (second, second_scales, second_scores)]

        def tile(count: int) -> None:
            lines = [builder.add(query, builder.mul(query_stride, ir.constant(ir.Int64, m))) for m in range(count)]
            totals = ir.allocate_zeros(builder, len(pages) * count)
            with cgutils.for_range(builder, groups) as loop:
                sums = sums_of(builder, lines, loop.index, pages, stride)
                places = [builder.add(scales, builder.mul(loop.index, scale_stride)) for _, scales, _ in pages]
                steps = [sixteen_halves(builder, place) for place in places]
                for index, (part, slot) in enumerate(zip(sums, totals, strict=True)):
                    total = ir.multiply_add(builder, steps[index % len(pages)], part, builder.load(slot))
                    builder.store(total, slot)
            for index, slot in enumerate(totals):
                row, page = divmod(index, len(pages))
                place = builder.add(pages[page][2], builder.mul(score_stride, ir.constant(ir.Int64, row)))
                ir.store(builder, place, builder.load(slot))

        ir.switch_on(builder, rows, range(1, QUERY_ROWS + 1), tile)

    build.__name__ = f"score_pages_{name}"
    return word(types.void, *[Index] * 13)(build)


score_pages_float = _score_pages("float", _float_sums)
score_pages_rounded = _score_pages("rounded", _integer_sums)


def _fold(builder: Any, weights: Any, weight_stride: Any, scales: Any, slots: list[Any]) -> None:
    """The 16 weights of each row times the 16 scales of a group, stored on the stack, from where they are loaded one by
    one."""
    factors = sixteen_halves(builder, scales)
    for m, slot in enumerate(slots):
        line = builder.add(weights, builder.mul(weight_stride, ir.constant(ir.Int64, m)))
        builder.store(builder.fmul(ir.load(builder, line, ir.Floats), factors), slot)


def _add_values(
    builder: Any, out: list[Any], vectors: int, values: Any, value_stride: Any, positions: Any, slots: list[list[Any]]
) -> None:
    """Adds weights times codes to `vectors` vectors of 16 columns of each row. `out`: addresses of the rows; the
    weights, which include the scale of the group, are in slots[group][row]."""
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
    """out[row] += weights[row] · values, for the first `positions` of 16 positions: later ones may be NaN in memory,
    and 0 * NaN is NaN. A page holds the codes of each position, and for each group the scales of all positions."""
    zero, together = ir.constant(ir.Int64, 0), max(1, WIDE * ir.LANES // GROUP)

    def tile(count: int, step: int, group: Any, slots: list[list[Any]]) -> None:
        """`step` groups of columns of `count` rows."""
        for number in range(step):
            shift = builder.mul(ir.offset(builder, group, number), scale_stride)
            _fold(builder, weights, weight_stride, builder.add(scales, shift), slots[number])
        width, first = step * GROUP // ir.LANES, ir.scaled(builder, group, GROUP)
        for part in range(0, width, min(width, WIDE)):
            column = ir.offset(builder, first, ir.LANES * part)
            starts = [builder.add(out, builder.mul(out_stride, ir.constant(ir.Int64, m))) for m in range(count)]
            targets = [builder.add(start, ir.scaled(builder, column, 4)) for start in starts]
            _add_values(builder, targets, min(width, WIDE), builder.add(values, column), value_stride, positions, slots)

    def all_columns(count: int) -> None:
        slots = [ir.allocate_zeros(builder, count) for _ in range(together)]
        whole = builder.sub(groups, builder.srem(groups, ir.constant(ir.Int64, together)))
        for start, end, step in ((zero, whole, together), (whole, groups, 1))[: min(2, together)]:
            with cgutils.for_range_slice(builder, start, end, ir.constant(ir.Int64, step), inc=True) as (group, _):
                tile(count, step, group, slots)

    ir.switch_on(builder, rows, range(1, QUERY_ROWS + 1), all_columns)
