"""Matrix products with stored weights, and what is fused around them.

Owns: the kernels of `linear`, `norm_linears`, `linear_add`, `norm_swiglu` and `embed`, their row layouts, and the
descriptor of a weight. Definitions: the methods of the same names in `ferrum.tensor.compositions`.
Every kernel is `kernel(row, chunk, chunks)`: `row` points to int64 words, listed at each kernel; chunk i does its
share and touches no other's output (overlapping tiles write identical bits).
Next: `ferrum.backends.numba_kernels.attention`.
"""

from __future__ import annotations

from numba import njit

from ferrum.backends.numba_kernels import tiles
from ferrum.backends.numba_kernels.elementwise import norm_rows, swiglu_row
from ferrum.backends.numba_kernels.library import LIBRARY, function_type
from ferrum.backends.numba_kernels.simd import call3, call11, call12, load_float, load_int32, load_word

# A weight descriptor is eight words: few-token product, data address, row bytes, rows, groups of 32 columns,
# row decoder (0 where rows are float32 already), dense panel product, bias address (0 for none).
DESCRIPTOR_BYTES = 64

PANEL_BYTES = 256 << 10
"""Decoded weight rows that stay in a core's second-level cache while many tokens pass over them."""
TOKEN_BYTES = 512 << 10
"""Activations that pass over one panel before the next panel is decoded."""
SMALL_BATCH = 64
"""Up to this many tokens a panel is 16 rows, so that activations and panel share the first-level cache."""

_few_f32 = tiles.few_tokens("f32", 1)
_few_f16 = tiles.few_tokens("f16", 1)
_few_bf16 = tiles.few_tokens("bf16", 1)
_few_q8_0 = tiles.few_tokens("q8_0", 4)
_few_q4_0 = tiles.few_tokens("q4_0", 4)
_few_q4_1 = tiles.few_tokens("q4_1", 4)
_row_f16 = tiles.decode_row("f16")
_row_bf16 = tiles.decode_row("bf16")
_row_q8_0 = tiles.decode_row("q8_0")
_row_q4_0 = tiles.decode_row("q4_0")
_row_q4_1 = tiles.decode_row("q4_1")
_row_f32 = tiles.decode_row("f32")
_dense_panel = tiles.dense_panel()


# One plain function per kind: Numba caches a function only if its intrinsics are globals of its own module.
def _product_f32(w, rb, g, x, xs, y, ys, s, ss, first, end, tokens):
    _few_f32(w, rb, g, x, xs, y, ys, s, ss, first, end, tokens)


def _product_f16(w, rb, g, x, xs, y, ys, s, ss, first, end, tokens):
    _few_f16(w, rb, g, x, xs, y, ys, s, ss, first, end, tokens)


def _product_bf16(w, rb, g, x, xs, y, ys, s, ss, first, end, tokens):
    _few_bf16(w, rb, g, x, xs, y, ys, s, ss, first, end, tokens)


def _product_q8_0(w, rb, g, x, xs, y, ys, s, ss, first, end, tokens):
    _few_q8_0(w, rb, g, x, xs, y, ys, s, ss, first, end, tokens)


def _product_q4_0(w, rb, g, x, xs, y, ys, s, ss, first, end, tokens):
    _few_q4_0(w, rb, g, x, xs, y, ys, s, ss, first, end, tokens)


def _product_q4_1(w, rb, g, x, xs, y, ys, s, ss, first, end, tokens):
    _few_q4_1(w, rb, g, x, xs, y, ys, s, ss, first, end, tokens)


def _decode_f32(destination, source, groups):
    _row_f32(destination, source, groups)


def _decode_f16(destination, source, groups):
    _row_f16(destination, source, groups)


def _decode_bf16(destination, source, groups):
    _row_bf16(destination, source, groups)


def _decode_q8_0(destination, source, groups):
    _row_q8_0(destination, source, groups)


def _decode_q4_0(destination, source, groups):
    _row_q4_0(destination, source, groups)


def _decode_q4_1(destination, source, groups):
    _row_q4_1(destination, source, groups)


def _product_dense(w, rb, g, x, xs, y, ys, s, ss, rows, tokens):
    _dense_panel(w, rb, g, x, xs, y, ys, s, ss, rows, tokens)


_PRODUCTS = {
    "f32": _product_f32,
    "f16": _product_f16,
    "bf16": _product_bf16,
    "q8_0": _product_q8_0,
    "q4_0": _product_q4_0,
    "q4_1": _product_q4_1,
}
_DECODERS = {
    "f32": _decode_f32,
    "f16": _decode_f16,
    "bf16": _decode_bf16,
    "q8_0": _decode_q8_0,
    "q4_0": _decode_q4_0,
    "q4_1": _decode_q4_1,
}


def descriptor(kind: str, address: int, row_bytes: int, rows: int, columns: int, bias: int) -> tuple[int, ...]:
    """The eight words of a weight; compiles what this kind needs."""
    product = LIBRARY.address(_PRODUCTS[kind], function_type(12))
    decoder = 0 if kind == "f32" else row_decoder(kind)
    dense = LIBRARY.address(_product_dense, function_type(11))
    return product, address, row_bytes, rows, columns // 32, decoder, dense, bias


def row_decoder(kind: str) -> int:
    """Address of the function (destination, source, groups) that decodes one row to float32."""
    return LIBRARY.address(_DECODERS[kind], function_type(3))


# ---- building blocks, inlined into the kernels below
@njit(cache=True, error_model="numpy")
def share(count, chunk, chunks, unit):
    """A chunk's part of `count` items, in multiples of `unit` but for the last."""
    units = (count + unit - 1) // unit
    return min(count, units * chunk // chunks * unit), min(count, units * (chunk + 1) // chunks * unit)


@njit(cache=True, error_model="numpy")
def product(weight, x, x_stride, out, out_stride, start, start_stride, first, end, tokens, panel):
    """out[t, r] = start[t, r] + weight[r] · x[t] for rows first..end. `out` and `start` point at row 0; `start` may be
    null. Few tokens: decode in registers. More: decode a panel of rows once, run all tokens over it. Same bits."""
    address, row_bytes, groups = load_word(weight + 8), load_word(weight + 16), load_word(weight + 32)
    if first >= end:
        return
    if tokens <= tiles.FEW:
        call12(
            load_word(weight), address, row_bytes, groups, x, x_stride, out, out_stride, start, start_stride,
            first, end, tokens,
        )  # fmt: skip
        return
    decoder, dense, row_size = load_word(weight + 40), load_word(weight + 48), 128 * groups
    panel_rows = 16 if tokens <= SMALL_BATCH else max(4, PANEL_BYTES // row_size // 4 * 4)
    token_count = max(48, TOKEN_BYTES // row_size // 6 * 6)
    for token in range(0, tokens, token_count):
        count = min(token_count, tokens - token)
        for row in range(first, end, panel_rows):
            rows = max(4, min(panel_rows, end - row))
            top = min(row, end - rows)  # a last partial panel overlaps the one before
            source, stride = address + top * row_bytes, row_bytes
            if decoder != 0:
                for i in range(rows):
                    call3(decoder, panel + i * row_size, source + i * row_bytes, groups)
                source, stride = panel, row_size
            begin = start + token * start_stride + 4 * top if start != 0 else 0
            call11(
                dense, source, stride, groups, x + token * x_stride, x_stride,
                out + token * out_stride + 4 * top, out_stride, begin, start_stride, rows, count,
            )  # fmt: skip


# ---- kernels
def linears(row, chunk, chunks):
    """norm_linears, linear and linear_add.

    1 x, 2 x stride, 3 tokens, 4 norm (0: none), 5 epsilon (float bits), 6 columns, 7 descriptors, 8 their count,
    9 out: each weight's columns follow those of the one before, 10 out stride, 11 residual (0: none), 12 its stride,
    13 scratch, 14 scratch bytes per chunk. The norm is cheap, so each chunk computes it into private scratch: that
    saves a barrier. A bias and a residual never come together."""
    x, x_stride, tokens, columns = (
        load_word(row + 8),
        load_word(row + 16),
        load_word(row + 24),
        load_word(row + 48),
    )
    scratch = load_word(row + 104) + chunk * load_word(row + 112)
    panel = scratch
    if load_word(row + 32) != 0:
        norm_rows(x, x_stride, load_word(row + 32), scratch, 4 * columns, columns, 0, tokens, load_float(row + 40))
        x, x_stride = scratch, 4 * columns
        panel = scratch + 4 * columns * tokens
    weight, out, out_stride = load_word(row + 56), load_word(row + 72), load_word(row + 80)
    residual, residual_stride = load_word(row + 88), load_word(row + 96)
    for _ in range(load_word(row + 64)):
        rows, bias = load_word(weight + 24), load_word(weight + 56)
        start, start_stride = (residual, residual_stride) if residual != 0 else (bias, 0)
        first, end = share(rows, chunk, chunks, 4)
        product(weight, x, x_stride, out, out_stride, start, start_stride, first, end, tokens, panel)
        out += 4 * rows
        weight += DESCRIPTOR_BYTES


def norm_swiglu(row, chunk, chunks):
    """1 x, 2 x stride, 3 tokens, 4 norm, 5 epsilon (float bits), 6 columns, 7 descriptors of gate and up, 8 out
    [tokens, intermediate], 9 scratch, 10 scratch bytes per chunk. A chunk finishes its own columns: no barrier
    inside. intermediate is a multiple of 16."""
    x, x_stride, tokens, columns = (
        load_word(row + 8),
        load_word(row + 16),
        load_word(row + 24),
        load_word(row + 48),
    )
    gate, out = load_word(row + 56), load_word(row + 64)
    up = gate + DESCRIPTOR_BYTES
    rows = load_word(gate + 24)
    first, end = share(rows, chunk, chunks, 16)
    width = end - first
    normed = load_word(row + 72) + chunk * load_word(row + 80)
    gated = normed + 4 * columns * tokens
    lifted = gated + 4 * width * tokens
    panel = lifted + 4 * width * tokens
    norm_rows(x, x_stride, load_word(row + 32), normed, 4 * columns, columns, 0, tokens, load_float(row + 40))
    for weight, target in ((gate, gated), (up, lifted)):
        product(
            weight, normed, 4 * columns, target - 4 * first, 4 * width, load_word(weight + 56), 0,
            first, end, tokens, panel,
        )  # fmt: skip
    for token in range(tokens):
        place = 4 * width * token
        swiglu_row(gated + place, lifted + place, out + 4 * (rows * token + first), width)


def embed(row, chunk, chunks):
    """1 token ids (int32), 2 tokens, 3 row decoder, 4 data, 5 row bytes, 6 groups of 32 columns, 7 out."""
    token_ids, tokens, groups, out = load_word(row + 8), load_word(row + 16), load_word(row + 48), load_word(row + 56)
    first, end = share(tokens, chunk, chunks, 1)
    for token in range(first, end):
        source = load_word(row + 32) + load_int32(token_ids + 4 * token) * load_word(row + 40)
        call3(load_word(row + 24), out + 128 * groups * token, source, groups)
