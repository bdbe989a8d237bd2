"""Choosing one token for every row of logits, the definition.

Owns: what temperature, top-k, top-p and min-p mean, as pure functions of float64 logits [rows, vocab] and one number
per row; how a token is drawn from what they leave; and how likely tokens were. Penalties, which come before, and
typical-p and mirostat, which come after, belong to `ferrum.sample`. Refuses to know: requests, and where the numbers
come from.
Specs: OPS-74, OPS-75, SAMPLE-03 to SAMPLE-06. Papers: nucleus 1904.09751, min-p 2407.01082. Next: `ferrum.model.rope`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ferrum.tensor.ops import Tensor

if TYPE_CHECKING:
    from ferrum.tensor.compositions import TensorOps

GREEDY_BELOW = 1e-5
"""A temperature below this counts as 0: the token of the largest logit, without a division. vLLM uses the same
limit."""


def choose(ops: TensorOps, logits: Tensor, settings: Tensor) -> Tensor:
    """logits float [rows, vocab], settings float64 [rows, 5] -> int64 [rows]. See `Compositions.choose`."""
    temperature, top_k, top_p, min_p, unit = ops.split(settings, (1, 1, 1, 1, 1), 1)
    best = ops.argmax(logits, -1)
    wide = ops.cast(logits, "float64")
    largest = ops.take_along(wide, ops.reshape(best, (-1, 1)))  # [rows, 1]
    greedy = ops.less(temperature, ops.constant(GREEDY_BELOW, "float64"))
    finite = ops.bitwise_and(
        ops.less(ops.constant(-math.inf, "float64"), largest), ops.less(largest, ops.constant(math.inf, "float64"))
    )
    x = apply_temperature(ops, wide, ops.where(greedy, ops.constant(1, "float64"), temperature))
    x = apply_top_k(ops, x, ops.cast(top_k, "int64"))
    x = apply_min_p(ops, apply_top_p(ops, x, top_p), min_p)
    is_drawn = ops.bitwise_and(ops.equal(greedy, ops.constant(0, "bool")), finite)
    return ops.where(ops.reshape(is_drawn, best.shape), draw(ops, x, unit), best)


def ranked(ops: TensorOps, logits: Tensor, tokens: Tensor, count: int) -> Tensor:
    """logits float [rows, vocab], int64 [rows] -> float64 [rows, 2 + 2 * count]. See `Compositions.ranked`."""
    wide, tokens = ops.cast(logits, "float64"), ops.reshape(tokens, (-1, 1))
    largest = ops.max(wide, -1)
    total = ops.log(ops.sum(ops.exp(ops.sub(wide, largest)), -1))
    token_logit, places = ops.take_along(wide, tokens), ops.arange(logits.shape[1], "int64")
    as_good = ops.bitwise_and(ops.equal(wide, token_logit), ops.less(places, tokens))
    better = ops.add(ops.cast(ops.less(token_logit, wide), "float64"), ops.cast(as_good, "float64"))
    rank = ops.add(ops.sum(better, -1), ops.constant(1, "float64"))
    values, best = ops.top_k(wide, count)
    token_logit, values = (ops.sub(ops.sub(x, largest), total) for x in (token_logit, values))
    return ops.concat((token_logit, rank, ops.cast(best, "float64"), values), -1)


def apply_temperature(ops: TensorOps, logits: Tensor, temperature: Tensor) -> Tensor:
    """logits float64 [rows, vocab], temperature float64 [rows, 1] above 0 -> [rows, vocab]: their quotient. A float32
    logit divided by the smallest temperature does not overflow float64."""
    return ops.div(logits, temperature)


def apply_top_k(ops: TensorOps, logits: Tensor, top_k: Tensor) -> Tensor:
    """top_k int64 [rows, 1]: keeps exactly the k largest logits; of equal ones those with the lowest ids. 0 keeps
    all."""
    off = ops.equal(top_k, ops.constant(0, "int64"))
    return keep(ops, logits, ops.less(ranks_of(ops, logits), top_k), off)


def apply_top_p(ops: TensorOps, logits: Tensor, top_p: Tensor) -> Tensor:
    """top_p float64 [rows, 1]: keeps the most probable tokens until their probabilities add up to top_p. A token stays
    if the tokens before it add up to less than top_p, so the token that crosses the boundary stays. 1 keeps all."""
    weights = weights_of(ops, logits)
    descending = ops.take_along(weights, ops.argsort(logits))
    stays = until(ops, descending, ops.mul(top_p, total_of(ops, weights)))
    off = ops.equal(top_p, ops.constant(1, "float64"))
    return keep(ops, logits, ops.take_along(stays, ranks_of(ops, logits)), off)


def apply_min_p(ops: TensorOps, logits: Tensor, min_p: Tensor) -> Tensor:
    """min_p float64 [rows, 1]: keeps tokens whose probability is at least min_p times the largest one. 0 keeps all."""
    weights = weights_of(ops, logits)
    return ops.where(ops.less(weights, min_p), ops.constant(-math.inf, "float64"), logits)


def draw(ops: TensorOps, logits: Tensor, unit: Tensor) -> Tensor:
    """logits [rows, vocab], unit float64 [rows, 1] in [0, 1) -> int64 [rows]: the first token, in the order of ids, at
    which the running sum of probabilities exceeds `unit`. A token of probability 0 is never drawn: it adds nothing to
    the sum."""
    weights = weights_of(ops, logits)
    passed = ops.less(ops.mul(unit, total_of(ops, weights)), ops.cumsum(weights, -1))
    return ops.argmax(ops.cast(passed, "int8"), -1)  # the first that passes


def keep(ops: TensorOps, logits: Tensor, kept: Tensor, all_kept: Tensor) -> Tensor:
    """The logits, with -inf where neither `kept` [rows, vocab] nor `all_kept` [rows, 1] is true."""
    minus_infinity = ops.constant(-math.inf, "float64")
    return ops.where(all_kept, logits, ops.where(kept, logits, minus_infinity))


def weights_of(ops: TensorOps, logits: Tensor) -> Tensor:
    """Probabilities without the division by their sum: the largest weight of a row is 1."""
    return ops.exp(ops.sub(logits, ops.max(logits, -1)))


def total_of(ops: TensorOps, weights: Tensor) -> Tensor:
    """weights [rows, vocab] -> [rows, 1]: their sum in the order of ids. Zeros among them change no bit of it."""
    return ops.split(ops.cumsum(weights, -1), (weights.shape[1] - 1, 1), -1)[1]


def ranks_of(ops: TensorOps, logits: Tensor) -> Tensor:
    """-> int64 [rows, vocab]: each token's place in descending order, from 0. The inverse of a permutation is its
    argsort."""
    return ops.argsort(ops.sub(ops.constant(0, "int64"), ops.argsort(logits)))


def until(ops: TensorOps, weights: Tensor, wanted: Tensor) -> Tensor:
    """weights [rows, n] in some order, wanted [rows, 1] -> bool [rows, n]: true where the weights before a place add up
    to less than `wanted`."""
    before = ops.concat((ops.zeros((weights.shape[0], 1), "float64"), ops.cumsum(weights, -1)), -1)
    return ops.less(ops.split(before, (weights.shape[1], 1), -1)[0], wanted)
