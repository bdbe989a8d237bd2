"""Matrix products with stored weights, and what is fused around them.

Owns: the kernels of `linear`, `norm_linears`, `linear_add`, `norm_gated`, `norm_activated` and `embed` and their row
layouts.
Definitions: the methods of the same names in `ferrum.tensor.compositions`.
Every kernel is `kernel(row, chunk, chunks)`: `row` points to int64 words, which the docstring of the kernel lists. A
chunk writes only its own part of the output; where two tiles overlap, both write the same bits.
Next: `ferrum.backends.numba_kernels.compiled.routing`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels.compiled.elementwise import gate_row, normalise
from ferrum.backends.numba_kernels.compiled.products import share
from ferrum.backends.numba_kernels.compiled.simd import (
    add,
    call3,
    call11,
    inlined,
    load,
    load_float,
    load_int32,
    load_word,
    mul,
    splat,
    store,
    store_float,
)
from ferrum.backends.numba_kernels.layouts import (
    MLP_ACTIVATION,
    WEIGHT_BIAS,
    WEIGHT_BYTES,
    WEIGHT_MULTIPLY,
    WEIGHT_ROWS,
    WEIGHT_SHARE_ROWS,
)
from ferrum.backends.numba_kernels.sizes import SHARE_ROWS


# ---- kernels
def linears(row, chunk, chunks):
    """norm_linears, linear and linear_add.

    1 x, 2 x stride, 3 tokens, 4 words of the norm (0: none), 5 columns, 6 descriptors, 7 their count, 8 out: each
    weight's columns follow those of the one before, 9 out stride, 10 residual (0: none), 11 its stride, 12 scratch, 13
    scratch bytes per chunk, 14 scale (float bits), 15 1 if out = residual + scale * (product + bias) is computed from
    the finished product, else 0. Each chunk computes the norm of all tokens in its own scratch: that is cheap and needs
    no barrier. If word 15 is 1, no chunk has fewer rows than a tile, so chunks never overlap."""
    x, x_stride, tokens, columns = (
        load_word(row + 8),
        load_word(row + 16),
        load_word(row + 24),
        load_word(row + 40),
    )
    scratch = load_word(row + 96) + chunk * load_word(row + 104)
    panel = scratch
    if load_word(row + 32) != 0:
        normalise(load_word(row + 32), 0, x, x_stride, scratch, 4 * columns, columns, 0, tokens)
        x, x_stride = scratch, 4 * columns
        panel = scratch + 4 * columns * tokens
    weight, out, out_stride = load_word(row + 48), load_word(row + 64), load_word(row + 72)
    residual, residual_stride, finished = load_word(row + 80), load_word(row + 88), load_word(row + 120)
    for _ in range(load_word(row + 56)):
        rows, bias = load_word(weight + WEIGHT_ROWS), load_word(weight + WEIGHT_BIAS)
        start, start_stride = (residual, residual_stride) if residual != 0 and finished == 0 else (bias, 0)
        first, end = share(rows, chunk, chunks, load_word(weight + WEIGHT_SHARE_ROWS))
        call11(
            load_word(weight + WEIGHT_MULTIPLY), weight, x, x_stride, out, out_stride, start, start_stride,
            first, end, tokens, panel,
        )  # fmt: skip
        if finished != 0:
            for token in range(tokens):
                target, base = out + token * out_stride, residual + token * residual_stride
                _finish(target + 4 * first, base + 4 * first, end - first, load_float(row + 112))
        out += 4 * rows
        weight += WEIGHT_BYTES


@inlined
def _finish(out, residual, columns, scale):
    """out = residual + scale · out"""
    whole = columns // 16 * 64
    for place in range(0, whole, 64):
        store(out + place, add(load(residual + place), mul(load(out + place), splat(scale))))
    for place in range(whole, 4 * columns, 4):
        store_float(out + place, load_float(residual + place) + load_float(out + place) * scale)


def mlp_inner(row, chunk, chunks):
    """norm_gated and norm_activated.

    1 x, 2 x stride, 3 tokens, 4 words of the norm (0: none), 5 words of the MLP, 6 columns, 7 descriptors of gate and
    up or of up alone, 8 their count, 9 out [tokens, intermediate], 10 scratch, 11 scratch bytes per chunk, 12 rows that
    are multiplied before the activation joins them, a multiple of the rows of every share. A chunk computes gate, up
    and the activation for its own rows, so it needs no barrier. intermediate is a multiple of 16."""
    x, x_stride, tokens, columns = (
        load_word(row + 8),
        load_word(row + 16),
        load_word(row + 24),
        load_word(row + 48),
    )
    rows, together = load_word(load_word(row + 56) + WEIGHT_ROWS), load_word(row + 96)
    first, end = share(rows, chunk, chunks, 4 * SHARE_ROWS)
    scratch = load_word(row + 80) + chunk * load_word(row + 88)
    if load_word(row + 32) != 0:
        normalise(load_word(row + 32), 0, x, x_stride, scratch, 4 * columns, columns, 0, tokens)
        x, x_stride = scratch, 4 * columns
    for top in range(first, end, together):
        _join_rows(row, x, x_stride, top, min(together, end - top), scratch + 4 * columns * tokens)


@inlined
def _join_rows(row, x, x_stride, first, width, gated):
    """Some rows of gate and up for all tokens, and the activation that joins them."""
    tokens, mlp, weight, count = load_word(row + 24), load_word(row + 40), load_word(row + 56), load_word(row + 64)
    rows, out = load_word(weight + WEIGHT_ROWS), load_word(row + 72)
    lifted = gated + 4 * width * tokens
    panel = lifted + 4 * width * tokens
    for number in range(count):
        call11(
            load_word(weight + WEIGHT_MULTIPLY), weight, x, x_stride, gated + 4 * width * tokens * number - 4 * first,
            4 * width, load_word(weight + WEIGHT_BIAS), 0,
            first, first + width, tokens, panel,
        )  # fmt: skip
        weight += WEIGHT_BYTES
    for token in range(tokens):
        place, target = 4 * width * token, out + 4 * (rows * token + first)
        if count == 1:
            call3(load_word(mlp + MLP_ACTIVATION), gated + place, target, width)
        else:
            gate_row(gated + place, lifted + place, target, width, mlp)


def embed(row, chunk, chunks):
    """1 token ids (int32), 2 tokens, 3 row decoder, 4 data, 5 row bytes, 6 columns, 7 out."""
    token_ids, tokens, columns, out = load_word(row + 8), load_word(row + 16), load_word(row + 48), load_word(row + 56)
    first, end = share(tokens, chunk, chunks, 1)
    for token in range(first, end):
        source = load_word(row + 32) + load_int32(token_ids + 4 * token) * load_word(row + 40)
        call3(load_word(row + 24), out + 4 * columns * token, source, columns)
