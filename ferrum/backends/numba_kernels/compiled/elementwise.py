"""Norm and activation kernels, row by row.

Owns: the kernels of `normed`, `head_norm`, `residual_add`, of the activations, of `gated` and `softcapped`, and the
functions for a norm and for an MLP that fused kernels call. Definitions: the methods of the same names
in `ferrum.tensor.compositions`. Next: `ferrum.backends.numba_kernels.compiled.products`.
"""

from __future__ import annotations

import numpy as np

from ferrum.backends.numba_kernels.compiled.activations import tanh
from ferrum.backends.numba_kernels.compiled.simd import (
    add,
    call3,
    call9,
    fma,
    inlined,
    larger,
    load,
    load_float,
    load_word,
    mul,
    splat,
    store,
    sub,
    sum_lanes,
    zeros,
)
from ferrum.backends.numba_kernels.layouts import (
    MLP_ACTIVATION,
    MLP_LIMIT,
    MLP_OFFSET,
    NORM_BIAS,
    NORM_CENTRED,
    NORM_EPSILON,
    NORM_FUNCTION,
    NORM_HEAD_BYTES,
    NORM_WEIGHT,
)


@inlined
def _total(source, columns, mean, squares):
    """Sum of (x - mean), or of its squares. Two accumulators hide the latency of the multiply-add."""
    even, odd, centre, one = zeros(), zeros(), splat(mean), splat(np.float32(1))
    whole = columns // 32 * 128
    for place in range(0, whole, 128):
        low, high = sub(load(source + place), centre), sub(load(source + place + 64), centre)
        even, odd = fma(low, low if squares else one, even), fma(high, high if squares else one, odd)
    if whole < 4 * columns:
        last = sub(load(source + whole), centre)
        even = fma(last, last if squares else one, even)
    return sum_lanes(add(even, odd))


def norm_rows(norm, head, x, x_stride, out, out_stride, columns, first, end):
    """The norm of rows first..end; `columns` is a multiple of 16. Kernels call it by its address in the words of a
    norm."""
    shift = head * load_word(norm + NORM_HEAD_BYTES)
    weight, bias = load_word(norm + NORM_WEIGHT) + shift, load_word(norm + NORM_BIAS)
    for row in range(first, end):
        source, target = x + row * x_stride, out + row * out_stride
        mean = np.float32(0)
        if load_word(norm + NORM_CENTRED) != 0:
            mean = _total(source, columns, np.float32(0), False) / np.float32(columns)
        spread = _total(source, columns, mean, True) / np.float32(columns)
        scale = splat(np.float32(1) / np.sqrt(spread + load_float(norm + NORM_EPSILON)))
        centre = splat(mean)
        for place in range(0, 4 * columns, 64):
            y = mul(mul(sub(load(source + place), centre), scale), load(weight + place))
            if bias != 0:
                y = add(y, load(bias + shift + place))
            store(target + place, y)


@inlined
def normalise(norm, head, x, x_stride, out, out_stride, columns, first, end):
    """Calls `norm_rows` for the norm with these words."""
    call9(load_word(norm + NORM_FUNCTION), norm, head, x, x_stride, out, out_stride, columns, first, end)


@inlined
def _at_most(x, limit):
    """The smaller of x and `limit`; NaN if x is NaN."""
    return sub(zeros(), larger(splat(-limit), sub(zeros(), x)))


@inlined
def gate_row(gate, up, out, columns, mlp):
    """activation(gate) * (up + offset). First gate is limited from above, and up from both sides. `columns` is a
    multiple of 16."""
    limit, offset = load_float(mlp + MLP_LIMIT), splat(load_float(mlp + MLP_OFFSET))
    source = gate
    if limit < np.inf:
        for place in range(0, 4 * columns, 64):
            store(out + place, _at_most(load(gate + place), limit))
        source = out
    call3(load_word(mlp + MLP_ACTIVATION), source, out, columns)
    for place in range(0, 4 * columns, 64):
        lifted = load(up + place)
        if limit < np.inf:
            lifted = larger(splat(-limit), _at_most(lifted, limit))
        store(out + place, mul(load(out + place), add(lifted, offset)))


# ---- kernels
def norm(row, chunk, chunks):
    """1 x, 2 x stride, 3 tokens, 4 words of the norm, 5 heads, 6 columns of a head, 7 out (contiguous)"""
    tokens, heads, columns = load_word(row + 24), load_word(row + 40), load_word(row + 48)
    x, x_stride, out, words = load_word(row + 8), load_word(row + 16), load_word(row + 56), load_word(row + 32)
    first, end = tokens * chunk // chunks, tokens * (chunk + 1) // chunks
    for head in range(heads):
        place = 4 * columns * head
        normalise(words, head, x + place, x_stride, out + place, 4 * columns * heads, columns, first, end)


def residual_add(row, chunk, chunks):
    """1 y, 2 y stride, 3 tokens, 4 words of the norm (0: none), 5 residual, 6 residual stride, 7 scale (float bits),
    8 columns, 9 out (contiguous)"""
    tokens, columns, scale = load_word(row + 24), load_word(row + 64), splat(load_float(row + 56))
    y, y_stride, words, out = load_word(row + 8), load_word(row + 16), load_word(row + 32), load_word(row + 72)
    first, end = tokens * chunk // chunks, tokens * (chunk + 1) // chunks
    if words != 0:
        normalise(words, 0, y, y_stride, out, 4 * columns, columns, first, end)
        y, y_stride = out, 4 * columns
    for token in range(first, end):
        source, target = y + token * y_stride, out + 4 * columns * token
        residual = load_word(row + 40) + token * load_word(row + 48)
        for place in range(0, 4 * columns, 64):
            store(target + place, add(load(residual + place), mul(load(source + place), scale)))


def gated(row, chunk, chunks):
    """1 gate, 2 up, 3 out, 4 elements (a multiple of 16), all contiguous; 5 words of the MLP"""
    vectors = load_word(row + 32) // 16
    first, end = vectors * chunk // chunks, vectors * (chunk + 1) // chunks
    place = 64 * first
    gate_row(
        load_word(row + 8) + place, load_word(row + 16) + place, load_word(row + 24) + place, 16 * (end - first),
        load_word(row + 40),
    )  # fmt: skip


def activate(row, chunk, chunks):
    """1 x, 2 out, 3 elements (a multiple of 16), both contiguous; 4 address of the activation"""
    vectors = load_word(row + 24) // 16
    first, end = vectors * chunk // chunks, vectors * (chunk + 1) // chunks
    call3(load_word(row + 32), load_word(row + 8) + 64 * first, load_word(row + 16) + 64 * first, 16 * (end - first))


def softcap(row, chunk, chunks):
    """1 x, 2 out, 3 elements (a multiple of 16), both contiguous; 4 cap (float bits)"""
    vectors, cap = load_word(row + 24) // 16, load_float(row + 32)
    x, out = load_word(row + 8), load_word(row + 16)
    for vector in range(vectors * chunk // chunks, vectors * (chunk + 1) // chunks):
        value = tanh(mul(load(x + 64 * vector), splat(np.float32(1) / cap)))
        store(out + 64 * vector, mul(splat(cap), value))
