"""ONNX operators along axes: reductions, norms, order, products, rotation.

Owns: what each of them is made of. Refuses to know: attention. Specs: SUITE-13.
Next: `benchmarks/suites/onnx_shapes.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ferrum.tensor.batch import RopeTables
from ferrum.tensor.ops import Tensor

from .onnx_elementwise import absolute, negative, times
from .onnx_node import Node, constant, flipped, number, on_last_axis, real

Ops = Any


def reduced(ops: Ops, node: Node) -> Tensor:
    x = number(ops, node.host(0))
    axes = node.integers(1, "axes")
    if not axes and node.get("noop_with_empty_axes", 0):
        return x
    axes = sorted(axis % len(x.shape) for axis in axes or range(len(x.shape)))
    if any(x.shape[axis] == 0 for axis in axes) and node.operator in ("ReduceMax", "ReduceMin"):
        raise node.refuse("of nothing")
    found = REDUCTIONS[node.operator](ops, x, axes)
    if node.get("keepdims", 1):
        return found
    return ops.reshape(found, tuple(length for axis, length in enumerate(x.shape) if axis not in axes))


def total(ops: Ops, x: Tensor, axes: Sequence[int]) -> Tensor:
    return functools.reduce(ops.sum, axes, x)


def largest(ops: Ops, x: Tensor, axes: Sequence[int]) -> Tensor:
    return functools.reduce(ops.max, axes, x)


def average(ops: Ops, x: Tensor, axes: Sequence[int]) -> Tensor:
    return times(ops, 1 / math.prod(x.shape[axis] for axis in axes), total(ops, x, axes))


def root(ops: Ops, x: Tensor) -> Tensor:
    return ops.div(constant(ops, 1, x), ops.rsqrt(x))


REDUCTIONS: Mapping[str, Callable[[Ops, Tensor, Sequence[int]], Tensor]] = {
    "ReduceSum": total,
    "ReduceMax": largest,
    "ReduceMin": lambda ops, x, axes: negative(ops, largest(ops, negative(ops, x), axes)),
    "ReduceMean": average,
    "ReduceL1": lambda ops, x, axes: total(ops, absolute(ops, x), axes),
    "ReduceL2": lambda ops, x, axes: root(ops, total(ops, ops.mul(x, x), axes)),
    "ReduceSumSquare": lambda ops, x, axes: total(ops, ops.mul(x, x), axes),
    "ReduceLogSum": lambda ops, x, axes: ops.log(total(ops, x, axes)),
    "ReduceLogSumExp": lambda ops, x, axes: ops.log(total(ops, ops.exp(x), axes)),
}


def arg_max(ops: Ops, node: Node) -> Tensor:
    x, axis = number(ops, node.host(0)), node.get("axis", 0)
    if node.operator == "ArgMin":
        x = negative(ops, x)
    if node.get("select_last_index", 0):
        last = ops.constant(x.shape[axis] - 1, "int64")
        found = ops.sub(last, ops.argmax(flipped(ops, x, axis), axis))
    else:
        found = ops.argmax(x, axis)
    kept = [1 if place == axis % len(x.shape) else length for place, length in enumerate(x.shape)]
    return ops.reshape(found, tuple(kept)) if node.get("keepdims", 1) else found


def hard_max(ops: Ops, node: Node) -> Tensor:
    def chosen(x: Tensor) -> Tensor:
        best = ops.reshape(ops.argmax(x, -1), (*x.shape[:-1], 1))
        found = ops.equal(ops.arange(x.shape[-1], "int64"), best)
        return ops.cast(found, str(x.dtype))

    return on_last_axis(ops, chosen, number(ops, node.host(0)), node.get("axis", -1))


def running_sum(ops: Ops, node: Node) -> Tensor:
    x, axis = number(ops, node.host(0)), int(node.host(1).reshape(()))
    backwards = node.get("reverse", 0)
    y = flipped(ops, x, axis) if backwards else x
    found = ops.cumsum(y, axis)
    if node.get("exclusive", 0):
        found = ops.sub(found, y)
    return flipped(ops, found, axis) if backwards else found


def top_k(ops: Ops, node: Node) -> Sequence[Tensor]:
    x, count = number(ops, node.host(0)), int(node.host(1).reshape(()))
    axis, largest_first = node.get("axis", -1) % len(x.shape), node.get("largest", 1)
    ops.argsort(x)  # refused where a backend need not order this type

    def best(part: int) -> Callable[[Tensor], Tensor]:
        return lambda y: ops.top_k(y if largest_first else negative(ops, y), count)[part]

    values, indices = (on_last_axis(ops, best(part), x, axis) for part in (0, 1))
    return values if largest_first else negative(ops, values), indices


def soft_max(ops: Ops, node: Node) -> Tensor:
    function = ops.softmax if node.operator == "Softmax" else ops.log_softmax
    return on_last_axis(ops, function, real(ops, node.host(0)), node.get("axis", -1))


def norm(ops: Ops, node: Node) -> Sequence[Tensor]:
    """Axes from `axis` on are one; weights broadcast to them."""
    x = real(ops, node.host(0))
    axis, epsilon = node.get("axis", -1) % len(x.shape), node.get("epsilon", 1e-5)
    width = math.prod(x.shape[axis:])
    rows = ops.reshape(x, (*x.shape[:axis], width))
    weight, *bias = (
        ops.reshape(ops.broadcast_to(real(ops, node.host(index)), x.shape[axis:]), (width,))
        for index in (1, 2)
        if node.has(index)
    )
    if node.operator == "RMSNormalization":
        return (ops.reshape(ops.rms_norm(rows, weight, epsilon), x.shape),)
    y = ops.layer_norm(rows, weight, bias[0] if bias else None, epsilon)
    middle = ops.mean(rows, -1)
    away = ops.sub(rows, middle)
    spread = ops.rsqrt(ops.add(ops.mean(ops.mul(away, away), -1), ops.scalar(epsilon)))
    kept = (*x.shape[:axis], *[1] * (len(x.shape) - axis))
    return ops.reshape(y, x.shape), ops.reshape(middle, kept), ops.reshape(spread, kept)


def product(ops: Ops, node: Node) -> Tensor:
    """Vectors are matrices of one row or column; leading axes become alike."""
    x, y = (number(ops, node.host(index)) for index in (0, 1))
    row, column = len(x.shape) == 1, len(y.shape) == 1
    x = ops.reshape(x, (1, *x.shape)) if row else x
    y = ops.reshape(y, (*y.shape, 1)) if column else y
    leading = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = (ops.broadcast_to(each, (*leading, *each.shape[-2:])) for each in (x, y))
    found = ops.matmul(x, y)
    return ops.reshape(found, (*leading, *([] if row else x.shape[-2:-1]), *([] if column else y.shape[-1:])))


def product_and_sum(ops: Ops, node: Node) -> Tensor:
    x, y = (number(ops, node.host(index)) for index in (0, 1))
    x = ops.transpose(x) if node.get("transA", 0) else x
    y = ops.transpose(y) if node.get("transB", 0) else y
    found = times(ops, node.get("alpha", 1.0), ops.matmul(x, y))
    return ops.add(found, times(ops, node.get("beta", 1.0), number(ops, node.host(2)))) if node.has(2) else found


def rotation(ops: Ops, node: Node) -> Tensor:
    """Rotary embedding of packed tokens. Interleaved pairs are halves in another order, as loaders have it."""
    given = node.host(0)
    heads = node.get("num_heads", 0)
    split = given.reshape(*given.shape[:2], heads, -1) if given.ndim == 3 else given.transpose(0, 2, 1, 3)
    packed = split.reshape(-1, *split.shape[2:])  # [tokens, heads, head_dim]
    rotary = node.get("rotary_embedding_dim", 0) or packed.shape[2]
    tables = [node.host(index).reshape(-1, rotary // 2) for index in (1, 2)]
    positions = node.host(3).reshape(-1) if node.has(3) else np.arange(len(packed))
    order = np.arange(packed.shape[2])
    if node.get("interleaved", 0):
        order[:rotary] = np.concatenate((order[:rotary:2], order[1:rotary:2]))
    x = ops.take(real(ops, packed), ops.asarray(order, "int64"), 2)
    placed = RopeTables(*(real(ops, table) for table in tables))
    turned = ops.rope(x, placed, ops.asarray(positions.astype(np.int32), "int32"))
    found = ops.reshape(ops.take(turned, ops.asarray(np.argsort(order), "int64"), 2), split.shape)
    return ops.reshape(found, given.shape) if given.ndim == 3 else ops.permute(found, (0, 2, 1, 3))


ROWS: Mapping[str, Callable[[Ops, Node], Tensor | Sequence[Tensor]]] = {
    **dict.fromkeys(REDUCTIONS, reduced),
    **dict.fromkeys(("ArgMax", "ArgMin"), arg_max),
    **dict.fromkeys(("Softmax", "LogSoftmax"), soft_max),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), norm),
    "Hardmax": hard_max,
    "CumSum": running_sum,
    "TopK": top_k,
    "MatMul": product,
    "Gemm": product_and_sum,
    "RotaryEmbedding": rotation,
}
