"""Tiles of int8 products: units of sixteen rows times a few tokens.

Owns: the order of additions of one sum. A row and a token have one float accumulator; groups are added in order, and
the multiplication and the addition of a group are rounded separately. So the bits depend neither on the tile, nor on
the target, nor on the other tokens of the batch: they are those of `product` in `ferrum.tensor.int8`.
Next: `ferrum.backends.numba_kernels.compiled.integer_products`.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.integer_blocks import UNIT_KINDS, Run, UnitKind
from ferrum.backends.numba_kernels.compiled.integer_dots import (
    ROWS_AT_ONCE,
    ZERO,
    Codes,
    Dot,
    Floats,
    Ints,
    four_in_all_rows,
    in_all_rows,
)
from ferrum.backends.numba_kernels.compiled.tiles import named_word, spaced
from ferrum.backends.numba_kernels.sizes import (
    GROUP,
    UNIT_BLOCK_BYTES,
    UNIT_GROUPS,
    UNIT_ROWS,
    X_BYTES,
    X_SCALE,
    X_SCALED_SUM,
)

PARTS = UNIT_ROWS // ROWS_AT_ONCE
"""Registers that hold four columns of all rows of a unit."""


def tile(name: str, units: int, tokens: int, ahead: int) -> Any:
    """Word (address of the first unit, bytes of a unit, columns, x, x stride, out, out stride, start, start stride,
    how many units, a multiple of `units`): out[t, r] = sum, plus start[t, r] where `start` is not null.

    x: rounded groups, as `sizes` describes. ahead: distance of prefetching in bytes; 0 for none."""

    def build(builder, weight, unit, columns, x, x_stride, out, out_stride, start, start_stride, count):
        xs = spaced(builder, x, x_stride, tokens)
        step = ir.constant(ir.Int64, units)
        with cgutils.for_range_slice(builder, ir.constant(ir.Int64, 0), count, step, inc=True) as (number, _):
            weights = spaced(builder, builder.add(weight, builder.mul(unit, number)), unit, units)
            place = ir.scaled(builder, number, 4 * UNIT_ROWS)

            def multiply(parts: list[Any]) -> None:
                rows = [(base, part) for base in weights for part in parts]
                distances = [_distance(builder, u, part) for u in range(units) for part in parts]
                for values, distance in zip(_sums(builder, name, rows, xs, columns, ahead), distances, strict=True):
                    _store(builder, values, builder.add(place, distance), out, out_stride, start, start_stride)

            if tokens == 1:  # memory is the limit: all parts of a cache line are used together
                multiply([ir.constant(ir.Int64, part) for part in range(PARTS)])
            else:  # one part at a time, because registers are few
                with cgutils.for_range(builder, ir.constant(ir.Int64, PARTS)) as loop:
                    multiply([loop.index])

    return named_word(build, f"integer_tile_{name}_{units}_{tokens}", 10)


def _distance(builder: Any, unit: int, part: Any) -> Any:
    """Bytes from the result of the first row of the first unit to that of the first row of a part."""
    return ir.offset(builder, ir.scaled(builder, part, 4 * ROWS_AT_ONCE), 4 * UNIT_ROWS * unit)


def _store(builder: Any, values: list[Any], place: Any, out: Any, stride: Any, start: Any, start_stride: Any) -> None:
    """Writes the sums of the rows of one register, one vector for each token."""
    outs = spaced(builder, builder.add(out, place), stride, len(values))
    starts = spaced(builder, builder.add(start, place), start_stride, len(values))
    with builder.if_else(builder.icmp_signed("==", start, ir.constant(ir.Int64, 0))) as (without, with_start):
        with without:
            for target, value in zip(outs, values, strict=True):
                ir.store(builder, target, value)
        with with_start:
            for target, value, base in zip(outs, values, starts, strict=True):
                ir.store(builder, target, builder.fadd(value, ir.load(builder, base, Floats)))


def _sums(
    builder: Any, name: str, parts: list[tuple[Any, Any]], xs: list[Any], columns: Any, ahead: int
) -> list[list[Any]]:
    """-> for each (unit, part of its rows), the sums of all tokens."""
    kind, groups, size = UNIT_KINDS[name], UNIT_GROUPS[name], UNIT_BLOCK_BYTES[name]
    slots = [ir.allocate(builder, [ir.constant(Floats, 0.0)] * len(xs)) for _ in parts]
    span = GROUP * groups
    blocks = builder.udiv(ir.offset(builder, columns, span - 1), ir.constant(ir.Int64, span))
    with cgutils.for_range(builder, blocks) as loop:
        place = ir.scaled(builder, loop.index, size)
        tokens = [builder.add(x, ir.scaled(builder, loop.index, X_BYTES * groups)) for x in xs]
        units = [builder.add(base, place) for base, _ in parts]
        with cgutils.for_range(builder, ir.constant(ir.Int64, kind.turns)) as turns:
            turn, share = turns.index, X_BYTES * groups // kind.turns
            groups_of_turn = [builder.add(token, ir.scaled(builder, turn, share)) for token in tokens]
            ahead_of = builder.add(units[0], ir.scaled(builder, turn, size // kind.turns))
            reads = [kind.read(builder, unit, turn, part) for unit, (_, part) in zip(units, parts, strict=True)]
            lines = -(-size // kind.turns // 64)
            for number, run in enumerate(zip(*reads, strict=True)):
                ir.keep_order(builder)  # if LLVM mixed the groups, the hardware would not prefetch them
                if ahead:  # some lines at each group: too many prefetches at once would stall
                    _prefetch(builder, ahead_of, _share(lines, number, groups // kind.turns), ahead)
                _add_run(builder, kind, run, groups_of_turn, slots)
    return [[builder.load(slot) for slot in each] for each in slots]


def _share(lines: int, number: int, groups: int) -> range:
    """The cache lines of a turn that are prefetched at its run `number`: a share for each group, none at further
    runs."""
    return range(lines * number // groups, lines * (number + 1) // groups) if number < groups else range(0)


def _add_run(builder: Any, kind: UnitKind, runs: tuple[Run, ...], tokens: list[Any], slots: list[list[Any]]) -> None:
    """Adds one run of columns to the sums of every part and token."""
    first = runs[0]
    groups = [ir.offset(builder, token, X_BYTES * first.group) for token in tokens]
    dots: list[list[Dot]] = [[] for _ in runs]
    for group in groups:
        begin = ZERO
        if first.start is not None:
            begin = in_all_rows(builder, ir.load(builder, ir.offset(builder, group, first.start), ir.Int32), Ints)
        for dots_of_run in dots:
            dots_of_run.append(Dot(builder, begin, kind.signed, kind.pairs))
    for codes in zip(*(run.codes for run in runs), strict=True):
        ready = [Codes(builder, raw, kind.signed) for _, raw in codes]
        for t, group in enumerate(groups):
            four = four_in_all_rows(builder, ir.offset(builder, group, 4 * codes[0][0]))
            for dots_of_run, each in zip(dots, ready, strict=True):
                dots_of_run[t].add(each, four)
    for t, group in enumerate(groups):
        scale = in_all_rows(builder, ir.load(builder, ir.offset(builder, group, X_SCALE), ir.Float), Floats)
        for run, dots_of_run, sums in zip(runs, dots, slots, strict=True):
            product = builder.fmul(dots_of_run[t].floats(), builder.fmul(run.step, scale))
            total = builder.fadd(builder.load(sums[t]), product)
            if run.minimum is not None:
                summed = ir.load(builder, ir.offset(builder, group, X_SCALED_SUM), ir.Float)
                least = builder.fmul(run.minimum, in_all_rows(builder, summed, Floats))
                total = builder.fadd(total, least)
            builder.store(total, sums[t])


def _prefetch(builder: Any, unit: Any, lines: range, ahead: int) -> None:
    """Prefetches these cache lines of a block, `ahead` bytes later."""
    for line in lines:
        ir.prefetch(builder, ir.offset(builder, unit, 64 * line + ahead))
