"""The kernel of log probabilities: of the chosen token of each row, and of the best tokens.

Owns: the same results as the definition, up to the last bits of a logarithm, while most logits are read only once.
Definition: `ranked` in `ferrum.tensor.drawing`. Specs: OPS-75. Next: `ferrum.backends.numba_kernels.compiled.pages`.
"""

from __future__ import annotations

import math

import numpy as np

from ferrum.backends.numba_kernels.compiled.logit_views import (
    MINUS_INFINITY,
    at_least,
    gather,
    keep_top,
    padded,
    scratch_of_row,
    sort,
    stage,
    survey,
    weights_of,
)
from ferrum.backends.numba_kernels.compiled.simd import load_float, load_int32, load_word
from ferrum.backends.numba_kernels.compiled.simd_float64 import store_double, store_int32
from ferrum.backends.numba_kernels.sizes import LOGIT_BLOCK


@stage
def _better(x, blocks, maxima, token):
    """-> the number of logits that are larger than that of `token`, or equal with a lower id: its rank minus 1."""
    reference, count = load_float(x + 4 * token), 0
    for block in range(blocks):
        if load_float(maxima + 4 * block) >= reference:
            for i in range(LOGIT_BLOCK * block, LOGIT_BLOCK * block + LOGIT_BLOCK):
                logit = load_float(x + 4 * i)
                if logit > reference or (logit == reference and i < token):
                    count += 1
    return count


@stage
def _best(x, vocab, blocks, maxima, count, logits, ids, order):
    """Copies candidates, and writes to `order` the indices of the `count` largest ones, the largest first."""
    candidates = gather(x, vocab, blocks, maxima, at_least(maxima, blocks, order, count, MINUS_INFINITY), logits, ids)
    if candidates > count:
        candidates = keep_top(logits, ids, candidates, count, order)
    for i in range(candidates):
        store_int32(order + 4 * i, i)
    sort(logits, order, candidates)


def ranked(row, chunk, chunks):
    """1 logits (float32), 2 bytes from row to row, 3 rows, 4 vocabulary, 5 tokens (words), 6 count of the best tokens,
    7 out (float64 [rows, 2 + 2 * count]), 8 scratch, 9 scratch bytes per chunk. A row whose largest logit is not finite
    gives NaN."""
    rows, vocab, count = load_word(row + 24), load_word(row + 32), load_word(row + 48)
    blocks = (vocab + LOGIT_BLOCK - 1) // LOGIT_BLOCK
    scratch = load_word(row + 64) + chunk * load_word(row + 72)
    sums, weights, maxima, logits, ids, order = scratch_of_row(scratch, blocks)
    for number in range(rows * chunk // chunks, rows * (chunk + 1) // chunks):
        x = padded(load_word(row + 8) + number * load_word(row + 16), vocab, blocks, logits)
        out, token = load_word(row + 56) + 16 * (1 + count) * number, load_word(load_word(row + 40) + 8 * number)
        maximum = survey(x, blocks, maxima)
        if maximum - maximum != 0:
            for i in range(2 + 2 * count):
                store_double(out + 8 * i, np.nan)
        else:
            largest = np.float64(maximum)
            total = math.log(weights_of(x, blocks, 1.0, maximum, weights, sums))
            store_double(out, np.float64(load_float(x + 4 * token)) - largest - total)
            store_double(out + 8, np.float64(_better(x, blocks, maxima, token) + 1))
            if count > 0:
                _best(x, vocab, blocks, maxima, count, logits, ids, order)
            for i in range(count):
                place = load_int32(order + 4 * i)
                store_double(out + 8 * (2 + i), np.float64(load_int32(ids + 4 * place)))
                store_double(out + 8 * (2 + count + i), np.float64(load_float(logits + 4 * place)) - largest - total)
