"""How a token is chosen, the definition: filters that mask logits with -inf, in a fixed order, and one draw.

Owns: what temperature, top-k, top-p and min-p mean, row by row, for logits [rows, vocab] in float64. The order is
temperature → top_k → top_p → min_p → draw. `ferrum.sample.candidates` computes the same for one row in less time.
Refuses to know: requests and scheduling.
Specs: SAMPLE-01 to SAMPLE-08, SAMPLE-14. Papers: nucleus 1904.09751, min-p 2407.01082.
Next: `ferrum.sample.candidates`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ferrum.sample.randomness import random_unit
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.types import SamplingParams

GREEDY_BELOW = 1e-5
"""A temperature below this is 0: the limit is argmax, and it is reached without dividing (vLLM draws the same line)."""


def is_greedy(params: SamplingParams) -> bool:
    return params.temperature < GREEDY_BELOW


def sample_by_definition(
    ops: TensorOps,
    logits: Tensor,  # [rows, vocab]
    params: Sequence[SamplingParams],
    seeds: Sequence[int],
    positions: Sequence[int],
) -> Tensor:  # int64 [rows]
    """One token per row. Row r uses params[r] and the random number of (seeds[r], positions[r])."""
    rows = len(params)

    def column(values: Sequence[float], dtype: str) -> Tensor:
        return ops.reshape(ops.asarray(list(values), dtype), (rows, 1))

    greedy = ops.argmax(logits, -1)
    x = ops.cast(logits, "float64")
    x = apply_temperature(ops, x, column([1.0 if is_greedy(p) else p.temperature for p in params], "float64"))
    x = apply_top_k(ops, x, column([p.top_k for p in params], "int64"))
    x = apply_top_p(ops, x, column([p.top_p for p in params], "float64"))
    x = apply_min_p(ops, x, column([p.min_p for p in params], "float64"))
    units = [random_unit(seed, position) for seed, position in zip(seeds, positions, strict=True)]
    drawn = draw(ops, x, column(units, "float64"))
    return ops.where(ops.asarray([is_greedy(p) for p in params], "bool"), greedy, drawn)


def apply_temperature(ops: TensorOps, logits: Tensor, temperature: Tensor) -> Tensor:
    """float64 [rows, vocab], float64 [rows, 1] above 0 -> [rows, vocab]. No float32 logit overflows float64 here."""
    return ops.div(logits, temperature)


def apply_top_k(ops: TensorOps, logits: Tensor, top_k: Tensor) -> Tensor:
    """int64 [rows, 1]: keep exactly the k largest logits, of equal ones those with the lowest ids; 0 keeps all."""
    off = ops.equal(top_k, ops.full((), 0, "int64"))
    return _keep(ops, logits, ops.less(_ranks(ops, logits), top_k), off)


def apply_top_p(ops: TensorOps, logits: Tensor, top_p: Tensor) -> Tensor:
    """float64 [rows, 1]: keep the most probable tokens until their probability reaches top_p: a token stays if the
    tokens before it hold less than top_p, so the one that crosses the boundary stays. 1 keeps all."""
    weights = _weights(ops, logits)
    descending = ops.take_along(weights, ops.argsort(logits))
    before = ops.concat((ops.zeros((logits.shape[0], 1), "float64"), ops.cumsum(descending, -1)), -1)
    before = ops.split(before, (logits.shape[1], 1), -1)[0]  # [rows, vocab]: weight of all larger ones
    kept = ops.less(before, ops.mul(top_p, _total(ops, weights)))
    off = ops.equal(top_p, ops.full((), 1, "float64"))
    return _keep(ops, logits, ops.take_along(kept, _ranks(ops, logits)), off)


def apply_min_p(ops: TensorOps, logits: Tensor, min_p: Tensor) -> Tensor:
    """float64 [rows, 1]: keep tokens at least min_p times as probable as the most probable one; 0 keeps all."""
    weights = _weights(ops, logits)
    return ops.where(ops.less(weights, min_p), ops.full((), -math.inf, "float64"), logits)


def draw(ops: TensorOps, logits: Tensor, unit: Tensor) -> Tensor:
    """logits [rows, vocab], unit float64 [rows, 1] in [0, 1) -> int64 [rows]: the inverse of the distribution function,
    tokens in the order of their ids. A token without weight is never drawn: it adds nothing to the running sum."""
    weights = _weights(ops, logits)
    passed = ops.less(ops.mul(unit, _total(ops, weights)), ops.cumsum(weights, -1))
    return ops.argmax(ops.cast(passed, "int8"), -1)  # the first that passes


def _keep(ops: TensorOps, logits: Tensor, kept: Tensor, all_kept: Tensor) -> Tensor:
    """-inf where neither `kept` [rows, vocab] nor `all_kept` [rows, 1]."""
    minus_infinity = ops.full((), -math.inf, "float64")
    return ops.where(all_kept, logits, ops.where(kept, logits, minus_infinity))


def _weights(ops: TensorOps, logits: Tensor) -> Tensor:
    """Probabilities times an unknown factor: the largest weight of a row is 1."""
    return ops.exp(ops.sub(logits, ops.max(logits, -1)))


def _total(ops: TensorOps, weights: Tensor) -> Tensor:
    """[rows, vocab] -> [rows, 1], summed in the order of ids: zeros in between do not change a bit of it."""
    return ops.split(ops.cumsum(weights, -1), (weights.shape[1] - 1, 1), -1)[1]


def _ranks(ops: TensorOps, logits: Tensor) -> Tensor:
    """int64 [rows, vocab]: each token's place in descending order. The inverse of a permutation is its argsort."""
    return ops.argsort(ops.sub(ops.full((), 0, "int64"), ops.argsort(logits)))
