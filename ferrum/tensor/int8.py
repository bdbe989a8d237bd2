"""Products of quantised weights with activations that are rounded to eight bits: the int8 class of arithmetic.

Owns: the definition of the rounding and of the sum. Activations are rounded in groups of 32 neighbours. Products of
codes are whole numbers and exact; only the sum over groups, group after group, is rounded:

    sum = sum + float(Σ code · x code) · (step · x scale)  [+ minimum · (x scale · Σ x code)]

Every operation here rounds once in float32, or not at all, so a kernel of any processor can compute the same bits.
Dense weights have no codes: their products stay exact. Refuses to know: which weights a model has.
Specs: OPS-82 to OPS-84. Source: the products of ggml (`quantize_row_q8_0`, `ggml_vec_dot_q4_0_q8_0`), which round
activations in the same groups. Next: `ferrum.tensor.batch`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ferrum.tensor.weights import GROUP, BlockWeight

if TYPE_CHECKING:
    from ferrum.tensor.compositions import TensorOps
    from ferrum.tensor.ops import Tensor

LARGEST_CODE = 127
NOTHING = 2.0**-100
"""A group whose largest number is not above this counts as zeros: the reciprocal of its scale would overflow."""
WHOLE = {"float32": 1.5 * 2.0**23, "float64": 1.5 * 2.0**52}
"""Added and subtracted again, it rounds a number to a whole one, ties to even: near it, neighbours in the type are 1
apart."""


def rounded(ops: TensorOps, x: Tensor) -> tuple[Tensor, Tensor]:
    """x [tokens, columns], columns a multiple of 32 -> codes, whole numbers from -127 to 127, [tokens, columns / 32,
    32], and scales [tokens, columns / 32, 1], both in the backend's float type: x ≈ scale * code. The scale of a group
    that holds an infinity or NaN is NaN."""
    groups = ops.reshape(x, (x.shape[0], x.shape[1] // GROUP, GROUP))
    largest = ops.max(ops.maximum(groups, ops.sub(ops.scalar(0), groups)), -1)
    scales = ops.div(largest, ops.scalar(LARGEST_CODE))
    used = ops.bitwise_and(ops.less(ops.scalar(NOTHING), largest), ops.less(largest, ops.scalar(math.inf)))
    inverse = ops.where(used, ops.div(ops.scalar(1), scales), ops.scalar(0))
    whole = ops.scalar(WHOLE[ops.float_dtype])
    numbers = ops.where(used, groups, ops.scalar(0))
    codes = ops.sub(ops.add(ops.mul(numbers, inverse), whole), whole)
    unused_scale = ops.where(ops.less(largest, ops.scalar(math.inf)), ops.scalar(0), ops.scalar(math.nan))
    return codes, ops.where(used, scales, unused_scale)


def product(ops: TensorOps, x: Tensor, weight: BlockWeight) -> Tensor:
    """x [tokens, columns], weight [rows, columns] -> [tokens, rows]: the product of the rounded x with the weight."""
    codes, scales = rounded(ops, x)
    groups = weight.grouped(ops, weight.data)
    tokens, rows = x.shape[0], weight.rows
    width = int(groups.codes.shape[2])
    codes = ops.reshape(codes, (tokens, weight.columns // width, width))
    total = ops.zeros((tokens, rows), ops.float_dtype)
    for number in range(weight.columns // width):
        group_codes, scale = _group(ops, codes, number), _group(ops, scales, number * width // GROUP)
        whole = ops.matmul(group_codes, ops.transpose(_group(ops, groups.codes, number)))  # exact: far below 2 ** 24
        step = ops.mul(ops.transpose(_group(ops, groups.steps, number)), scale)
        total = ops.add(total, ops.mul(whole, step))
        if groups.minimums is not None:
            least = ops.transpose(_group(ops, groups.minimums, number))
            total = ops.add(total, ops.mul(least, ops.mul(scale, ops.sum(group_codes, -1))))
    return total


def _group(ops: TensorOps, x: Tensor, number: int) -> Tensor:
    """[n, groups, width] -> [n, width]: one group of every row."""
    count, groups, width = x.shape
    return ops.reshape(ops.split(x, (number, 1, groups - number - 1), 1)[1], (count, width))
