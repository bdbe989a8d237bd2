"""Matrix products with stored weights: the building block of every linear kernel.

Owns: the choice between tiles for few tokens and panels for many, and the loops around the panels. Definition: `linear`
in `ferrum.tensor.compositions`. Both ways give a sum the same bits.
Next: `ferrum.backends.numba_kernels.linear`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels import panels, tiles
from ferrum.backends.numba_kernels.descriptor import (
    BLOCK_BYTES,
    COLUMNS,
    DATA,
    DECODER,
    ROW_BYTES,
    STRIP,
)
from ferrum.backends.numba_kernels.simd import call3, call12, call14, inlined, load_word
from ferrum.backends.numba_kernels.sizes import (
    BLOCK_COLUMNS,
    MOST_ROWS,
    PANEL_BYTES,
    PANEL_TOKENS,
    SMALL_BATCH,
    SMALL_PANEL_ROWS,
    UNIT_ROWS,
    WHOLE_COLUMNS,
)

PREFETCHED = {"f32": 1, "f16": 1, "bf16": 1}
"""Tiles further on whose weights are asked for, where it is not 4: fewer of them for weights that take more bytes."""
_strip = panels.strip()


def product(kind):
    """The product of few tokens with weights of a kind."""
    few = tiles.few_tokens(kind, PREFETCHED.get(kind, 4))

    def multiply_few(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens):
        few(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens)

    return multiply_few


def decoder(kind):
    """What decodes part of a row of a kind to float32."""
    row = tiles.decode_row(kind)

    def decode(destination, source, columns):
        row(destination, source, columns)

    return decode


def strip(p, rb, c, x, xs, sums, y, ys, s, ss, rows, tokens, first, last):
    """The product of a panel and up to PANEL_TOKENS tokens, for one block of columns."""
    _strip(p, rb, c, x, xs, sums, y, ys, s, ss, rows, tokens, first, last)


@inlined
def share(count, chunk, chunks, unit):
    """A chunk's part of `count` items, in multiples of `unit` but for the last."""
    units = (count + unit - 1) // unit
    return min(count, units * chunk // chunks * unit), min(count, units * (chunk + 1) // chunks * unit)


@inlined
def _multiply_panel(weight, top, rows, x, x_stride, out, out_stride, start, start_stride, tokens, scratch):
    """`multiply` for the rows top..top + rows; `out` and `start` point at row `top`."""
    columns, row_bytes = load_word(weight + COLUMNS), load_word(weight + ROW_BYTES)
    source = load_word(weight + DATA) + top * row_bytes
    width = columns if columns <= WHOLE_COLUMNS else BLOCK_COLUMNS
    sums = scratch + max(PANEL_BYTES, UNIT_ROWS * 4 * columns)
    in_place = load_word(weight + BLOCK_BYTES) == 0 and width == columns
    panel = source if in_place else scratch
    if not in_place:
        _decode_panel(weight, source, rows, columns, width, panel)
    for token in range(0, tokens, PANEL_TOKENS):
        count = min(PANEL_TOKENS, tokens - token)
        begin = start + token * start_stride if start != 0 else 0
        for column in range(0, columns, width):
            part = min(width, columns - column)
            call14(
                load_word(weight + STRIP), panel + 4 * rows * column, row_bytes if in_place else 4 * part, part,
                x + token * x_stride + 4 * column, x_stride, sums, out + token * out_stride, out_stride,
                begin, start_stride, rows, count, column == 0, column + part == columns,
            )  # fmt: skip


@inlined
def _decode_panel(weight, source, rows, columns, width, panel):
    """Rows to float32, one block of columns after the other: [blocks, rows, width], the last block as wide as it is."""
    decoder, block_bytes = load_word(weight + DECODER), load_word(weight + BLOCK_BYTES)
    if block_bytes == 0:
        block_bytes = 4 * BLOCK_COLUMNS
    for row in range(rows):
        place = source + row * load_word(weight + ROW_BYTES)
        for column in range(0, columns, width):
            part = min(width, columns - column)
            destination = panel + 4 * (rows * column + row * part)
            call3(decoder, destination, place + column // BLOCK_COLUMNS * block_bytes, part)


def multiply(weight, x, x_stride, out, out_stride, start, start_stride, first, end, tokens, scratch):
    """out[t, r] = start[t, r] + weight[r] · x[t] for rows first..end. `out` and `start` point at row 0; `start` may be
    null. Few tokens: decode in registers. More: decode a panel of rows once, run all tokens over it. Same bits. Kernels
    call it by its address in the descriptor."""
    if first >= end:
        return
    if tokens <= tiles.FEW:
        call12(
            load_word(weight), load_word(weight + DATA), load_word(weight + ROW_BYTES), load_word(weight + COLUMNS),
            x, x_stride, out, out_stride, start, start_stride, first, end, tokens,
        )  # fmt: skip
        return
    columns = load_word(weight + COLUMNS)
    fitting = PANEL_BYTES // (4 * columns) // UNIT_ROWS * UNIT_ROWS
    most = SMALL_PANEL_ROWS if tokens <= SMALL_BATCH else MOST_ROWS
    panel_rows = max(UNIT_ROWS, min(most, fitting))
    for row in range(first, end, panel_rows):
        rows = max(4, min(panel_rows, end - row))
        top = min(row, end - rows)  # a last partial panel overlaps the one before
        begin = start + 4 * top if start != 0 else 0
        _multiply_panel(weight, top, rows, x, x_stride, out + 4 * top, out_stride, begin, start_stride, tokens, scratch)
