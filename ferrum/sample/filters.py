"""Which tokens can still be chosen, the definition: filters that mask logits with -inf.

Owns: what temperature, top-k, top-p, min-p, typical-p and mirostat mean, as pure functions on float64 logits
[rows, vocab] and one number per row. In that order they are the second half of the pipeline.
Refuses to know: requests and scheduling.
Specs: SAMPLE-03 to SAMPLE-06, SAMPLE-22, SAMPLE-23. Papers: nucleus 1904.09751, min-p 2407.01082, locally typical
sampling 2202.00666, Mirostat 2007.14966 (its second version). Next: `ferrum.sample.pipeline`.
"""

from __future__ import annotations

import math

from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor


def apply_temperature(ops: TensorOps, logits: Tensor, temperature: Tensor) -> Tensor:
    """float64 [rows, vocab], float64 [rows, 1] above 0 -> [rows, vocab]. No float32 logit overflows float64 here."""
    return ops.div(logits, temperature)


def apply_top_k(ops: TensorOps, logits: Tensor, top_k: Tensor) -> Tensor:
    """int64 [rows, 1]: keep exactly the k largest logits, of equal ones those with the lowest ids; 0 keeps all."""
    off = ops.equal(top_k, ops.constant(0, "int64"))
    return keep(ops, logits, ops.less(ranks_of(ops, logits), top_k), off)


def apply_top_p(ops: TensorOps, logits: Tensor, top_p: Tensor) -> Tensor:
    """float64 [rows, 1]: keep the most probable tokens until their probability reaches top_p: a token stays if the
    tokens before it hold less than top_p, so the one that crosses the boundary stays. 1 keeps all."""
    weights = weights_of(ops, logits)
    descending = ops.take_along(weights, ops.argsort(logits))
    kept = _until(ops, descending, ops.mul(top_p, total_of(ops, weights)))
    off = ops.equal(top_p, ops.constant(1, "float64"))
    return keep(ops, logits, ops.take_along(kept, ranks_of(ops, logits)), off)


def apply_min_p(ops: TensorOps, logits: Tensor, min_p: Tensor) -> Tensor:
    """float64 [rows, 1]: keep tokens at least min_p times as probable as the most probable one; 0 keeps all."""
    weights = weights_of(ops, logits)
    return ops.where(ops.less(weights, min_p), ops.constant(-math.inf, "float64"), logits)


def apply_typical_p(ops: TensorOps, logits: Tensor, typical_p: Tensor) -> Tensor:
    """float64 [rows, 1]: keep the tokens whose surprise is closest to what the distribution expects, its entropy, until
    their probability reaches typical_p; the token that crosses the boundary stays. 1 keeps all."""
    weights, surprise = weights_of(ops, logits), surprise_of(ops, logits)
    zero = ops.constant(0, "float64")
    shares = ops.div(weights, total_of(ops, weights))
    known = ops.where(ops.equal(weights, zero), zero, surprise)  # what has no weight adds nothing, not 0 * infinity
    entropy = total_of(ops, ops.mul(shares, known))
    distance = ops.sub(surprise, entropy)
    closeness = ops.sub(zero, ops.maximum(distance, ops.sub(zero, distance)))  # the largest is the most typical
    kept = _until(ops, ops.take_along(weights, ops.argsort(closeness)), ops.mul(typical_p, total_of(ops, weights)))
    off = ops.equal(typical_p, ops.constant(1, "float64"))
    return keep(ops, logits, ops.take_along(kept, ranks_of(ops, closeness)), off)


def apply_mirostat(ops: TensorOps, logits: Tensor, most_surprise: Tensor) -> Tensor:
    """float64 [rows, 1], bits: keep tokens of no more surprise than that, and the most probable one in any case;
    infinity keeps all."""
    surprise = ops.div(surprise_of(ops, logits), ops.constant(math.log(2), "float64"))
    kept = ops.equal(ops.less(most_surprise, surprise), ops.constant(0, "bool"))
    return keep(ops, logits, kept, ops.equal(logits, ops.max(logits, -1)))


def surprise_of(ops: TensorOps, logits: Tensor) -> Tensor:
    """[rows, vocab] -> -log of each token's probability, in nats; infinity for one that has none."""
    zero = ops.constant(0, "float64")
    shifted = ops.sub(logits, ops.max(logits, -1))
    return ops.sub(zero, ops.sub(shifted, ops.log(total_of(ops, weights_of(ops, logits)))))


def keep(ops: TensorOps, logits: Tensor, kept: Tensor, all_kept: Tensor) -> Tensor:
    """-inf where neither `kept` [rows, vocab] nor `all_kept` [rows, 1]."""
    minus_infinity = ops.constant(-math.inf, "float64")
    return ops.where(all_kept, logits, ops.where(kept, logits, minus_infinity))


def weights_of(ops: TensorOps, logits: Tensor) -> Tensor:
    """Probabilities times an unknown factor: the largest weight of a row is 1."""
    return ops.exp(ops.sub(logits, ops.max(logits, -1)))


def total_of(ops: TensorOps, weights: Tensor) -> Tensor:
    """[rows, vocab] -> [rows, 1], summed in the order of ids: zeros in between do not change a bit of it."""
    return ops.split(ops.cumsum(weights, -1), (weights.shape[1] - 1, 1), -1)[1]


def ranks_of(ops: TensorOps, logits: Tensor) -> Tensor:
    """int64 [rows, vocab]: each token's place in descending order. The inverse of a permutation is its argsort."""
    return ops.argsort(ops.sub(ops.constant(0, "int64"), ops.argsort(logits)))


def _until(ops: TensorOps, weights: Tensor, wanted: Tensor) -> Tensor:
    """weights [rows, n] in some order, wanted [rows, 1] -> bool [rows, n]: before which less than that has come."""
    before = ops.concat((ops.zeros((weights.shape[0], 1), "float64"), ops.cumsum(weights, -1)), -1)
    return ops.less(ops.split(before, (weights.shape[1], 1), -1)[0], wanted)
