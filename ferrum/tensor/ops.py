"""The TensorOps protocol: the primitives a backend must write, each a one-line contract with shapes.

Owns: the list of primitives. Everything else (softmax, rope, paged attention, …) is a composition of these, written
once in `ferrum.tensor.compositions`, inherited by every backend, and overridden only for speed: *the composition is
the definition, the documentation and the oracle of every kernel that replaces it.*
Refuses to know: models, files, memory pools.
Specs: OPS. Next: `ferrum.tensor.weights`.

A backend is a subclass of `ferrum.tensor.compositions.Compositions` with these methods. `...` in a shape stands for any
dimensions; two-operand arithmetic broadcasts as NumPy does. A result is a new tensor unless the contract says *view*
(may share memory) or *in place*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import ml_dtypes
import numpy as np

Tensor = Any
"""A backend's array. The protocol relies on `.shape` and `.dtype`, nothing else."""

Shape = tuple[int, ...]

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int8", "uint64", "uint32", "uint8", "bool")
"""Names of the element types that every backend stores; arithmetic is required on all but float16 and bfloat16."""


def host_dtype(name: str) -> np.dtype[Any]:
    """The NumPy type of a type of that name: what `to_numpy` gives, and what `asarray` is given. NumPy itself lacks
    only bfloat16."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


class Primitives(Protocol):
    """What a backend must write."""

    name: str
    float_dtype: str
    """Type of activations and of every float result: "float32", or "float64" for an oracle."""

    # ---- factory
    def asarray(self, values: Any, dtype: str) -> Tensor: ...  # host values (list, NumPy) -> [...]; copies if it must
    def to_numpy(self, x: Tensor) -> np.ndarray: ...  # [...] -> host array; the only point that waits for the device
    def empty(self, shape: Shape, dtype: str) -> Tensor: ...  # -> [shape], contents undefined
    def full(self, shape: Shape, value: float, dtype: str) -> Tensor: ...  # -> [shape], every element `value`
    def arange(self, count: int, dtype: str) -> Tensor: ...  # -> [count]: 0, 1, 2, …
    def cast(self, x: Tensor, dtype: str) -> Tensor: ...  # to nearest even; to an integer: towards 0; may be a view
    def bitcast(self, x: Tensor, dtype: str) -> Tensor: ...  # [..., n] -> [..., n * old / new bytes], same bytes

    # ---- shape
    def reshape(self, x: Tensor, shape: Shape) -> Tensor: ...  # row-major order kept; one -1 allowed; may be a view
    def permute(self, x: Tensor, axes: Sequence[int]) -> Tensor: ...  # axis i of the result is axes[i] of x; a view
    def broadcast_to(self, x: Tensor, shape: Shape) -> Tensor: ...  # a view, not to be written
    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor: ...  # joins along an existing axis
    def split(self, x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]: ...  # views; inverse of concat
    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor: ...  # axis replaced by the shape of indices
    def take_along(self, x: Tensor, indices: Tensor) -> Tensor: ...  # [..., n], [..., k] -> [..., k], by the last axis
    def put(self, x: Tensor, indices: Sequence[Tensor], values: Tensor) -> None: ...  # in place: x[i0, i1, …] = values

    # ---- arithmetic
    def add(self, x: Tensor, y: Tensor) -> Tensor: ...
    def sub(self, x: Tensor, y: Tensor) -> Tensor: ...
    def mul(self, x: Tensor, y: Tensor) -> Tensor: ...  # unsigned integers wrap
    def div(self, x: Tensor, y: Tensor) -> Tensor: ...  # floats only
    def floor_divide(self, x: Tensor, y: Tensor) -> Tensor: ...  # integers only
    def maximum(self, x: Tensor, y: Tensor) -> Tensor: ...  # NaN wins
    def matmul(self, x: Tensor, y: Tensor) -> Tensor: ...  # [..., m, k], [..., k, n] -> [..., m, n]
    def exp(self, x: Tensor) -> Tensor: ...
    def log(self, x: Tensor) -> Tensor: ...  # log 0 = -inf, without complaint
    def rsqrt(self, x: Tensor) -> Tensor: ...  # 1 / sqrt(x)
    def tanh(self, x: Tensor) -> Tensor: ...
    def erf(self, x: Tensor) -> Tensor: ...
    def cos(self, x: Tensor) -> Tensor: ...
    def sin(self, x: Tensor) -> Tensor: ...
    def less(self, x: Tensor, y: Tensor) -> Tensor: ...  # -> bool
    def equal(self, x: Tensor, y: Tensor) -> Tensor: ...  # -> bool
    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor: ...  # condition ? x : y
    def bitwise_and(self, x: Tensor, y: Tensor) -> Tensor: ...  # integers and bool
    def bitwise_xor(self, x: Tensor, y: Tensor) -> Tensor: ...  # integers and bool
    def right_shift(self, x: Tensor, y: Tensor) -> Tensor: ...  # unsigned integers, filled with zeros

    # ---- reductions, along one axis
    def sum(self, x: Tensor, axis: int) -> Tensor: ...  # keeps the axis, with length 1
    def max(self, x: Tensor, axis: int) -> Tensor: ...  # keeps the axis, with length 1
    def argmax(self, x: Tensor, axis: int) -> Tensor: ...  # removes the axis; int64; the lowest index on a tie
    def cumsum(self, x: Tensor, axis: int) -> Tensor: ...  # inclusive running sum
    def argsort(self, x: Tensor) -> Tensor: ...  # [..., n] -> int64, largest first, equal elements by lowest index


PRIMITIVES: tuple[str, ...] = tuple(
    name for name, value in vars(Primitives).items() if callable(value) and not name.startswith("_")
)
"""Names of all primitives, for reports and for the test that every backend has them."""
