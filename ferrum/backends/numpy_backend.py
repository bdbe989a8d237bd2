"""The CPU backends: the oracle `numpy`, and `numba`, which replaces its hot compositions by compiled kernels.

Owns: the primitives in NumPy. The oracle adds nothing to them: slow and obvious, in float32 or float64.
Refuses to know: models and scheduling.
Specs: OPS. Next: `ferrum.backends.numba_kernels`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ferrum.tensor.compositions import Compositions
from ferrum.tensor.ops import Shape, Tensor

_NUMPY_DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16)}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy type of a protocol type name; NumPy itself lacks only bfloat16."""
    return _NUMPY_DTYPES.get(name) or np.dtype(name)


class NumpyOps(Compositions):
    """The oracle: every primitive is one NumPy call, every composition is inherited."""

    name = "numpy"

    def __init__(self, float_dtype: str = "float32") -> None:
        self.float_dtype = float_dtype

    # ---- factory
    def asarray(self, values: Any, dtype: str) -> Tensor:
        return np.asarray(values, numpy_dtype(dtype))

    def to_numpy(self, x: Tensor) -> np.ndarray:
        return np.asarray(x)

    def empty(self, shape: Shape, dtype: str) -> Tensor:
        return np.empty(shape, numpy_dtype(dtype))

    def full(self, shape: Shape, value: float, dtype: str) -> Tensor:
        return np.full(shape, value, numpy_dtype(dtype))

    def arange(self, count: int, dtype: str) -> Tensor:
        return np.arange(count, dtype=numpy_dtype(dtype))

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return x.astype(numpy_dtype(dtype), copy=False)

    def bitcast(self, x: Tensor, dtype: str) -> Tensor:
        return np.ascontiguousarray(x).view(numpy_dtype(dtype))

    # ---- shape
    def reshape(self, x: Tensor, shape: Shape) -> Tensor:
        return np.reshape(x, shape)

    def permute(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return np.transpose(x, axes)

    def broadcast_to(self, x: Tensor, shape: Shape) -> Tensor:
        return np.broadcast_to(x, shape)

    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        return np.concatenate(xs, axis)

    def split(self, x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]:
        return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))

    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
        return np.take(x, indices, axis)

    def take_along(self, x: Tensor, indices: Tensor) -> Tensor:
        return np.take_along_axis(x, indices, -1)

    def put(self, x: Tensor, indices: Sequence[Tensor], values: Tensor) -> None:
        x[tuple(indices)] = values

    # ---- arithmetic
    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return np.add(x, y)

    def sub(self, x: Tensor, y: Tensor) -> Tensor:
        return np.subtract(x, y)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        return np.multiply(x, y)

    def div(self, x: Tensor, y: Tensor) -> Tensor:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.divide(x, y)

    def floor_divide(self, x: Tensor, y: Tensor) -> Tensor:
        return np.floor_divide(x, y)

    def maximum(self, x: Tensor, y: Tensor) -> Tensor:
        return np.maximum(x, y)

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return np.matmul(x, y)

    def exp(self, x: Tensor) -> Tensor:
        with np.errstate(over="ignore"):
            return np.exp(x)

    def log(self, x: Tensor) -> Tensor:
        with np.errstate(divide="ignore"):
            return np.log(x)

    def rsqrt(self, x: Tensor) -> Tensor:
        return np.reciprocal(np.sqrt(x))

    def tanh(self, x: Tensor) -> Tensor:
        return np.tanh(x)

    def erf(self, x: Tensor) -> Tensor:
        return _erf(x).astype(x.dtype)

    def cos(self, x: Tensor) -> Tensor:
        return np.cos(x)

    def sin(self, x: Tensor) -> Tensor:
        return np.sin(x)

    def less(self, x: Tensor, y: Tensor) -> Tensor:
        return np.less(x, y)

    def equal(self, x: Tensor, y: Tensor) -> Tensor:
        return np.equal(x, y)

    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return np.where(condition, x, y)

    def bitwise_and(self, x: Tensor, y: Tensor) -> Tensor:
        return np.bitwise_and(x, y)

    def bitwise_xor(self, x: Tensor, y: Tensor) -> Tensor:
        return np.bitwise_xor(x, y)

    def right_shift(self, x: Tensor, y: Tensor) -> Tensor:
        return np.right_shift(x, y)

    # ---- reductions
    def sum(self, x: Tensor, axis: int) -> Tensor:
        return np.sum(x, axis, keepdims=True, dtype=x.dtype)

    def max(self, x: Tensor, axis: int) -> Tensor:
        return np.max(x, axis, keepdims=True)

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return np.argmax(x, axis)

    def cumsum(self, x: Tensor, axis: int) -> Tensor:
        return np.cumsum(x, axis, dtype=x.dtype)

    def argsort(self, x: Tensor) -> Tensor:
        # a stable sort of the reversed row, read backwards: descending, and equal elements keep their order
        last = x.shape[-1] - 1
        return (last - np.argsort(x[..., ::-1], axis=-1, kind="stable"))[..., ::-1]


_erf = np.vectorize(math.erf, otypes=[np.float64])
