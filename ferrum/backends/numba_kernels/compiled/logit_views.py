"""The look at a row of logits: its largest ones, candidates copied out of it, their weights and their order.

Owns: what the kernels that choose tokens and tell of them have in common. A *view* is the logits that matter: the row
itself, or candidates copied out of it, in the order of ids, in blocks of 64 that are padded with -inf.
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
from ferrum.backends.numba_kernels.sizes import BLOCK

stage: Any = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)  # type: ignore[call-overload]
"""Decorator of a part of a kernel that is compiled by itself: written into it, all of them would take Numba three times
as long."""

NOTHING = np.float32(-np.inf)


@inlined
def scratch_of_row(place, blocks):
    """The parts of a chunk's memory, in the order that `choice_scratch` tells: of sums, weights, largest ones, logits,
    ids, and places to put these in order."""
    weights = place + 8 * blocks
    maxima = weights + 8 * BLOCK * blocks
    logits = maxima + 4 * blocks
    ids = logits + 4 * BLOCK * blocks
    return place, weights, maxima, logits, ids, ids + 4 * BLOCK * blocks


@inlined
def padded(x, count, blocks, out):
    """Copies a row whose logits do not fill their blocks, and -inf behind it -> where it is."""
    if count % BLOCK != 0:
        for i in range(BLOCK * blocks):
            store_float(out + 4 * i, load_float(x + 4 * i) if i < count else NOTHING)
        x = out
    return x


@stage
def survey(x, blocks, maxima):
    """The largest logit; NaN where one is. Writes the largest of each block."""
    most = splat(NOTHING)
    for block in range(blocks):
        place = x + 4 * BLOCK * block
        values = largest(largest(load(place), load(place + 64)), largest(load(place + 128), load(place + 192)))
        store_float(maxima + 4 * block, max_lanes(values))
        most = largest(values, most)
    total = sum_lanes(most)
    return max_lanes(most) if total == total else total


@inlined
def first(x, blocks, maxima, wanted):
    """The place of the first logit that is the largest."""
    block = 0
    while block < blocks - 1 and load_float(maxima + 4 * block) != wanted:
        block += 1
    place, i = x + 4 * BLOCK * block, 0
    while i < BLOCK - 1 and load_float(place + 4 * i) != wanted:
        i += 1
    return BLOCK * block + i


@stage
def kth_largest(values, count, k):
    """Of floats that are taken apart on the way; k from 1."""
    low, high, wanted = 0, count - 1, k - 1
    while low < high:
        pivot = load_float(values + 4 * ((low + high) // 2))
        i, j = low, high
        while i <= j:
            while load_float(values + 4 * i) > pivot:
                i += 1
            while load_float(values + 4 * j) < pivot:
                j -= 1
            if i <= j:
                other = load_float(values + 4 * i)
                store_float(values + 4 * i, load_float(values + 4 * j))
                store_float(values + 4 * j, other)
                i += 1
                j -= 1
        low, high = (low, j) if wanted <= j else (i, high) if wanted >= i else (wanted, wanted)
    return load_float(values + 4 * wanted)


# ---- candidates
@inlined
def at_least(maxima, blocks, copy, top_k, floor):
    """A logit that all candidates reach: the k-th largest of blocks' largest is at most the k-th largest of all."""
    if 0 < top_k <= blocks:
        for block in range(blocks):
            store_float(copy + 4 * block, load_float(maxima + 4 * block))
        floor = max(floor, kth_largest(copy, blocks, top_k))
    return floor


@stage
def gather(x, count, blocks, maxima, floor, logits, ids):
    """Copies the logits that are not below `floor`, and their ids -> how many."""
    found = 0
    for block in range(blocks):
        if load_float(maxima + 4 * block) >= floor:
            for i in range(BLOCK * block, min(BLOCK * block + BLOCK, count)):
                logit = load_float(x + 4 * i)
                if logit >= floor:
                    store_float(logits + 4 * found, logit)
                    store_int32(ids + 4 * found, i)
                    found += 1
    return found


@stage
def keep_top(logits, ids, found, top_k, copy):
    """Leaves exactly `top_k` candidates, of equal ones those with the lowest ids -> how many there are."""
    if found > top_k:
        for i in range(found):
            store_float(copy + 4 * i, load_float(logits + 4 * i))
        threshold = kth_largest(copy, found, top_k)
        ties = top_k
        for i in range(found):
            if load_float(logits + 4 * i) > threshold:
                ties -= 1
        kept = 0
        for i in range(found):
            logit = load_float(logits + 4 * i)
            if logit > threshold or (logit == threshold and ties > 0):
                if logit == threshold:
                    ties -= 1
                store_float(logits + 4 * kept, logit)
                store_int32(ids + 4 * kept, load_int32(ids + 4 * i))
                kept += 1
        found = kept
    return found


# ---- weights
@stage
def weights_of(x, blocks, temperature, most, weights, sums):
    """Writes the weight of every logit of a view, and their sum by block -> the sum of all."""
    total, best = 0.0, np.float64(most) / temperature
    for block in range(blocks):
        place, out, part = x + 4 * BLOCK * block, weights + 8 * BLOCK * block, 0.0
        for i in range(4):
            part += weigh(out + 128 * i, load(place + 64 * i), temperature, best)
        store_double(sums + 8 * block, part)
        total += part
    return total


@stage
def sort(x, members, count):
    """Places of logits, ascending, into the descending order of those; equal ones stay as they are."""
    for i in range(1, count):
        place = load_int32(members + 4 * i)
        logit, j = load_float(x + 4 * place), i
        while j > 0 and load_float(x + 4 * load_int32(members + 4 * (j - 1))) < logit:
            store_int32(members + 4 * j, load_int32(members + 4 * (j - 1)))
            j -= 1
        store_int32(members + 4 * j, place)
