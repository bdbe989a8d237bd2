"""The primitives that NumPy and CuPy provide under the same names and with the same meaning.

Owns: one call of the array library for each of these primitives. The others (copies to and from the device, elementary
functions, products) are written by the backends.
Refuses to know: which library it is. Specs: OPS. Next: `ferrum.backends.recorded_steps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from ferrum.tensor.compositions import Compositions
from ferrum.tensor.ops import Shape, Tensor, host_dtype


class ArrayModuleOps(Compositions):
    """A backend whose tensors are the arrays of the library `xp`."""

    xp: Any = np

    # ---- factory
    def empty(self, shape: Shape, dtype: str) -> Tensor:
        return self.xp.empty(shape, host_dtype(dtype))

    def full(self, shape: Shape, value: float, dtype: str) -> Tensor:
        return self.xp.full(shape, value, host_dtype(dtype))

    def arange(self, count: int, dtype: str) -> Tensor:
        return self.xp.arange(count, dtype=host_dtype(dtype))

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return x.astype(host_dtype(dtype), copy=False)

    def bitcast(self, x: Tensor, dtype: str) -> Tensor:
        return (x if x.flags.c_contiguous else x.copy()).view(host_dtype(dtype))

    # ---- shape
    def reshape(self, x: Tensor, shape: Shape) -> Tensor:
        return x.reshape(shape)

    def permute(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.transpose(axes)

    def broadcast_to(self, x: Tensor, shape: Shape) -> Tensor:
        return self.xp.broadcast_to(x, shape)

    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        return self.xp.concatenate(xs, axis)

    def split(self, x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]:
        before = (slice(None),) * (axis % x.ndim)
        return tuple(x[(*before, slice(start, end))] for start, end in pairwise(accumulate(sizes, initial=0)))

    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
        return self.xp.take(x, indices, axis)

    def take_along(self, x: Tensor, indices: Tensor) -> Tensor:
        return self.xp.take_along_axis(x, indices, -1)

    def put(self, x: Tensor, indices: Sequence[Tensor], values: Tensor) -> None:
        x[tuple(indices)] = values

    # ---- arithmetic
    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self.xp.add(x, y)

    def sub(self, x: Tensor, y: Tensor) -> Tensor:
        return self.xp.subtract(x, y)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        return self.xp.multiply(x, y)

    def div(self, x: Tensor, y: Tensor) -> Tensor:
        return self.xp.divide(x, y)

    def floor_divide(self, x: Tensor, y: Tensor) -> Tensor:
        return self.xp.floor_divide(x, y)

    def maximum(self, x: Tensor, y: Tensor) -> Tensor:
        return self.xp.maximum(x, y)

    def rsqrt(self, x: Tensor) -> Tensor:
        return self.xp.reciprocal(self.xp.sqrt(x))

    def less(self, x: Tensor, y: Tensor) -> Tensor:
        return self.xp.less(x, y)

    def equal(self, x: Tensor, y: Tensor) -> Tensor:
        return self.xp.equal(x, y)

    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.xp.where(condition, x, y)

    def bitwise_and(self, x: Tensor, y: Tensor) -> Tensor:
        return self.xp.bitwise_and(x, y)

    def bitwise_xor(self, x: Tensor, y: Tensor) -> Tensor:
        return self.xp.bitwise_xor(x, y)

    def right_shift(self, x: Tensor, y: Tensor) -> Tensor:
        return self.xp.right_shift(x, y)

    # ---- reductions
    def sum(self, x: Tensor, axis: int) -> Tensor:
        return self.xp.sum(x, axis, keepdims=True, dtype=x.dtype)

    def max(self, x: Tensor, axis: int) -> Tensor:
        return self.xp.max(x, axis, keepdims=True)

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return self.xp.argmax(x, axis)

    def cumsum(self, x: Tensor, axis: int) -> Tensor:
        return self.xp.cumsum(x, axis, dtype=x.dtype)

    def argsort(self, x: Tensor) -> Tensor:
        # a stable sort of the reversed row, read backwards: descending, and equal elements keep their order
        last = x.shape[-1] - 1
        return (last - self.xp.argsort(x[..., ::-1], axis=-1, kind="stable"))[..., ::-1]
