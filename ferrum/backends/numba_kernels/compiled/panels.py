"""Products for many tokens: tiles of decoded weight rows times tokens, one block of columns at a time.

Owns: `strip`, the inner loop of every product of more than a few tokens. A tile keeps its accumulators in registers for
one block of columns and then stores them in memory, so that both operands of a block stay in the first-level cache
however long the rows are. As in `tiles`, the sum of a row and a token has one accumulator of 16 lanes, adds columns in
order, and ends with one reduction tree. Where a register has fewer lanes, the lanes are computed in several passes.
Next: `ferrum.backends.numba_kernels.compiled.activations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from numba.core import cgutils

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.tiles import Operands, cover, named_word, spaced, store_sums
from ferrum.backends.numba_kernels.loading.features import WIDTH
from ferrum.backends.numba_kernels.sizes import TILE_BYTES, TILE_ROWS, TILE_TOKENS


@dataclass(frozen=True)
class Arithmetic:
    """The types of the operands of a strip, and how they are multiplied."""

    name: str
    sums: Any  # type of the accumulator of one pass
    operand: Any  # type of a vector of weights or inputs
    step: int  # bytes of 32 columns of an operand
    multiply_add: Callable[..., Any]  # (builder, weights, inputs, sums) -> sums

    @property
    def passes(self) -> int:
        return ir.LANES // int(self.sums.count)

    def distances(self, part: int) -> range:
        """The offsets of the operands of pass `part` within 32 columns."""
        return range(4 * self.sums.count * part, self.step, 64)


_Register = ir.Vector(ir.Float, WIDTH)
FLOAT32 = Arithmetic("float32", _Register, _Register, 128, ir.multiply_add)
BFLOAT16 = Arithmetic("bfloat16", ir.Floats, ir.Ints, 64, ir.dot_pairs)
"""Operands are pairs of bfloat16, of columns i and i + 16; sums are float32."""


def round_row() -> Any:
    """Word (destination, source, columns): float32 to pairs of bfloat16. `columns` is a multiple of 32."""

    def build(builder, destination, source, columns):
        with cgutils.for_range(builder, builder.udiv(columns, ir.constant(ir.Int64, 32))) as loop:
            place = builder.add(source, ir.scaled(builder, loop.index, 128))
            low, high = (ir.load(builder, ir.offset(builder, place, distance), ir.Floats) for distance in (0, 64))
            target = builder.add(destination, ir.scaled(builder, loop.index, 64))
            ir.store(builder, target, ir.pairs_of(builder, low, high))

    return named_word(build, "round_row", 3)


def strip(arithmetic: Arithmetic) -> Any:
    """Word (panel, row stride, columns, x, x stride, sums, out, out stride, start, start stride, rows, tokens, first,
    last): the product of rows and 1 to PANEL_TOKENS tokens for one block of columns, a multiple of 32. `sums` is memory
    for the accumulators, TILE_BYTES for every TILE_ROWS rows. The first block (first != 0) does not read it; the last
    block (last != 0) writes results to `out` instead. rows >= TILE_ROWS."""

    def build(
        builder, panel, row_stride, columns, x, x_stride, sums, out, out_stride, start, start_stride, rows,
        tokens, first, last
    ):  # fmt: skip
        operands = Operands(panel, row_stride, x, x_stride, out, out_stride, start, start_stride)
        begins, ends = (builder.icmp_signed("!=", flag, ir.constant(ir.Int64, 0)) for flag in (first, last))

        place = cgutils.alloca_once_value(builder, sums)

        def row_of_tiles(row: Any) -> None:
            """All tokens for TILE_ROWS rows, tile by tile: the rows stay in the first-level cache."""
            tile_row, accumulators = operands.at(builder, row), builder.load(place)
            step = ir.constant(ir.Int64, TILE_TOKENS)
            with cgutils.for_range_slice(builder, ir.constant(ir.Int64, 0), tokens, step, inc=True) as (token, _):
                at, below = (
                    tile_row.after(builder, token),
                    builder.add(accumulators, ir.scaled(builder, token, 64 * TILE_ROWS)),
                )
                tokens_left = builder.sub(tokens, token)
                count = builder.select(builder.icmp_signed("<", tokens_left, step), tokens_left, step)

                def tile(size: int) -> None:
                    _tile(builder, arithmetic, size, columns, at, begins, ends, below)

                ir.switch_on(builder, count, range(1, TILE_TOKENS + 1), tile)
            builder.store(ir.offset(builder, accumulators, TILE_BYTES), place)

        cover(builder, ir.constant(ir.Int64, 0), rows, TILE_ROWS, row_of_tiles)

    return named_word(build, f"strip_{arithmetic.name}", 14)


def _tile(
    builder: Any,
    arithmetic: Arithmetic,
    tokens: int,
    columns: Any,
    at: Operands,
    begins: Any,
    ends: Any,
    accumulators: Any,
) -> None:
    """The tile of TILE_ROWS rows and `tokens` tokens, at most TILE_TOKENS."""
    parts = [
        _sums(builder, arithmetic, each, tokens, columns, at, begins, accumulators) for each in range(arithmetic.passes)
    ]
    with builder.if_else(ends) as (then, otherwise):
        with then:
            store_sums(builder, parts, TILE_ROWS, tokens, at)
        with otherwise:
            places = _places(builder, arithmetic, accumulators, tokens)
            for address, sums_of_lanes in zip(places, chain(*parts), strict=True):
                ir.store(builder, address, sums_of_lanes)


def _places(builder: Any, arithmetic: Arithmetic, accumulators: Any, tokens: int) -> list[Any]:
    """The addresses of a tile's accumulators: all of the first pass, then all of the next."""
    size = 4 * arithmetic.sums.count
    return [ir.offset(builder, accumulators, size * i) for i in range(arithmetic.passes * TILE_ROWS * tokens)]


def _sums(
    builder: Any,
    arithmetic: Arithmetic,
    part: int,
    tokens: int,
    columns: Any,
    at: Operands,
    begins: Any,
    accumulators: Any,
) -> list[Any]:
    """One pass: the lanes number `part` of the accumulators of a tile."""
    count = TILE_ROWS * tokens
    weight_rows = spaced(builder, at.weight, at.weight_stride, TILE_ROWS)
    token_rows = spaced(builder, at.x, at.x_stride, tokens)
    slots = ir.allocate(builder, [ir.constant(arithmetic.sums, 0.0)] * count)
    with builder.if_then(builder.not_(begins)):
        for place, slot in zip(
            _places(builder, arithmetic, accumulators, tokens)[part * count :][:count], slots, strict=True
        ):
            builder.store(ir.load(builder, place, arithmetic.sums), slot)
    with cgutils.for_range(builder, builder.udiv(columns, ir.constant(ir.Int64, 32))) as loop:
        for distance in arithmetic.distances(part):
            place = ir.offset(builder, ir.scaled(builder, loop.index, arithmetic.step), distance)
            for r, t, weight, value in _operands(builder, arithmetic, weight_rows, token_rows, place):
                slot = slots[t * TILE_ROWS + r]
                builder.store(arithmetic.multiply_add(builder, weight, value, builder.load(slot)), slot)
    return [builder.load(slot) for slot in slots]


def _operands(
    builder: Any, arithmetic: Arithmetic, rows: list[Any], tokens: list[Any], place: Any
) -> Iterator[tuple[int, int, Any, Any]]:
    """(row, token, weights, inputs). Of rows and tokens, the fewer stay in registers, and the others are loaded one by
    one."""

    def read(base: Any) -> Any:
        return ir.load(builder, builder.add(base, place), arithmetic.operand)

    if len(tokens) < len(rows):
        inputs = [read(token) for token in tokens]
        for r, row in enumerate(rows):
            weights = read(row)
            yield from ((r, t, weights, values) for t, values in enumerate(inputs))
    else:
        row_weights = [read(row) for row in rows]
        for t, token in enumerate(tokens):
            values = read(token)
            yield from ((r, t, weights, values) for r, weights in enumerate(row_weights))
