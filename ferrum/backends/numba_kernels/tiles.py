"""Register tiles: the inner loops of every matrix product.

Owns: `dot_tile`, R weight rows times T token rows with all sums in registers, and the loops that cover a matrix with
it. Every (row, token) sum has one 16-lane accumulator, groups in order, one reduction tree: its bits do not depend on
R, T or who else is in the batch.
Next: `ferrum.backends.numba_kernels.linear`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core import cgutils

from ferrum.backends.numba_kernels import ir
from ferrum.backends.numba_kernels.blocks import GROUP_BYTES, decode_group
from ferrum.backends.numba_kernels.features import HAS_AVX512
from ferrum.backends.numba_kernels.simd import Index, word

FEW = 4
"""Tokens up to which a product decodes weights in registers for each tile."""
ROWS = 4
"""Weight rows of a tile; every matrix with at least this many rows is covered, the last tile overlapping."""
PANEL_TOKENS = 6 if HAS_AVX512 else 3
PANEL_ROWS = 4 if HAS_AVX512 else 2
"""Accumulators must fit the register file: 32 registers hold 4 x 6 vectors of 16 floats, AVX2's 16 hold 2 x 3."""


class Operands:
    """LLVM values of one tile's operands; strides in bytes.

    out[t, r] = sum over columns of weight[r] * x[t], plus start[t, r] where `start` is not null.
    """

    def __init__(self, weight, weight_stride, x, x_stride, groups, out, out_stride, start, start_stride):
        self.weight, self.weight_stride = weight, weight_stride
        self.x, self.x_stride = x, x_stride
        self.groups = groups
        self.out, self.out_stride = out, out_stride
        self.start, self.start_stride = start, start_stride

    def at(self, builder: Any, row: Any, token: Any) -> Operands:
        """The operands of the tile whose first row and token are these."""

        def move(base: Any, stride: Any, index: Any) -> Any:
            return builder.add(base, builder.mul(stride, index))

        four = ir.scaled(builder, row, 4)
        return Operands(
            move(self.weight, self.weight_stride, row),
            self.weight_stride,
            move(self.x, self.x_stride, token),
            self.x_stride,
            self.groups,
            builder.add(move(self.out, self.out_stride, token), four),
            self.out_stride,
            _unless_null(builder, self.start, builder.add(move(self.start, self.start_stride, token), four)),
            self.start_stride,
        )


def _unless_null(builder: Any, base: Any, moved: Any) -> Any:
    return builder.select(builder.icmp_signed("==", base, ir.constant(ir.Int64, 0)), base, moved)


def dot_tile(builder: Any, kind: str, rows: int, tokens: int, ahead: int, operands: Operands) -> None:
    """rows x tokens sums; with ahead > 0 the weights `ahead` tiles further on are prefetched, because several
    interleaved row streams defeat the hardware's own prefetcher."""
    step = GROUP_BYTES[kind]
    weight_rows = _spaced(builder, operands.weight, operands.weight_stride, rows)
    token_rows = _spaced(builder, operands.x, operands.x_stride, tokens)
    sums = ir.allocate_zeros(builder, rows * tokens)
    with cgutils.for_range(builder, operands.groups) as loop:
        place = ir.scaled(builder, loop.index, step)
        decoded = [decode_group(builder, kind, builder.add(row, place)) for row in weight_rows]
        if ahead:
            distance = builder.add(place, ir.scaled(builder, operands.weight_stride, rows * ahead))
            for row in weight_rows:
                _prefetch(builder, builder.add(row, distance), step)
        for half in (0, 1):
            column = ir.offset(builder, ir.scaled(builder, loop.index, 128), 64 * half)
            for t, token_row in enumerate(token_rows):
                values = ir.load(builder, builder.add(token_row, column), ir.Floats)
                for r in range(rows):
                    slot = sums[t * rows + r]
                    builder.store(ir.multiply_add(builder, decoded[r][half], values, builder.load(slot)), slot)
    _store_sums(builder, [builder.load(slot) for slot in sums], rows, tokens, operands)


def _spaced(builder: Any, base: Any, stride: Any, count: int) -> list[Any]:
    """base, base + stride, base + 2 stride, …"""
    places = [base]
    while len(places) < count:
        places.append(builder.add(places[-1], stride))
    return places


def _prefetch(builder: Any, address: Any, size: int) -> None:
    """Ask for the cache lines of the next `size` bytes."""
    for line in range(0, max(size, 64), 64):
        ir.prefetch(builder, ir.offset(builder, address, line))


def _store_sums(builder: Any, vectors: list[Any], rows: int, tokens: int, operands: Operands) -> None:
    totals = ir.horizontal_sums(builder, vectors)
    no_start = builder.icmp_signed("==", operands.start, ir.constant(ir.Int64, 0))
    readable = builder.select(no_start, operands.out, operands.start)  # never read through a null address
    stride = builder.select(no_start, operands.out_stride, operands.start_stride)
    for token in range(tokens):
        for row in range(rows):

            def place(base: Any, step: Any, token: int = token, row: int = row) -> Any:
                return ir.offset(builder, builder.add(base, builder.mul(step, ir.constant(ir.Int64, token))), 4 * row)

            found = ir.load(builder, place(readable, stride), ir.Float)
            start = builder.select(no_start, ir.constant(ir.Float, 0.0), found)
            total = builder.fadd(totals[token * rows + row], start)
            ir.store(builder, place(operands.out, operands.out_stride), total)


def few_tokens(kind: str, ahead: int) -> Any:
    """Word (weight, row bytes, groups, x, x stride, out, out stride, start, start stride, first row, end row, tokens):
    up to FEW tokens, weights decoded in registers. end - first >= ROWS; a last partial tile overlaps its neighbour,
    which is harmless because every sum is written once with the same bits."""

    def build(
        builder, weight, row_bytes, groups, x, x_stride, out, out_stride, start, start_stride, first, end, tokens
    ):
        operands = Operands(weight, row_bytes, x, x_stride, groups, out, out_stride, start, start_stride)
        last = ir.offset(builder, end, -ROWS)

        def cover(count: int) -> None:
            with cgutils.for_range_slice(builder, first, end, ir.constant(ir.Int64, ROWS), inc=True) as (row, _):
                row = builder.select(builder.icmp_signed(">", row, last), last, row)
                tile = operands.at(builder, row, ir.constant(ir.Int64, 0))
                dot_tile(builder, kind, ROWS, count, ahead if count == 1 else 0, tile)

        ir.switch_on(builder, tokens, range(1, FEW + 1), cover)

    return _named(build, f"few_tokens_{kind}", 12)


def dense_panel() -> Any:
    """Word (weight, row bytes, groups, x, x stride, out, out stride, start, start stride, rows, tokens): float32 rows
    times any number of tokens. Token tiles outside, row tiles inside: the panel stays in cache. rows >= PANEL_ROWS."""

    def build(builder, weight, row_bytes, groups, x, x_stride, out, out_stride, start, start_stride, rows, tokens):
        operands = Operands(weight, row_bytes, x, x_stride, groups, out, out_stride, start, start_stride)
        last = ir.offset(builder, rows, -PANEL_ROWS)
        zero, step = ir.constant(ir.Int64, 0), ir.constant(ir.Int64, PANEL_ROWS)
        width = ir.constant(ir.Int64, PANEL_TOKENS)
        whole = builder.mul(builder.sdiv(tokens, width), width)

        def strip(count: int, token: Any) -> None:
            with cgutils.for_range_slice(builder, zero, rows, step, inc=True) as (row, _):
                row = builder.select(builder.icmp_signed(">", row, last), last, row)
                dot_tile(builder, "f32", PANEL_ROWS, count, 0, operands.at(builder, row, token))

        with cgutils.for_range_slice(builder, zero, whole, width, inc=True) as (token, _):
            strip(PANEL_TOKENS, token)
        ir.switch_on(builder, builder.sub(tokens, whole), range(1, PANEL_TOKENS), lambda count: strip(count, whole))

    return _named(build, "dense_panel", 11)


def decode_row(kind: str) -> Any:
    """Word (destination, source, groups): one stored row to float32."""

    def build(builder, destination, source, groups):
        with cgutils.for_range(builder, groups) as loop:
            stored = builder.add(source, ir.scaled(builder, loop.index, GROUP_BYTES[kind]))
            place = builder.add(destination, ir.scaled(builder, loop.index, 128))
            for half, values in enumerate(decode_group(builder, kind, stored)):
                ir.store(builder, ir.offset(builder, place, 64 * half), values)

    return _named(build, f"decode_row_{kind}", 3)


def _named(build: Callable[..., Any], name: str, count: int) -> Any:
    build.__name__ = name
    return word(types.void, *[Index] * count)(build)
