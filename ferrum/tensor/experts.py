"""A mixture of experts, the definition: the router's scores, the best experts of each token, the sum of their results.

Owns: which experts a token goes to, and the weights of their results. Tokens are grouped: each expert computes all of
its tokens at once. This code is slow and plain on purpose: in each layer the host waits for the device, reads which
experts were chosen, and copies lists of tokens back, two for each expert. Refuses to know: what an expert computes
(`norm_gated`).
Specs: OPS-39. Papers: sparsely-gated experts 1701.06538, Mixtral 2401.04088. Next: `ferrum.tensor.drawing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Experts
from ferrum.tensor.weights import Linear

if TYPE_CHECKING:
    from ferrum.tensor.compositions import TensorOps


def mixture(ops: TensorOps, x: Tensor, experts: Experts) -> Tensor:
    """[tokens, hidden] -> [tokens, hidden]: the weighted sum of what each token's experts compute."""
    weights, chosen = routed(ops, x, experts)
    total = shared_part(ops, x, experts)
    choices = ops.to_numpy(chosen)
    for number, expert in enumerate(experts.experts):
        tokens, places = np.nonzero(choices == number)
        if not len(tokens):
            continue
        rows, column = (ops.asarray(each, "int64") for each in (tokens, places.reshape(-1, 1)))
        inputs = ops.take(x, rows)  # [the expert's tokens, hidden]
        result = ops.linear(ops.norm_gated(inputs, None, expert), expert.down)
        weight = ops.take_along(ops.take(weights, rows), column)  # [the expert's tokens, 1]
        ops.put(total, (rows,), ops.add(ops.take(total, rows), ops.mul(weight, result)))
    return total


def routed(ops: TensorOps, x: Tensor, experts: Experts) -> tuple[Tensor, Tensor]:
    """-> weights and int64 numbers of each token's experts, both [tokens, chosen], best expert first."""
    chances = ops.softmax(_exactly(ops, x, experts.router))  # [tokens, experts]
    weights, chosen = ops.top_k(chances, experts.chosen)
    if experts.normalised:
        weights = ops.div(weights, ops.sum(weights, -1))
    return weights, chosen


def shared_part(ops: TensorOps, x: Tensor, experts: Experts) -> Tensor:
    """-> [tokens, hidden]: the result of the shared expert; 0 if there is none."""
    shared = experts.shared
    if shared is None:
        return ops.zeros(x.shape, ops.float_dtype)
    result = ops.linear(ops.norm_gated(x, None, shared), shared.down)
    if experts.shared_weight is None:
        return result
    return ops.mul(ops.sigmoid(_exactly(ops, x, experts.shared_weight)), result)


def _exactly(ops: TensorOps, x: Tensor, linear: Linear) -> Tensor:
    """linear(x) without rounding x: a rounded score could select another expert, an error far larger than the
    rounding."""
    if ops.compute != "int8":
        return ops.linear(x, linear)
    y = ops.matmul(x, ops.transpose(ops.dequantize(linear.weight)))
    return y if linear.bias is None else ops.add(y, linear.bias)
