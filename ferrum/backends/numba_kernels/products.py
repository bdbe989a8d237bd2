"""Matrix products with stored weights: the building block of every linear kernel.

Owns: the descriptor of a weight, the choice between tiles for few tokens and panels for many, and the loops around the
panels. Definition: `linear` in `ferrum.tensor.compositions`. Both ways give a sum the same bits.
Next: `ferrum.backends.numba_kernels.linear`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels import panels, tiles
from ferrum.backends.numba_kernels.k_blocks import KINDS
from ferrum.backends.numba_kernels.library import LIBRARY, function_type
from ferrum.backends.numba_kernels.simd import call3, call12, call14, inlined, load_word

# A weight descriptor is ten int64 words, here by their byte offsets.
PRODUCT = 0  # address of the product of few tokens
DATA = 8  # address of the stored rows
ROW_BYTES = 16
ROWS = 24
COLUMNS = 32
DECODER = 40  # address of the function (destination, source, columns) that decodes part of a row to float32
STRIP = 48  # address of the product of a panel and a strip of tokens
BIAS = 56  # address, 0 for none
BLOCK_BYTES = 64  # bytes of BLOCK_COLUMNS columns; 0 for float32, which need not be decoded
MULTIPLY = 72  # address of `multiply`
DESCRIPTOR_BYTES = 80

BLOCK_COLUMNS = 512
"""Columns that are multiplied together: two kilobytes of a row, so that a tile's operands stay in the nearest cache."""
WHOLE_COLUMNS = 768
"""Rows of up to so many columns are not cut into blocks."""
PANEL_BYTES = 256 << 10
"""Decoded rows that stay in a core's second-level cache while many tokens pass over them."""
MOST_ROWS = 120
UNIT_ROWS = 12
"""Panels and chunks are multiples of this many rows, which every tile divides."""
SMALL_BATCH = 64
SMALL_PANEL_ROWS = 24
"""Up to SMALL_BATCH tokens a panel has so many rows, which then come from the cache into which they were decoded."""
SUMS_BYTES = -(-MOST_ROWS // panels.PANEL_ROWS) * panels.TILE_BYTES

FEW = tiles.FEW
STRIP_TOKENS = panels.PANEL_TOKENS

_few_f32 = tiles.few_tokens("f32", 1)
_few_f16 = tiles.few_tokens("f16", 1)
_few_bf16 = tiles.few_tokens("bf16", 1)
_few_q8_0 = tiles.few_tokens("q8_0", 4)
_few_q4_0 = tiles.few_tokens("q4_0", 4)
_few_q4_1 = tiles.few_tokens("q4_1", 4)
_few_q4_k = tiles.few_tokens("q4_k", 4)
_few_q5_k = tiles.few_tokens("q5_k", 4)
_few_q6_k = tiles.few_tokens("q6_k", 4)
_row_f32 = tiles.decode_row("f32")
_row_f16 = tiles.decode_row("f16")
_row_bf16 = tiles.decode_row("bf16")
_row_q8_0 = tiles.decode_row("q8_0")
_row_q4_0 = tiles.decode_row("q4_0")
_row_q4_1 = tiles.decode_row("q4_1")
_row_q4_k = tiles.decode_row("q4_k")
_row_q5_k = tiles.decode_row("q5_k")
_row_q6_k = tiles.decode_row("q6_k")
_panel_strip = panels.strip()


# One plain function per kind: Numba caches a function only if its intrinsics are globals of its own module.
def _product_f32(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens):
    _few_f32(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens)


def _product_f16(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens):
    _few_f16(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens)


def _product_bf16(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens):
    _few_bf16(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens)


def _product_q8_0(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens):
    _few_q8_0(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens)


def _product_q4_0(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens):
    _few_q4_0(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens)


def _product_q4_1(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens):
    _few_q4_1(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens)


def _product_q4_k(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens):
    _few_q4_k(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens)


def _product_q5_k(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens):
    _few_q5_k(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens)


def _product_q6_k(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens):
    _few_q6_k(w, rb, c, x, xs, y, ys, s, ss, first, end, tokens)


def _decode_f32(destination, source, columns):
    _row_f32(destination, source, columns)


def _decode_f16(destination, source, columns):
    _row_f16(destination, source, columns)


def _decode_bf16(destination, source, columns):
    _row_bf16(destination, source, columns)


def _decode_q8_0(destination, source, columns):
    _row_q8_0(destination, source, columns)


def _decode_q4_0(destination, source, columns):
    _row_q4_0(destination, source, columns)


def _decode_q4_1(destination, source, columns):
    _row_q4_1(destination, source, columns)


def _decode_q4_k(destination, source, columns):
    _row_q4_k(destination, source, columns)


def _decode_q5_k(destination, source, columns):
    _row_q5_k(destination, source, columns)


def _decode_q6_k(destination, source, columns):
    _row_q6_k(destination, source, columns)


def _strip(p, rb, c, x, xs, sums, y, ys, s, ss, rows, tokens, first, last):
    _panel_strip(p, rb, c, x, xs, sums, y, ys, s, ss, rows, tokens, first, last)


_PRODUCTS = {
    "f32": _product_f32,
    "f16": _product_f16,
    "bf16": _product_bf16,
    "q8_0": _product_q8_0,
    "q4_0": _product_q4_0,
    "q4_1": _product_q4_1,
    "q4_k": _product_q4_k,
    "q5_k": _product_q5_k,
    "q6_k": _product_q6_k,
}
_DECODERS = {
    "f32": _decode_f32,
    "f16": _decode_f16,
    "bf16": _decode_bf16,
    "q8_0": _decode_q8_0,
    "q4_0": _decode_q4_0,
    "q4_1": _decode_q4_1,
    "q4_k": _decode_q4_k,
    "q5_k": _decode_q5_k,
    "q6_k": _decode_q6_k,
}


def descriptor(kind: str, address: int, row_bytes: int, rows: int, columns: int, bias: int) -> tuple[int, ...]:
    """The words of a weight; compiles what this kind needs."""
    product = LIBRARY.address(_PRODUCTS[kind], function_type(12))
    strip = LIBRARY.address(_strip, function_type(14))
    block_bytes = 0 if kind == "f32" else BLOCK_COLUMNS // KINDS[kind].size * KINDS[kind].bytes
    product_of_many = LIBRARY.address(multiply, function_type(11))
    return product, address, row_bytes, rows, columns, row_decoder(kind), strip, bias, block_bytes, product_of_many


def row_decoder(kind: str) -> int:
    """Address of the function (destination, source, columns) that decodes part of a row to float32."""
    return LIBRARY.address(_DECODERS[kind], function_type(3))


def scratch_bytes(columns: int) -> int:
    """Private memory of a chunk for `multiply`: a panel, and the sums of a strip."""
    return max(PANEL_BYTES, UNIT_ROWS * 4 * columns) + SUMS_BYTES


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
    for token in range(0, tokens, STRIP_TOKENS):
        count = min(STRIP_TOKENS, tokens - token)
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
    if tokens <= FEW:
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
