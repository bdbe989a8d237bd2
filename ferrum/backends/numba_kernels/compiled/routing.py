"""Routing of a mixture of experts: the experts of each token, and the tokens of each expert.

Owns: the kernels between the scores of a router and the products of the experts. Their results are data in memory, not
words of a launch, so a replayed step routes its own tokens. A *pair* is a token and one of its experts; pairs are
numbered token by token, best expert first. A *place* is the number of a pair in the order of experts, and of tokens
within an expert: the pairs of one expert have neighbouring places. Definition: `routed` in `ferrum.tensor.experts`.
Specs: OPS-70. Next: `ferrum.backends.numba_kernels.compiled.experts`.
"""

from __future__ import annotations

import numpy as np

from ferrum.backends.numba_kernels.compiled.activations import logistic
from ferrum.backends.numba_kernels.compiled.simd import (
    add,
    call3,
    div,
    exp,
    fma,
    inlined,
    larger,
    load,
    load_float,
    load_word,
    max_lanes,
    splat,
    store,
    store_float,
    store_word,
    sub,
    sum_lanes,
    zeros,
)

_MINUS_INFINITY = np.float32(-np.inf)
_TAKEN = np.float32(-1)
"""Replaces the probability of an expert that has been taken. Probabilities are at least 0, or all are NaN."""


@inlined
def _softmax(scores, out, count):
    """The probabilities of `count` scores. `out` has space for whole vectors."""
    for n in range(count):
        store_float(out + 4 * n, load_float(scores + 4 * n))
    for n in range(count, (count + 15) // 16 * 16):
        store_float(out + 4 * n, _MINUS_INFINITY)
    maximum = splat(_MINUS_INFINITY)
    for place in range(0, 4 * count, 64):
        maximum = larger(load(out + place), maximum)
    shift, total = splat(max_lanes(maximum)), zeros()
    for place in range(0, 4 * count, 64):
        value = exp(sub(load(out + place), shift))
        store(out + place, value)
        total = add(total, value)
    sums = splat(sum_lanes(total))
    for place in range(0, 4 * count, 64):
        store(out + place, div(load(out + place), sums))


@inlined
def _take_best(chances, count):
    """-> the number of the largest probability and the probability; the first one of equals. It is then marked as
    taken, and never returned again: the experts of a token are distinct even if all scores are NaN."""
    best, largest = -1, _TAKEN
    for n in range(count):
        chance = load_float(chances + 4 * n)
        if chance != _TAKEN and (best < 0 or chance > largest):
            best, largest = n, chance
    store_float(chances + 4 * best, _TAKEN)
    return best, largest


# ---- kernels
def route(row, chunk, chunks):
    """The best experts of each token and their weights.

    1 scores (contiguous), 2 tokens, 3 experts, 4 chosen, 5 1 if weights are divided by their sum, else 0, 6 weights
    out, 7 experts out (words), both [tokens, chosen], 8 scratch, 9 scratch bytes per chunk"""
    scores, tokens, experts, chosen = (
        load_word(row + 8),
        load_word(row + 16),
        load_word(row + 24),
        load_word(row + 32),
    )
    chances = load_word(row + 64) + chunk * load_word(row + 72)
    for token in range(tokens * chunk // chunks, tokens * (chunk + 1) // chunks):
        weights, numbers = load_word(row + 48) + 4 * chosen * token, load_word(row + 56) + 8 * chosen * token
        _softmax(scores + 4 * experts * token, chances, experts)
        total = np.float32(0)
        for slot in range(chosen):
            number, chance = _take_best(chances, experts)
            store_word(numbers + 8 * slot, number)
            store_float(weights + 4 * slot, chance)
            total += chance
        if load_word(row + 40) != 0:
            for slot in range(chosen):
                store_float(weights + 4 * slot, load_float(weights + 4 * slot) / total)


def group(row, chunk, chunks):
    """Pairs sorted by expert, by a counting sort in one chunk.

    1 tokens, 2 chosen, 3 experts, 4 the expert of each pair, 5 ends out: the end of the places of each expert, 6 tokens
    out: the token of each place, 7 places out: the place of each pair. All arrays are words."""
    chosen, experts = load_word(row + 16), load_word(row + 24)
    numbers, ends, pairs = load_word(row + 32), load_word(row + 40), load_word(row + 8) * chosen
    if chunk != 0:
        return
    for expert in range(experts):
        store_word(ends + 8 * expert, 0)
    for pair in range(pairs):
        count = ends + 8 * load_word(numbers + 8 * pair)
        store_word(count, load_word(count) + 1)
    begin = 0
    for expert in range(experts):
        count = load_word(ends + 8 * expert)
        store_word(ends + 8 * expert, begin)
        begin += count
    for pair in range(pairs):  # the word of an expert moves from the begin of its places to their end
        end = ends + 8 * load_word(numbers + 8 * pair)
        place = load_word(end)
        store_word(end, place + 1)
        store_word(load_word(row + 48) + 8 * place, pair // chosen)
        store_word(load_word(row + 56) + 8 * pair, place)


def shared_gate(row, chunk, chunks):
    """The gate of the shared expert: the sigmoid of one row of weights times x, the same number in 16 lanes.

    1 x, 2 x stride, 3 tokens, 4 columns, 5 row decoder, 6 stored row, 7 bias (0: none), 8 out [tokens, 16], 9 scratch,
    10 scratch bytes per chunk"""
    tokens, columns, bias = load_word(row + 24), load_word(row + 32), load_word(row + 56)
    weight = load_word(row + 72) + chunk * load_word(row + 80)
    call3(load_word(row + 40), weight, load_word(row + 48), columns)
    for token in range(tokens * chunk // chunks, tokens * (chunk + 1) // chunks):
        x, total = load_word(row + 8) + token * load_word(row + 16), zeros()
        for place in range(0, 4 * columns, 64):
            total = fma(load(weight + place), load(x + place), total)
        score = splat(sum_lanes(total))
        if bias != 0:
            score = add(score, splat(load_float(bias)))
        store(load_word(row + 64) + 64 * token, logistic(score))
