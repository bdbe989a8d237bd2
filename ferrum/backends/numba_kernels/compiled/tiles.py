"""Products for few tokens: tiles of weight rows times tokens, with weights decoded in registers for each tile.

Owns: the operands of a tile, and `few_tokens`, which covers a matrix with tiles. The sum of a row and a token has one
accumulator of 16 lanes, adds columns in order, and ends with one reduction tree: its bits depend neither on the shape
of the tile nor on the other tokens of the batch.
Next: `ferrum.backends.numba_kernels.compiled.panels`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from numba import types
from numba.core import cgutils

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.blocks import Decoder, Kind
from ferrum.backends.numba_kernels.compiled.k_blocks import KINDS
from ferrum.backends.numba_kernels.compiled.simd import Index, word
from ferrum.backends.numba_kernels.loading.features import REGISTERS, WIDTH

SUMS = REGISTERS * WIDTH // 32
"""Accumulators of 16 lanes that fit into half of the registers; decoding needs the other half."""
ROWS = 4 if SUMS >= 16 else 2
"""Weight rows of a tile, and least rows of a matrix. Two rows that share their inputs are faster than one even where
not all accumulators stay in registers."""
STRIP = 4 if WIDTH >= 8 else 2
"""Most tokens of a tile."""
FEW = 16 if SUMS >= 16 else STRIP
"""Most tokens for which weights are decoded for each tile; for more tokens it is faster to decode a panel once."""
FEW_BFLOAT16 = min(FEW, 8)
"""The same where the products of panels are in bfloat16, which is faster."""
AHEAD = 8 << 10
"""Distance of prefetching in bytes, rounded up to whole tiles: less would not hide the latency of memory, and more
would not fit into the first-level cache."""

Decoders = list[tuple[Kind, Decoder]]


class Operands:
    """LLVM values of one tile's operands; strides in bytes.

    out[t, r] = sum over columns of weight[r] * x[t], plus start[t, r] where `start` is not null.
    """

    def __init__(self, weight, weight_stride, x, x_stride, out, out_stride, start, start_stride):
        self.weight, self.weight_stride = weight, weight_stride
        self.x, self.x_stride = x, x_stride
        self.out, self.out_stride = out, out_stride
        self.start, self.start_stride = start, start_stride

    def at(self, builder: Any, row: Any) -> Operands:
        """The operands of the tile that begins with this row."""
        four = ir.scaled(builder, row, 4)
        return Operands(
            builder.add(self.weight, builder.mul(self.weight_stride, row)),
            self.weight_stride,
            self.x,
            self.x_stride,
            builder.add(self.out, four),
            self.out_stride,
            _unless_null(builder, self.start, builder.add(self.start, four)),
            self.start_stride,
        )

    def after(self, builder: Any, tokens: Any) -> Operands:
        """The operands of the tile that begins `tokens` tokens later."""

        def moved(base: Any, stride: Any) -> Any:
            return builder.add(base, builder.mul(stride, tokens))

        start = _unless_null(builder, self.start, moved(self.start, self.start_stride))
        x, out = moved(self.x, self.x_stride), moved(self.out, self.out_stride)
        return Operands(
            self.weight, self.weight_stride, x, self.x_stride, out, self.out_stride, start, self.start_stride
        )


def _unless_null(builder: Any, base: Any, moved: Any) -> Any:
    return builder.select(builder.icmp_signed("==", base, ir.constant(ir.Int64, 0)), base, moved)


def spaced(builder: Any, base: Any, stride: Any, count: int) -> list[Any]:
    """base, base + stride, base + 2 stride, …"""
    places = [base]
    while len(places) < count:
        places.append(builder.add(places[-1], stride))
    return places


def cover(builder: Any, first: Any, end: Any, rows: int, body: Callable[[Any], None]) -> None:
    """Runs body(row) for tiles of `rows` rows from `first` to `end`; end - first >= rows. A last tile that would be
    partial begins earlier and overlaps its neighbour: some sums are written twice, with the same bits."""
    last = ir.offset(builder, end, -rows)
    with cgutils.for_range_slice(builder, first, end, ir.constant(ir.Int64, rows), inc=True) as (row, _):
        body(builder.select(builder.icmp_signed(">", row, last), last, row))


def store_sums(builder: Any, parts: list[list[Any]], rows: int, tokens: int, at: Operands) -> None:
    """Adds up the lanes of each accumulator and writes the sums. parts[p][t * rows + r] is part p of the accumulator of
    row r and token t."""
    totals = ir.horizontal_sums(builder, parts)
    outs = spaced(builder, at.out, at.out_stride, tokens)
    starts = spaced(builder, at.start, at.start_stride, tokens)
    vectors = [ir.pack(builder, totals[rows * t :][:rows]) for t in range(tokens)]
    with builder.if_else(builder.icmp_signed("==", at.start, ir.constant(ir.Int64, 0))) as (without, with_start):
        with without:
            for out, vector in zip(outs, vectors, strict=True):
                ir.store(builder, out, vector)
        with with_start:
            for out, vector, start in zip(outs, vectors, starts, strict=True):
                ir.store(builder, out, builder.fadd(vector, ir.load(builder, start, vector.type)))


def _each_block(builder: Any, decoders: Decoders, columns: Any, body: Callable[[Kind, Any, Any, Any], None]) -> None:
    """Runs body(kind, decoder, column, offset of the block in bytes) for the blocks of a row: first runs, then single
    blocks."""
    first = ir.constant(ir.Int64, 0)
    for kind, decode in decoders:
        size = ir.constant(ir.Int64, kind.size)
        end = builder.mul(builder.udiv(columns, size), size)
        with cgutils.for_range_slice(builder, first, end, size, inc=True) as (column, _):
            body(kind, decode, column, ir.scaled(builder, builder.udiv(column, size), kind.bytes))
        first = end


def _decoders(builder: Any, kind: Kind) -> Decoders:
    """The decoders of a run, if the kind has runs, and of a block."""
    return [(each, each.decoder(builder)) for each in (kind.run, kind) if each is not None]


def _tile(builder: Any, decoders: Decoders, tokens: int, distance: Any, columns: Any, at: Operands) -> None:
    """ROWS x tokens sums. Weights are prefetched `distance` bytes ahead, because the hardware does not prefetch several
    interleaved rows."""
    weight_rows = spaced(builder, at.weight, at.weight_stride, ROWS)
    token_rows = spaced(builder, at.x, at.x_stride, tokens)
    sums = ir.allocate_zeros(builder, ROWS * tokens)

    def multiply(kind: Kind, decode: Decoder, column: Any, place: Any) -> None:
        blocks = [builder.add(row, place) for row in weight_rows]
        for block in blocks:
            _prefetch(builder, builder.add(block, distance), kind.bytes)
        inputs = [builder.add(row, ir.scaled(builder, column, 4)) for row in token_rows]
        for r, index, weights, row_inputs in _in_order(builder, [decode(block) for block in blocks], inputs):
            for t, values in enumerate(row_inputs):
                slot = sums[t * ROWS + r]
                vector = ir.load(builder, ir.offset(builder, values, 64 * index), ir.Floats)
                builder.store(ir.multiply_add(builder, weights, vector, builder.load(slot)), slot)

    _each_block(builder, decoders, columns, multiply)
    store_sums(builder, [[builder.load(slot) for slot in sums]], ROWS, tokens, at)


def _in_order(builder: Any, rows: list[Iterator[Any]], inputs: list[Any]) -> Iterator[tuple[int, int, Any, list[Any]]]:
    """(row, index of the vector in its block, the vector, addresses of the inputs), in an order for which the registers
    suffice. With 32 registers, a vector of inputs is loaded once for all rows. With 16, a row is multiplied before the
    next one is decoded, two vectors at a time, and each row loads its inputs again."""
    if REGISTERS > 16:
        for index, vectors in enumerate(zip(*rows, strict=True)):
            for r, vector in enumerate(vectors):
                yield r, index, vector, inputs
        return
    for r, row in enumerate(rows):
        addresses = [ir.opaque(builder, address) for address in inputs]
        for index, vector in enumerate(row):
            if index % 2:
                ir.keep_order(builder)
            yield r, index, vector, addresses


def _prefetch(builder: Any, address: Any, size: int) -> None:
    """Prefetches the cache lines of `size` bytes into the first-level cache."""
    for line in range(0, max(size, 64), 64):
        ir.prefetch(builder, ir.offset(builder, address, line), nearest=True)


def few_tokens(name: str) -> Any:
    """Word (weight, row bytes, columns, x, x stride, out, out stride, start, start stride, first row, end row, tokens):
    the product for at most FEW tokens, with weights decoded in registers. end - first >= ROWS."""
    kind = KINDS[name]

    def build(
        builder, weight, row_bytes, columns, x, x_stride, out, out_stride, start, start_stride, first, end, tokens
    ):
        operands = Operands(weight, row_bytes, x, x_stride, out, out_stride, start, start_stride)
        decoders = _decoders(builder, kind)
        size = ir.scaled(builder, row_bytes, ROWS)
        distance = builder.mul(size, builder.udiv(ir.offset(builder, size, AHEAD - 1), size))
        zero, strip = (ir.constant(ir.Int64, count) for count in (0, STRIP))

        def strips(count: int) -> None:
            def tiles_of(row: Any) -> None:
                """All tokens for some rows, strip by strip: from the second strip on the rows are in the first-level
                cache."""
                at = operands.at(builder, row)

                def tile(token: Any) -> None:
                    is_first = builder.icmp_signed("==", token, zero)
                    further = builder.select(is_first, distance, zero)
                    _tile(builder, decoders, count, further, columns, at.after(builder, token))

                cover(builder, zero, tokens, count, tile)

            cover(builder, first, end, ROWS, tiles_of)

        in_strip = builder.select(builder.icmp_signed("<", tokens, strip), tokens, strip)
        ir.switch_on(builder, in_strip, range(1, STRIP + 1), strips)

    return named_word(build, f"few_tokens_{name}", 12)


def decode_row(name: str) -> Any:
    """Word (destination, source, columns): part of a stored row to float32."""
    kind = KINDS[name]

    def build(builder, destination, source, columns):
        def decode_block(_: Kind, decode: Decoder, column: Any, place: Any) -> None:
            target = builder.add(destination, ir.scaled(builder, column, 4))
            for index, values in enumerate(decode(builder.add(source, place))):
                ir.store(builder, ir.offset(builder, target, 64 * index), values)

        _each_block(builder, _decoders(builder, kind), columns, decode_block)

    return named_word(build, f"decode_row_{name}", 3)


def named_word(build: Callable[..., Any], name: str, count: int) -> Any:
    """A word with `count` integer arguments and no result."""
    build.__name__ = name
    return word(types.void, *[Index] * count)(build)
