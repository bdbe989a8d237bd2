"""Products with stored weights for any number of tokens, which all kernels of matrix products call.

Owns: the choice between tiles for few tokens and panels for many tokens, and the loops over panels. Definition:
`linear` in `ferrum.tensor.compositions`. Both ways give the same bits.
Next: `ferrum.backends.numba_kernels.compiled.integer_dots`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels.compiled import panels, tiles
from ferrum.backends.numba_kernels.compiled.simd import call3, call12, call14, inlined, load_word
from ferrum.backends.numba_kernels.layouts import (
    WEIGHT_BLOCK_BYTES,
    WEIGHT_COLUMNS,
    WEIGHT_DATA,
    WEIGHT_DECODER,
    WEIGHT_PRODUCT,
    WEIGHT_ROW_BYTES,
    WEIGHT_STRIP,
)
from ferrum.backends.numba_kernels.sizes import (
    BLOCK_COLUMNS,
    LEAST_PANEL_ROWS,
    MOST_PANEL_ROWS,
    PANEL_BYTES,
    PANEL_TOKENS,
    SHARE_ROWS,
    SMALL_BATCH,
    SUMS_BYTES,
    WHOLE_COLUMNS,
)

FLOAT32_BYTES, BFLOAT16_BYTES = 4, 2
"""Bytes of an operand of a strip. They also tell which arithmetic is used."""
_strip, _strip_bfloat16 = panels.strip(panels.FLOAT32), panels.strip(panels.BFLOAT16)
_round_row = panels.round_row()


def product(kind):
    """The product of weights of a kind with few tokens."""
    kernel = tiles.few_tokens(kind)

    def multiply_few(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens):
        kernel(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens)

    return multiply_few


def decoder(kind):
    """The function that decodes part of a row of a kind to float32."""
    row = tiles.decode_row(kind)

    def decode(destination, source, columns):
        row(destination, source, columns)

    return decode


def strip(p, rb, c, x, xs, sums, y, ys, s, ss, rows, tokens, first, last):
    """The product of a panel with at most PANEL_TOKENS tokens, for one block of columns."""
    _strip(p, rb, c, x, xs, sums, y, ys, s, ss, rows, tokens, first, last)


def strip_bfloat16(p, rb, c, x, xs, sums, y, ys, s, ss, rows, tokens, first, last):
    """The same for pairs of bfloat16."""
    _strip_bfloat16(p, rb, c, x, xs, sums, y, ys, s, ss, rows, tokens, first, last)


@inlined
def share(count, chunk, chunks, unit):
    """The items first..end of a chunk. Their number is a multiple of `unit`, except for the last items."""
    units = (count + unit - 1) // unit
    return min(count, units * chunk // chunks * unit), min(count, units * (chunk + 1) // chunks * unit)


@inlined
def _panel_bytes(columns):
    return max(PANEL_BYTES, LEAST_PANEL_ROWS * 4 * columns)


@inlined
def _multiply_panel(weight, top, rows, x, x_stride, out, out_stride, start, start_stride, tokens, scratch, size):
    """`multiply` for the rows top..top + rows. `out` and `start` point to row `top`. The numbers of x have `size`
    bytes."""
    columns, row_bytes = load_word(weight + WEIGHT_COLUMNS), load_word(weight + WEIGHT_ROW_BYTES)
    source = load_word(weight + WEIGHT_DATA) + top * row_bytes
    width = columns if columns <= WHOLE_COLUMNS else BLOCK_COLUMNS
    sums = scratch + _panel_bytes(columns)
    in_place = size == FLOAT32_BYTES and load_word(weight + WEIGHT_BLOCK_BYTES) == 0 and width == columns
    panel = source if in_place else scratch
    if not in_place:
        _decode_panel(weight, source, rows, columns, width, panel, sums, size)
    for token in range(0, tokens, PANEL_TOKENS):
        count = min(PANEL_TOKENS, tokens - token)
        begin = start + token * start_stride if start != 0 else 0
        for column in range(0, columns, width):
            part = min(width, columns - column)
            call14(
                load_word(weight + WEIGHT_STRIP), panel + size * rows * column,
                row_bytes if in_place else size * part, part, x + token * x_stride + size * column, x_stride, sums,
                out + token * out_stride, out_stride, begin, start_stride, rows, count,
                column == 0, column + part == columns,
            )  # fmt: skip


@inlined
def _decode_panel(weight, source, rows, columns, width, panel, spare, size):
    """Decodes rows to numbers of `size` bytes, block of columns by block of columns: [blocks, rows, width]; the last
    block may be narrower. `spare` is memory for one block of a row in float32."""
    decoder, block_bytes = load_word(weight + WEIGHT_DECODER), load_word(weight + WEIGHT_BLOCK_BYTES)
    if block_bytes == 0:
        block_bytes = 4 * BLOCK_COLUMNS
    for row in range(rows):
        place = source + row * load_word(weight + WEIGHT_ROW_BYTES)
        for column in range(0, columns, width):
            part = min(width, columns - column)
            destination = panel + size * (rows * column + row * part)
            decoded = destination if size == FLOAT32_BYTES else spare
            call3(decoder, decoded, place + column // BLOCK_COLUMNS * block_bytes, part)
            if size == BFLOAT16_BYTES:
                _round_row(destination, decoded, part)


@inlined
def _multiply_few(weight, x, x_stride, out, out_stride, start, start_stride, first, end, tokens):
    call12(
        load_word(weight + WEIGHT_PRODUCT), load_word(weight + WEIGHT_DATA), load_word(weight + WEIGHT_ROW_BYTES),
        load_word(weight + WEIGHT_COLUMNS), x, x_stride, out, out_stride, start, start_stride, first, end, tokens,
    )  # fmt: skip


@inlined
def _multiply_many(weight, x, x_stride, out, out_stride, start, start_stride, first, end, tokens, scratch, size):
    columns = load_word(weight + WEIGHT_COLUMNS)
    fitting = PANEL_BYTES // (size * columns) // SHARE_ROWS * SHARE_ROWS
    panel_rows = LEAST_PANEL_ROWS if tokens <= SMALL_BATCH else max(LEAST_PANEL_ROWS, min(MOST_PANEL_ROWS, fitting))
    for row in range(first, end, panel_rows):
        rows = max(4, min(panel_rows, end - row))
        top = min(row, end - rows)  # a last panel that is too small overlaps the one before
        begin = start + 4 * top if start != 0 else 0
        _multiply_panel(
            weight, top, rows, x, x_stride, out + 4 * top, out_stride, begin, start_stride, tokens, scratch, size
        )


def multiply(weight, x, x_stride, out, out_stride, start, start_stride, first, end, tokens, scratch):
    """out[t, r] = start[t, r] + weight[r] · x[t] for rows first..end. `out` and `start` point to row 0; `start` may be
    null. For few tokens, weights are decoded in registers. For more tokens, a panel of rows is decoded once and
    multiplied with all tokens. The bits are the same. Kernels call it by its address in the descriptor."""
    if first >= end:
        return
    if tokens <= tiles.FEW:
        _multiply_few(weight, x, x_stride, out, out_stride, start, start_stride, first, end, tokens)
    else:
        _multiply_many(
            weight, x, x_stride, out, out_stride, start, start_stride, first, end, tokens, scratch, FLOAT32_BYTES
        )


def multiply_bfloat16(weight, x, x_stride, out, out_stride, start, start_stride, first, end, tokens, scratch):
    """The same, but for more than few tokens weights and x are rounded to bfloat16. Each chunk rounds all of x, which
    takes little time beside its products."""
    if first >= end:
        return
    if tokens <= tiles.FEW_BFLOAT16:
        _multiply_few(weight, x, x_stride, out, out_stride, start, start_stride, first, end, tokens)
    else:
        columns = load_word(weight + WEIGHT_COLUMNS)
        rounded = scratch + _panel_bytes(columns) + SUMS_BYTES
        for token in range(tokens):
            _round_row(rounded + 2 * columns * token, x + token * x_stride, columns)
        _multiply_many(
            weight, rounded, 2 * columns, out, out_stride, start, start_stride, first, end, tokens, scratch,
            BFLOAT16_BYTES,
        )  # fmt: skip
