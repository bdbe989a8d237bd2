"""Views of a row of logits: the maximum of each block, candidates copied out of the row, their weights and their order.

Owns: the functions that the kernels of `choosing` and `ranking` share. A *view* is either the row itself or candidates
copied out of it in the order of ids, in blocks of 64 logits that are padded with -inf.
Specs: OPS-74, OPS-75. Next: `ferrum.backends.numba_kernels.compiled.choosing`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ferrum.backends.numba_kernels.compiled.simd import (
    inlined,
    load,
    load_float,
    load_int32,
    max_lanes,
    splat,
    store_float,
    sum_lanes,
)
from ferrum.backends.numba_kernels.compiled.simd_float64 import largest, store_double, store_int32, weigh
from ferrum.backends.numba_kernels.sizes import LOGIT_BLOCK

stage: Any = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)  # type: ignore[call-overload]
"""Decorator of a part of a kernel that is compiled as a function of its own. Inlining all of them would make
compilation three times as long."""

MINUS_INFINITY = np.float32(-np.inf)


@inlined
def scratch_of_row(place, blocks):
    """-> the addresses of the parts of a chunk's scratch, in the order of `choice_scratch`: sums of weights, weights,
    maxima, logits, ids, numbers for sorting."""
    weights = place + 8 * blocks
    maxima = weights + 8 * LOGIT_BLOCK * blocks
    logits = maxima + 4 * blocks
    ids = logits + 4 * LOGIT_BLOCK * blocks
    return place, weights, maxima, logits, ids, ids + 4 * LOGIT_BLOCK * blocks


@inlined
def padded(x, count, blocks, out):
    """-> the address of a row whose last block is complete: x, or a copy of it in `out`, followed by -inf."""
    if count % LOGIT_BLOCK != 0:
        for i in range(LOGIT_BLOCK * blocks):
            store_float(out + 4 * i, load_float(x + 4 * i) if i < count else MINUS_INFINITY)
        x = out
    return x


@stage
def survey(x, blocks, maxima):
    """-> the largest logit; NaN if one is NaN. Writes the maximum of each block."""
    maximum = splat(MINUS_INFINITY)
    for block in range(blocks):
        place = x + 4 * LOGIT_BLOCK * block
        values = largest(largest(load(place), load(place + 64)), largest(load(place + 128), load(place + 192)))
        store_float(maxima + 4 * block, max_lanes(values))
        maximum = largest(values, maximum)
    total = sum_lanes(maximum)
    return max_lanes(maximum) if total == total else total


@inlined
def first(x, blocks, maxima, maximum):
    """-> the index of the first logit that equals `maximum`, the largest one."""
    block = 0
    while block < blocks - 1 and load_float(maxima + 4 * block) != maximum:
        block += 1
    place, i = x + 4 * LOGIT_BLOCK * block, 0
    while i < LOGIT_BLOCK - 1 and load_float(place + 4 * i) != maximum:
        i += 1
    return LOGIT_BLOCK * block + i


@stage
def kth_largest(values, count, k):
    """-> the k-th largest of `count` floats, k from 1. The floats are reordered (quickselect)."""
    low, high, rank = 0, count - 1, k - 1
    while low < high:
        pivot = load_float(values + 4 * ((low + high) // 2))
        i, j = low, high
        while i <= j:
            while load_float(values + 4 * i) > pivot:
                i += 1
            while load_float(values + 4 * j) < pivot:
                j -= 1
            if i <= j:
                value = load_float(values + 4 * i)
                store_float(values + 4 * i, load_float(values + 4 * j))
                store_float(values + 4 * j, value)
                i += 1
                j -= 1
        low, high = (low, j) if rank <= j else (i, high) if rank >= i else (rank, rank)
    return load_float(values + 4 * rank)


# ---- candidates
@inlined
def at_least(maxima, blocks, copy, top_k, floor):
    """-> a lower bound of all candidates, at least `floor`: the k-th largest of the maxima of blocks is at most the
    k-th largest logit."""
    if 0 < top_k <= blocks:
        for block in range(blocks):
            store_float(copy + 4 * block, load_float(maxima + 4 * block))
        floor = max(floor, kth_largest(copy, blocks, top_k))
    return floor


@stage
def gather(x, count, blocks, maxima, floor, logits, ids):
    """Copies the logits that are not below `floor`, and their ids -> their number."""
    copies = 0
    for block in range(blocks):
        if load_float(maxima + 4 * block) >= floor:
            for i in range(LOGIT_BLOCK * block, min(LOGIT_BLOCK * block + LOGIT_BLOCK, count)):
                logit = load_float(x + 4 * i)
                if logit >= floor:
                    store_float(logits + 4 * copies, logit)
                    store_int32(ids + 4 * copies, i)
                    copies += 1
    return copies


@stage
def keep_top(logits, ids, count, top_k, copy):
    """Keeps the `top_k` largest candidates, of equal ones those with the lowest ids -> the number of candidates."""
    if count > top_k:
        for i in range(count):
            store_float(copy + 4 * i, load_float(logits + 4 * i))
        threshold = kth_largest(copy, count, top_k)
        ties = top_k
        for i in range(count):
            if load_float(logits + 4 * i) > threshold:
                ties -= 1
        place = 0
        for i in range(count):
            logit = load_float(logits + 4 * i)
            if logit > threshold or (logit == threshold and ties > 0):
                if logit == threshold:
                    ties -= 1
                store_float(logits + 4 * place, logit)
                store_int32(ids + 4 * place, load_int32(ids + 4 * i))
                place += 1
        count = place
    return count


# ---- weights
@stage
def weights_of(x, blocks, temperature, maximum, weights, sums):
    """Writes the weight of every logit of a view, and the sum of each block -> the sum of all. The weight of a logit is
    exp((logit - maximum) / temperature)."""
    total, best = 0.0, np.float64(maximum) / temperature
    for block in range(blocks):
        place, out, part = x + 4 * LOGIT_BLOCK * block, weights + 8 * LOGIT_BLOCK * block, 0.0
        for i in range(4):
            part += weigh(out + 128 * i, load(place + 64 * i), temperature, best)
        store_double(sums + 8 * block, part)
        total += part
    return total


@stage
def sort(x, members, count):
    """Sorts the indices `members` by their logits, the largest first (insertion sort). Equal logits keep their
    order."""
    for i in range(1, count):
        place = load_int32(members + 4 * i)
        logit, j = load_float(x + 4 * place), i
        while j > 0 and load_float(x + 4 * load_int32(members + 4 * (j - 1))) < logit:
            store_int32(members + 4 * j, load_int32(members + 4 * (j - 1)))
            j -= 1
        store_int32(members + 4 * j, place)
