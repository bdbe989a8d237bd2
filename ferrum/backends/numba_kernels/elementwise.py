"""Norm and activation kernels, row by row.

Owns: the kernels of `rms_norm` and `swiglu`. Definitions: the methods of the same names in
`ferrum.tensor.compositions`. Next: `ferrum.backends.numba_kernels.descriptor`.
"""

from __future__ import annotations

import numpy as np

from ferrum.backends.numba_kernels.simd import (
    add,
    div,
    exp,
    fma,
    inlined,
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


@inlined
def norm_rows(x, x_stride, weight, out, out_stride, columns, first, end, epsilon):
    """Root-mean-square norm of rows first..end; columns a multiple of 32. Two accumulators hide the latency of the
    multiply-add."""
    for token in range(first, end):
        source, target = x + token * x_stride, out + token * out_stride
        even, odd = zeros(), zeros()
        for place in range(0, 4 * columns, 128):
            low, high = load(source + place), load(source + place + 64)
            even, odd = fma(low, low, even), fma(high, high, odd)
        mean = sum_lanes(add(even, odd)) / np.float32(columns)
        scale = splat(np.float32(1) / np.sqrt(mean + epsilon))
        for place in range(0, 4 * columns, 64):
            store(target + place, mul(mul(load(source + place), scale), load(weight + place)))


@inlined
def swiglu_row(gate, up, out, columns):
    """gate / (1 + exp(-gate)) * up; columns a multiple of 16."""
    one, zero = splat(np.float32(1)), zeros()
    for place in range(0, 4 * columns, 64):
        g = load(gate + place)
        store(out + place, mul(div(g, add(one, exp(sub(zero, g)))), load(up + place)))


def rms_norm(row, chunk, chunks):
    """1 x, 2 x stride, 3 tokens, 4 weight, 5 epsilon (float bits), 6 columns, 7 out (contiguous)"""
    tokens, columns = load_word(row + 24), load_word(row + 48)
    first, end = tokens * chunk // chunks, tokens * (chunk + 1) // chunks
    norm_rows(
        load_word(row + 8), load_word(row + 16), load_word(row + 32), load_word(row + 56), 4 * columns, columns,
        first, end, load_float(row + 40),
    )  # fmt: skip


def swiglu(row, chunk, chunks):
    """1 gate, 2 up, 3 out, 4 elements (a multiple of 16), all contiguous"""
    vectors = load_word(row + 32) // 16
    first, end = vectors * chunk // chunks, vectors * (chunk + 1) // chunks
    place = 64 * first
    swiglu_row(load_word(row + 8) + place, load_word(row + 16) + place, load_word(row + 24) + place, 16 * (end - first))
