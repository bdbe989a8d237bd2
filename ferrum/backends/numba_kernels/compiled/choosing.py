"""The kernel that chooses one token for each row of logits.

Owns: the same choice as the definition, while most logits are read only once. The definition adds up weights one by one
in the order of ids; this kernel adds them up block by block, and its exponentials differ in the last bits. So each
comparison has a margin that is far larger than the rounding of both: if two numbers differ by less, the row is left to
the definition.
Definition: `choose` in `ferrum.tensor.drawing`. Specs: OPS-74. Next: `ferrum.backends.numba_kernels.compiled.ranking`.
"""

from __future__ import annotations

import math

import numpy as np

from ferrum.backends.numba_kernels.compiled.logit_views import (
    MINUS_INFINITY,
    at_least,
    first,
    gather,
    keep_top,
    padded,
    scratch_of_row,
    sort,
    stage,
    survey,
    weights_of,
)
from ferrum.backends.numba_kernels.compiled.simd import (
    inlined,
    larger,
    load,
    load_float,
    load_int32,
    load_word,
    max_lanes,
    splat,
    store_float,
    store_word,
    sub,
    where_less,
    zeros,
)
from ferrum.backends.numba_kernels.compiled.simd_float64 import load_double, store_double, store_int32
from ferrum.backends.numba_kernels.sizes import LOGIT_BLOCK, MOST_BIN_MEMBERS, SETTING_BYTES, UNDECIDED, WEIGHT_BINS

_LOWEST = np.float32(-3.4e38)
GREEDY_BELOW = 1e-5  # as in `ferrum.tensor.drawing`
_DEEPEST = 32.0
"""All tokens whose probability is less than e^-32 times the largest one are in the last bin."""
_ROUNDING, _LEAST_MARGIN = 4e-16, 1e-13
"""The margin of a sum of weights, relative to the sum: _ROUNDING for each weight, plus _LEAST_MARGIN."""


@inlined
def _part(most, logit, scale):
    """-> the bin of a logit; 0 is the bin of the largest logits."""
    return min(int((np.float64(most) - np.float64(logit)) * scale), WEIGHT_BINS - 1)


@stage
def _scale(x, blocks, most, temperature):
    """-> bins per unit of logit, so that the bins cover the range of the logits, or its upper part."""
    far = splat(MINUS_INFINITY)
    for block in range(blocks):
        place = x + 4 * LOGIT_BLOCK * block
        for i in range(4):
            value = load(place + 64 * i)
            far = larger(sub(zeros(), where_less(value, splat(_LOWEST), splat(most), value)), far)
    depth = np.float64(most) + np.float64(max_lanes(far))
    return WEIGHT_BINS / max(min(depth, _DEEPEST * temperature), 1e-300)


@stage
def _boundary(x, blocks, most, scale, weights, sums, maxima, wanted, margin, bins, members):
    """-> the index in the view of the last token that top-p keeps, in descending order; UNDECIDED if rounding could
    change it."""
    for part in range(WEIGHT_BINS):
        store_double(bins + 8 * part, 0.0)
    for block in range(blocks):
        if load_double(sums + 8 * block) > 0:
            place = x + 4 * LOGIT_BLOCK * block
            for i in range(LOGIT_BLOCK):
                weight = load_double(weights + 8 * (LOGIT_BLOCK * block + i))
                if weight > 0:
                    at = bins + 8 * _part(most, load_float(place + 4 * i), scale)
                    store_double(at, load_double(at) + weight)
    running, part = 0.0, 0
    while part < WEIGHT_BINS - 1 and running + load_double(bins + 8 * part) < wanted:
        running += load_double(bins + 8 * part)
        part += 1
    count = 0
    for block in range(blocks):
        if load_double(sums + 8 * block) > 0 and _part(most, load_float(maxima + 4 * block), scale) <= part:
            place = x + 4 * LOGIT_BLOCK * block
            for i in range(LOGIT_BLOCK):
                logit = load_float(place + 4 * i)
                if load_double(weights + 8 * (LOGIT_BLOCK * block + i)) > 0 and _part(most, logit, scale) == part:
                    if count < MOST_BIN_MEMBERS:
                        store_int32(members + 4 * count, LOGIT_BLOCK * block + i)
                    count += 1
    found = UNDECIDED
    if 0 < count <= MOST_BIN_MEMBERS and running < wanted - margin:
        sort(x, members, count)
        i = -1
        while i < count - 1 and running < wanted - margin:
            i += 1
            running += load_double(weights + 8 * load_int32(members + 4 * i))
        if running > wanted + margin:
            found = load_int32(members + 4 * i)
    return found


@stage
def _keep(x, blocks, boundary, min_p, weights, sums):
    """Sets the weights after the boundary (if there is one) and below min_p to 0 -> the sum of the others; NaN if
    rounding could change which weights are kept."""
    limit = load_float(x + 4 * boundary) if boundary >= 0 else MINUS_INFINITY
    total = 0.0
    for block in range(blocks):
        if load_double(sums + 8 * block) > 0:
            place, part = x + 4 * LOGIT_BLOCK * block, 0.0
            for i in range(LOGIT_BLOCK):
                at = weights + 8 * (LOGIT_BLOCK * block + i)
                logit, weight = load_float(place + 4 * i), load_double(at)
                if boundary >= 0 and (logit < limit or (logit == limit and LOGIT_BLOCK * block + i > boundary)):
                    weight = 0.0
                if weight > 0 and abs(weight - min_p) <= 1e-12 * min_p:
                    total = np.nan
                if weight < min_p:
                    weight = 0.0
                store_double(at, weight)
                part += weight
            store_double(sums + 8 * block, part)
            total += part
    return total


@stage
def _draw(blocks, weights, sums, wanted, margin):
    """-> the index of the first weight with which the running sum exceeds `wanted`; UNDECIDED if rounding could change
    it."""
    running, block = 0.0, 0
    while block < blocks - 1 and running + load_double(sums + 8 * block) <= wanted + margin:
        running += load_double(sums + 8 * block)
        block += 1
    found = UNDECIDED
    if running < wanted - margin or block == 0:
        i = -1
        before = running
        while i < LOGIT_BLOCK - 1 and running <= wanted + margin:
            i += 1
            before = running
            running += load_double(weights + 8 * (LOGIT_BLOCK * block + i))
        if running > wanted + margin and before < wanted - margin:
            found = LOGIT_BLOCK * block + i
    return found


# ---- the kernel
@stage
def _candidates(x, vocab, blocks, maxima, temperature, top_k, top_p, min_p, most, logits, ids, order):
    """Copies the candidates if they are known before weights are computed (top-k, min-p) -> their number; 0: all tokens
    of the row are candidates."""
    floor, found = MINUS_INFINITY, 0
    if top_p == 1 and min_p > 0:  # without top-p the weights of the other tokens are not needed
        floor = np.float32(most + temperature * (math.log(min_p) - 1e-4) - 1e-5 * abs(most))
    if top_k > 0:
        floor = at_least(maxima, blocks, order, top_k, floor)
    if top_k > 0 or floor > MINUS_INFINITY:
        found = gather(x, vocab, blocks, maxima, floor, logits, ids)
        if 0 < top_k < found:
            found = keep_top(logits, ids, found, top_k, order)
        for i in range(found, (found + LOGIT_BLOCK - 1) // LOGIT_BLOCK * LOGIT_BLOCK):
            store_float(logits + 4 * i, MINUS_INFINITY)
    return found


@stage
def _drawn(x, blocks, most, vocab, temperature, top_p, min_p, unit, maxima, weights, sums, bins, order):
    """-> the index in the view of the token that is drawn; UNDECIDED if rounding could change it."""
    total, boundary, found = weights_of(x, blocks, temperature, most, weights, sums), UNDECIDED, UNDECIDED
    slack = _ROUNDING * vocab + _LEAST_MARGIN
    if top_p < 1:
        scale = _scale(x, blocks, most, temperature)
        boundary = _boundary(x, blocks, most, scale, weights, sums, maxima, top_p * total, slack * total, bins, order)
    if top_p == 1 or boundary != UNDECIDED:
        if top_p < 1 or min_p > 0:
            total = _keep(x, blocks, boundary, min_p, weights, sums)
        if total == total:
            found = _draw(blocks, weights, sums, unit * total, slack * total)
    return found


def choose(row, chunk, chunks):
    """1 logits (float32), 2 bytes from row to row, 3 rows, 4 vocabulary, 5 settings (float64 [rows, 5]), 6 tokens out
    (words; UNDECIDED for a row that is left to the definition), 7 scratch, 8 scratch bytes per chunk"""
    rows, vocab = load_word(row + 24), load_word(row + 32)
    blocks = (vocab + LOGIT_BLOCK - 1) // LOGIT_BLOCK
    bins = load_word(row + 56) + chunk * load_word(row + 64)
    sums, weights, maxima, logits, ids, order = scratch_of_row(bins + 8 * WEIGHT_BINS, blocks)
    for number in range(rows * chunk // chunks, rows * (chunk + 1) // chunks):
        setting = load_word(row + 40) + SETTING_BYTES * number
        temperature, top_k = load_double(setting), int(load_double(setting + 8))
        top_p, min_p, unit = load_double(setting + 16), load_double(setting + 24), load_double(setting + 32)
        x = padded(load_word(row + 8) + number * load_word(row + 16), vocab, blocks, logits)
        most, token = survey(x, blocks, maxima), UNDECIDED
        if most - most == 0 and temperature < GREEDY_BELOW:
            token = first(x, blocks, maxima, most)
        elif most - most == 0:
            found = _candidates(
                x, vocab, blocks, maxima, temperature, top_k if top_k < vocab else 0, top_p, min_p, most, logits, ids,
                order,
            )  # fmt: skip
            parts = blocks if found == 0 else (found + LOGIT_BLOCK - 1) // LOGIT_BLOCK
            if found > 0:
                x = logits
                survey(x, parts, maxima)
            token = _drawn(x, parts, most, vocab, temperature, top_p, min_p, unit, maxima, weights, sums, bins, order)
            if token != UNDECIDED and found > 0:
                token = load_int32(ids + 4 * token)
        store_word(load_word(row + 48) + 8 * number, token)
