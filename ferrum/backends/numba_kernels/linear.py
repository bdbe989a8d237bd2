"""Matrix products with stored weights, and what is fused around them.

Owns: the kernels of `linear`, `norm_linears`, `linear_add`, `norm_swiglu` and `embed` and their row layouts.
Definitions: the methods of the same names in `ferrum.tensor.compositions`.
Every kernel is `kernel(row, chunk, chunks)`: `row` points to int64 words, listed at each kernel; chunk i does its
share and touches no other's output (overlapping tiles write identical bits).
Next: `ferrum.backends.numba_kernels.pages`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels.descriptor import BIAS, DESCRIPTOR_BYTES, MULTIPLY, ROWS
from ferrum.backends.numba_kernels.elementwise import norm_rows, swiglu_row
from ferrum.backends.numba_kernels.products import share
from ferrum.backends.numba_kernels.simd import call3, call11, load_float, load_int32, load_word
from ferrum.backends.numba_kernels.sizes import UNIT_ROWS


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
        rows, bias = load_word(weight + ROWS), load_word(weight + BIAS)
        start, start_stride = (residual, residual_stride) if residual != 0 else (bias, 0)
        first, end = share(rows, chunk, chunks, UNIT_ROWS)
        call11(
            load_word(weight + MULTIPLY), weight, x, x_stride, out, out_stride, start, start_stride,
            first, end, tokens, panel,
        )  # fmt: skip
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
    rows = load_word(gate + ROWS)
    first, end = share(rows, chunk, chunks, 4 * UNIT_ROWS)
    width = end - first
    normed = load_word(row + 72) + chunk * load_word(row + 80)
    gated = normed + 4 * columns * tokens
    lifted = gated + 4 * width * tokens
    panel = lifted + 4 * width * tokens
    norm_rows(x, x_stride, load_word(row + 32), normed, 4 * columns, columns, 0, tokens, load_float(row + 40))
    for weight, target in ((gate, gated), (up, lifted)):
        call11(
            load_word(weight + MULTIPLY), weight, normed, 4 * columns, target - 4 * first, 4 * width,
            load_word(weight + BIAS), 0,
            first, end, tokens, panel,
        )  # fmt: skip
    for token in range(tokens):
        place = 4 * width * token
        swiglu_row(gated + place, lifted + place, out + 4 * (rows * token + first), width)


def embed(row, chunk, chunks):
    """1 token ids (int32), 2 tokens, 3 row decoder, 4 data, 5 row bytes, 6 columns, 7 out."""
    token_ids, tokens, columns, out = load_word(row + 8), load_word(row + 16), load_word(row + 48), load_word(row + 56)
    first, end = share(tokens, chunk, chunks, 1)
    for token in range(first, end):
        source = load_word(row + 32) + load_int32(token_ids + 4 * token) * load_word(row + 40)
        call3(load_word(row + 24), out + 4 * columns * token, source, columns)
