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
def _part(maximum, logit, scale):
    """-> the bin of a logit; 0 is the bin of the largest logits."""
    return min(int((np.float64(maximum) - np.float64(logit)) * scale), WEIGHT_BINS - 1)


@stage
def _scale(x, blocks, maximum, temperature):
    """-> bins per unit of logit, so that the bins cover the range of the logits, or its upper part."""
    negated_minimum = splat(MINUS_INFINITY)
    for block in range(blocks):
        place = x + 4 * LOGIT_BLOCK * block
        for i in range(4):
            value = load(place + 64 * i)
            negated_minimum = larger(
                sub(zeros(), where_less(value, splat(_LOWEST), splat(maximum), value)), negated_minimum
            )
    depth = np.float64(maximum) + np.float64(max_lanes(negated_minimum))
    return WEIGHT_BINS / max(min(depth, _DEEPEST * temperature), 1e-300)


@stage
def _boundary(x, blocks, maximum, scale, weights, sums, maxima, target, margin, bins, members):
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
                    at = bins + 8 * _part(maximum, load_float(place + 4 * i), scale)
                    store_double(at, load_double(at) + weight)
    running, part = 0.0, 0
    while part < WEIGHT_BINS - 1 and running + load_double(bins + 8 * part) < target:
        running += load_double(bins + 8 * part)
        part += 1
    count = 0
    for block in range(blocks):
        if load_double(sums + 8 * block) > 0 and _part(maximum, load_float(maxima + 4 * block), scale) <= part:
            place = x + 4 * LOGIT_BLOCK * block
            for i in range(LOGIT_BLOCK):
                logit = load_float(place + 4 * i)
                if load_double(weights + 8 * (LOGIT_BLOCK * block + i)) > 0 and _part(maximum, logit, scale) == part:
                    if count < MOST_BIN_MEMBERS:
                        store_int32(members + 4 * count, LOGIT_BLOCK * block + i)
                    count += 1
    index = UNDECIDED
    if 0 < count <= MOST_BIN_MEMBERS and running < target - margin:
        sort(x, members, count)
        i = -1
        while i < count - 1 and running < target - margin:
            i += 1
            running += load_double(weights + 8 * load_int32(members + 4 * i))
        if running > target + margin:
            index = load_int32(members + 4 * i)
    return index


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
def _draw(blocks, weights, sums, target, margin):
    """-> the index of the first weight with which the running sum exceeds `target`; UNDECIDED if rounding could change
    it."""
    running, block = 0.0, 0
    while block < blocks - 1 and running + load_double(sums + 8 * block) <= target + margin:
        running += load_double(sums + 8 * block)
        block += 1
    index = UNDECIDED
    if running < target - margin or block == 0:
        i = -1
        before = running
        while i < LOGIT_BLOCK - 1 and running <= target + margin:
            i += 1
            before = running
            running += load_double(weights + 8 * (LOGIT_BLOCK * block + i))
        if running > target + margin and before < target - margin:
            index = LOGIT_BLOCK * block + i
    return index


# ---- the kernel
@stage
def _candidates(x, vocab, blocks, maxima, temperature, top_k, top_p, min_p, maximum, logits, ids, order):
    """Copies the candidates if they are known before weights are computed (top-k, min-p) -> their number; 0: all tokens
    of the row are candidates."""
    floor, count = MINUS_INFINITY, 0
    if top_p == 1 and min_p > 0:  # without top-p the weights of the other tokens are not needed
        floor = np.float32(maximum + temperature * (math.log(min_p) - 1e-4) - 1e-5 * abs(maximum))
    if top_k > 0:
        floor = at_least(maxima, blocks, order, top_k, floor)
    if top_k > 0 or floor > MINUS_INFINITY:
        count = gather(x, vocab, blocks, maxima, floor, logits, ids)
        if 0 < top_k < count:
            count = keep_top(logits, ids, count, top_k, order)
        for i in range(count, (count + LOGIT_BLOCK - 1) // LOGIT_BLOCK * LOGIT_BLOCK):
            store_float(logits + 4 * i, MINUS_INFINITY)
    return count


@stage
def _drawn(x, blocks, maximum, vocab, temperature, top_p, min_p, unit, maxima, weights, sums, bins, order):
    """-> the index in the view of the token that is drawn; UNDECIDED if rounding could change it."""
    total, boundary, index = weights_of(x, blocks, temperature, maximum, weights, sums), UNDECIDED, UNDECIDED
    slack = _ROUNDING * vocab + _LEAST_MARGIN
    if top_p < 1:
        scale = _scale(x, blocks, maximum, temperature)
        boundary = _boundary(
            x, blocks, maximum, scale, weights, sums, maxima, top_p * total, slack * total, bins, order
        )
    if top_p == 1 or boundary != UNDECIDED:
        if top_p < 1 or min_p > 0:
            total = _keep(x, blocks, boundary, min_p, weights, sums)
        if total == total:
            index = _draw(blocks, weights, sums, unit * total, slack * total)
    return index


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
        maximum, token = survey(x, blocks, maxima), UNDECIDED
        if maximum - maximum == 0 and temperature < GREEDY_BELOW:
            token = first(x, blocks, maxima, maximum)
        elif maximum - maximum == 0:
            count = _candidates(
                x, vocab, blocks, maxima, temperature, top_k if top_k < vocab else 0, top_p, min_p, maximum, logits,
                ids, order,
            )  # fmt: skip
            parts = blocks if count == 0 else (count + LOGIT_BLOCK - 1) // LOGIT_BLOCK
            if count > 0:
                x = logits
                survey(x, parts, maxima)
            token = _drawn(
                x, parts, maximum, vocab, temperature, top_p, min_p, unit, maxima, weights, sums, bins, order
            )
            if token != UNDECIDED and count > 0:
                token = load_int32(ids + 4 * token)
        store_word(load_word(row + 48) + 8 * number, token)
