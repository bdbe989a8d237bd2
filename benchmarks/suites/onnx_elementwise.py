"""ONNX operators that look at each element by itself, as primitives and compositions.

Owns: what each of them is made of. Refuses to know: shapes beyond broadcasting. Specs: SUITE-13.
Next: `benchmarks/suites/onnx_rows.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ferrum.tensor.ops import Tensor

from .onnx_node import Node, constant, number, real

Ops = Any  # Promised or a backend


def either(ops: Ops, x: Tensor, y: Tensor) -> Tensor:
    """x or y, of truth values and bits."""
    return ops.bitwise_xor(ops.bitwise_xor(x, y), ops.bitwise_and(x, y))


def negative(ops: Ops, x: Tensor) -> Tensor:
    return ops.sub(constant(ops, 0, x), x)


def least(ops: Ops, x: Tensor, y: Tensor) -> Tensor:
    return negative(ops, ops.maximum(negative(ops, x), negative(ops, y)))


def absolute(ops: Ops, x: Tensor) -> Tensor:
    return ops.maximum(x, negative(ops, x))


def divide(ops: Ops, x: Tensor, y: Tensor) -> Tensor:
    return ops.div(x, y) if str(x.dtype).startswith("float") else ops.floor_divide(x, y)


def remainder(ops: Ops, x: Tensor, y: Tensor) -> Tensor:
    return ops.sub(x, ops.mul(y, ops.floor_divide(x, y)))


BINARY: Mapping[str, Callable[[Ops, Tensor, Tensor], Tensor]] = {
    "Add": lambda ops, x, y: ops.add(x, y),
    "Sub": lambda ops, x, y: ops.sub(x, y),
    "Mul": lambda ops, x, y: ops.mul(x, y),
    "Div": divide,
    "Less": lambda ops, x, y: ops.less(x, y),
    "Greater": lambda ops, x, y: ops.less(y, x),
    "Equal": lambda ops, x, y: ops.equal(x, y),
    "LessOrEqual": lambda ops, x, y: either(ops, ops.less(x, y), ops.equal(x, y)),
    "GreaterOrEqual": lambda ops, x, y: either(ops, ops.less(y, x), ops.equal(x, y)),
    "And": lambda ops, x, y: ops.bitwise_and(x, y),
    "Or": either,
    "Xor": lambda ops, x, y: ops.bitwise_xor(x, y),
    "BitwiseAnd": lambda ops, x, y: ops.bitwise_and(x, y),
    "BitwiseOr": either,
    "BitwiseXor": lambda ops, x, y: ops.bitwise_xor(x, y),
    "PRelu": lambda ops, x, slope: ops.where(ops.less(x, constant(ops, 0, x)), ops.mul(x, slope), x),
    "Max": lambda ops, x, y: ops.maximum(x, y),
    "Min": least,
    "Sum": lambda ops, x, y: ops.add(x, y),
}
"""Of any number of operands where ONNX has that: one by one."""


def softplus(ops: Ops, x: Tensor) -> Tensor:
    return ops.log(ops.add(constant(ops, 1, x), ops.exp(x)))


def below(ops: Ops, x: Tensor, limit: float, small: Tensor, large: Tensor) -> Tensor:
    """small where x is less than the limit, else large."""
    return ops.where(ops.less(x, constant(ops, limit, x)), small, large)


def times(ops: Ops, factor: float, x: Tensor) -> Tensor:
    return ops.mul(constant(ops, factor, x), x)


def plus(ops: Ops, x: Tensor, offset: float) -> Tensor:
    return ops.add(x, constant(ops, offset, x))


def hyperbolic(ops: Ops, x: Tensor, sign: float) -> Tensor:
    return times(ops, 0.5, ops.add(ops.exp(x), times(ops, sign, ops.exp(negative(ops, x)))))


def exponential_unit(ops: Ops, x: Tensor, alpha: float) -> Tensor:
    """alpha (exp(x) - 1) below 0, else x."""
    return below(ops, x, 0, times(ops, alpha, plus(ops, ops.exp(x), -1)), x)


UNARY: Mapping[str, Callable[[Ops, Tensor], Tensor]] = {
    "Exp": lambda ops, x: ops.exp(x),
    "Log": lambda ops, x: ops.log(x),
    "Tanh": lambda ops, x: ops.tanh(x),
    "Erf": lambda ops, x: ops.erf(x),
    "Cos": lambda ops, x: ops.cos(x),
    "Sin": lambda ops, x: ops.sin(x),
    "Tan": lambda ops, x: ops.div(ops.sin(x), ops.cos(x)),
    "Sinh": lambda ops, x: hyperbolic(ops, x, -1),
    "Cosh": lambda ops, x: hyperbolic(ops, x, 1),
    "Reciprocal": lambda ops, x: ops.div(constant(ops, 1, x), x),
    "Sqrt": lambda ops, x: ops.div(constant(ops, 1, x), ops.rsqrt(x)),
    "Neg": negative,
    "Abs": absolute,
    "Not": lambda ops, x: ops.bitwise_xor(x, constant(ops, True, x)),
    "Softplus": softplus,
    "Softsign": lambda ops, x: ops.div(x, plus(ops, absolute(ops, x), 1)),
    "Mish": lambda ops, x: ops.mul(x, ops.tanh(softplus(ops, x))),
    "IsNaN": lambda ops, x: ops.bitwise_xor(ops.equal(x, x), ops.constant(True, "bool")),
}


def activation(ops: Ops, node: Node) -> Tensor:
    """Those that are compositions, in the backend's float type."""
    x, alpha = real(ops, node.host(0)), node.get("alpha", None)
    match node.operator:
        case "Relu":
            return ops.relu(x)
        case "Gelu":
            return ops.gelu_tanh(x) if node.get("approximate", "none") == "tanh" else ops.gelu(x)
        case "Sigmoid":
            return ops.sigmoid(x)
        case "Swish":
            return swish(ops, x, 1.0 if alpha is None else alpha)
        case "SwiGLU":
            return ops.mul(swish(ops, x, 1.0 if alpha is None else alpha), real(ops, node.host(1)))
        case "LeakyRelu":
            return below(ops, x, 0, times(ops, 0.01 if alpha is None else alpha, x), x)
        case "ThresholdedRelu":
            least_kept = 1.0 if alpha is None else alpha
            kept = ops.less(constant(ops, least_kept, x), x)
            return ops.where(kept, x, constant(ops, 0, x))
        case "Elu":
            return exponential_unit(ops, x, 1.0 if alpha is None else alpha)
        case "Selu":
            scale = 1.6732632 if alpha is None else alpha
            return times(ops, node.get("gamma", 1.050701), exponential_unit(ops, x, scale))
        case "Celu":
            wide = 1.0 if alpha is None else alpha
            return below(ops, x, 0, times(ops, wide, plus(ops, ops.exp(times(ops, 1 / wide, x)), -1)), x)
        case "HardSwish":
            return ops.mul(x, hard_sigmoid(ops, x, 1 / 6, 0.5))
        case _:
            return hard_sigmoid(ops, x, 0.2 if alpha is None else alpha, node.get("beta", 0.5))


ACTIVATIONS = (
    *("Relu", "Gelu", "Sigmoid", "Swish", "SwiGLU", "LeakyRelu", "ThresholdedRelu", "Elu", "Selu", "Celu"),
    *("HardSwish", "HardSigmoid"),
)


def swish(ops: Ops, x: Tensor, alpha: float) -> Tensor:
    return ops.silu(x) if alpha == 1 else ops.mul(x, ops.sigmoid(times(ops, alpha, x)))


def hard_sigmoid(ops: Ops, x: Tensor, slope: float, offset: float) -> Tensor:
    return ops.maximum(ops.minimum(plus(ops, times(ops, slope, x), offset), 1.0), constant(ops, 0, x))


def binary(ops: Ops, node: Node) -> Tensor:
    placed = [number(ops, node.host(index)) for index in range(len(node.inputs))]
    if len(placed) == 1:
        return placed[0]
    return functools.reduce(functools.partial(BINARY[node.operator], ops), placed)


def unary(ops: Ops, node: Node) -> Tensor:
    return UNARY[node.operator](ops, number(ops, node.host(0)))


def mean(ops: Ops, node: Node) -> Tensor:
    """Of several tensors, element by element."""
    placed = [number(ops, node.host(index)) for index in range(len(node.inputs))]
    return times(ops, 1 / len(placed), functools.reduce(ops.add, placed))


def modulo(ops: Ops, node: Node) -> Tensor:
    if node.get("fmod", 0):
        raise node.refuse("the sign of the dividend")
    return remainder(ops, number(ops, node.host(0)), number(ops, node.host(1)))


def shift(ops: Ops, node: Node) -> Tensor:
    if node.get("direction", "") == "LEFT":
        raise node.refuse("to the left")
    by = node.host(1)
    if (by < 0).any() or (by >= 8 * by.dtype.itemsize).any():
        raise node.refuse("by the width or more, or backwards")
    return ops.right_shift(number(ops, node.host(0)), number(ops, by))


def clip(ops: Ops, node: Node) -> Tensor:
    x = number(ops, node.host(0))
    if node.has(1):
        x = ops.maximum(x, number(ops, node.host(1)))
    return least(ops, x, number(ops, node.host(2))) if node.has(2) else x


def complement(ops: Ops, node: Node) -> Tensor:
    return ops.bitwise_xor(number(ops, node.host(0)), number(ops, ~np.zeros_like(node.host(0))))


def is_infinite(ops: Ops, node: Node) -> Tensor:
    x = number(ops, node.host(0))
    up = ops.equal(x, constant(ops, math.inf, x))
    down = ops.equal(x, constant(ops, -math.inf, x))
    if not node.get("detect_positive", 1):
        return down
    return either(ops, up, down) if node.get("detect_negative", 1) else up


ELEMENTWISE: Mapping[str, Callable[[Ops, Node], Tensor | Sequence[Tensor]]] = {
    **dict.fromkeys(BINARY, binary),
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(ACTIVATIONS, activation),
    "Mean": mean,
    "Mod": modulo,
    "BitShift": shift,
    "BitwiseNot": complement,
    "Clip": clip,
    "IsInf": is_infinite,
}
