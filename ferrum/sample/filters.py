"""Which tokens can still be chosen, the definition: filters that mask logits with -inf.

Owns: what typical-p and mirostat mean, as pure functions on float64 logits [rows, vocab] and one number per row. They
are the last of the pipeline's filters; those before them are part of what a backend draws with
(`ferrum.tensor.drawing`), and are named here in their order.
Refuses to know: requests and scheduling.
Specs: SAMPLE-03 to SAMPLE-06, SAMPLE-22, SAMPLE-23. Papers: locally typical sampling 2202.00666, Mirostat 2007.14966
(its second version). Next: `ferrum.sample.pipeline`.
"""

from __future__ import annotations

import math

from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.drawing import (
    apply_min_p,
    apply_temperature,
    apply_top_k,
    apply_top_p,
    keep,
    ranks_of,
    total_of,
    until,
    weights_of,
)
from ferrum.tensor.ops import Tensor

__all__ = [
    "apply_min_p",
    "apply_mirostat",
    "apply_temperature",
    "apply_top_k",
    "apply_top_p",
    "apply_typical_p",
]


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
    kept = until(ops, ops.take_along(weights, ops.argsort(closeness)), ops.mul(typical_p, total_of(ops, weights)))
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
