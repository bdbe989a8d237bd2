"""The TensorOps protocol: the primitives a backend must write, each a one-line contract with shapes.

Owns: the list of primitives. All other operations (softmax, rope, paged attention, …) are compositions: written once in
terms of primitives (`ferrum.tensor.compositions`), inherited by every backend, and overridden only for speed. *The
composition is the definition, the documentation and the oracle of every kernel that replaces it.*
Refuses to know: models, files, memory pools.
Specs: OPS. Next: `ferrum.tensor.weights`.

A backend is a subclass of `ferrum.tensor.compositions.Compositions` with these methods. `...` in a shape stands for any
number of dimensions. A result is a new tensor unless the contract says *view* (may share memory) or *in place*. What
else the author of a backend has to know:

- **A tensor** is an object of the backend's choice. Other code uses `x.shape`, a tuple of ints, and `str(x.dtype)`,
  which is one of the names in DTYPES, and nothing else.
- **Types.** Every type can be made, moved (all of *shape* below) and cast. A primitive that computes is needed for the
  types that NEEDED lists. The operands of one call have the same type, except conditions, which are bool, and indices,
  which are int64, or int32 in `take` and `put`. `put` may be given a permuted view, and writes through it.
- **Shapes.** The operands of arithmetic and comparison, and the three operands of `where`, broadcast as in NumPy. The
  leading axes of `matmul` and `take_along` are equal. The indices of `put` have one axis, and `values` has the shape of
  x[i0, i1, …]. `concat` gets one tensor at least. Any shape may be ().
- **Length 0.** Any axis may have length 0, except the one along which `max`, `argmax`, `argsort` or `matmul` works.
- **NaN.** `maximum` and `max` pass it on; `argmax` gives the index of the first; `argsort` puts it before every number.
- **Small numbers.** A primitive that computes may replace a number below the smallest normal one of its type by 0, in
  its operands and in its result. One that moves, selects or casts keeps it.
- **Never passed**: a negative index or one out of range, the same place twice in one `put`, an integer division by 0,
  a shift by the width or more, signed integers that overflow, a cast to an integer type that cannot hold the value. An
  axis may be counted from the end.
- **The host.** `asarray` may alias the host's memory, or copy it later: the caller does not change it before the next
  `to_numpy`, and the backend keeps a reference to what it has not read yet. The array of `to_numpy` may alias the
  tensor and nothing else: the caller does not write it, and copies it to keep it. Its types are those of `host_dtype`.
- **Options.** A class takes the options that mean something to it, as keywords with defaults: `float_dtype` (below),
  `deterministic`, `compute`, `threads` (the attributes in `Compositions`). It refuses any other by name.
- **Errors.** A device that is absent or fails raises `ferrum.errors.DeviceError`. Where blocks were being moved, the
  engine goes on, also after RuntimeError and MemoryError; elsewhere the step fails, and the caller of the engine ends
  its requests.
- **Refused**, by any exception: a type outside DTYPES, an activation outside ACTIVATIONS, shapes that do not fit.
  Operands that are only read are unchanged afterwards.
- **Threads.** One thread calls at a time, but not always the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ml_dtypes
import numpy as np

Tensor = Any
"""A backend's array. Other code uses `.shape` and `str(.dtype)`, nothing else."""

Shape = tuple[int, ...]

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int8", "uint64", "uint32", "uint8", "bool")
"""Names of the element types that every backend stores."""

FLOATS = ("float32", "float64")
"""The float types that a backend may compute in."""

_SIGNED = ("int64", "int32")  # positions, slots, ranks
_BITS = ("uint64", "uint8")  # random numbers, packed weights

NEEDED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("add", "sub", "mul"), (*FLOATS, *_SIGNED, *_BITS)),
    **dict.fromkeys(("div", "matmul", "exp", "log", "rsqrt", "tanh", "erf", "cos", "sin"), FLOATS),
    **dict.fromkeys(("maximum", "sum", "max", "cumsum"), (*FLOATS, *_SIGNED)),
    "floor_divide": _SIGNED,
    "less": (*FLOATS, *_SIGNED),
    "where": (*FLOATS, "int64"),
    "equal": (*FLOATS, *_SIGNED, "bool"),
    **dict.fromkeys(("bitwise_and", "bitwise_xor"), (*_BITS, "bool")),
    "right_shift": _BITS,
    "argmax": (*FLOATS, "int8"),
    "argsort": (*FLOATS, "int64"),
}
"""The types for which each primitive that computes is needed. Both floats, because a backend computes in one of them,
and parts of sampling and of random numbers use the other."""


def host_dtype(name: str) -> np.dtype[Any]:
    """The NumPy type of that name, in which `to_numpy` returns and `asarray` accepts values. bfloat16, which NumPy
    lacks, is that of ml_dtypes."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


class Primitives(Protocol):
    """The methods that a backend must write."""

    name: str
    float_dtype: str
    """The type of activations and of every float result: "float32", or "float64" for an oracle."""

    # ---- factory
    def asarray(self, values: Any, dtype: str) -> Tensor: ...  # host values (number, list, NumPy) -> [...]
    def to_numpy(self, x: Tensor) -> np.ndarray: ...  # [...] -> host array; the only point that waits for the device
    def empty(self, shape: Shape, dtype: str) -> Tensor: ...  # -> [shape], contents undefined
    def full(self, shape: Shape, value: float, dtype: str) -> Tensor: ...  # -> [shape], every element `value`
    def arange(self, count: int, dtype: str) -> Tensor: ...  # -> [count]: 0, 1, 2, …; never float16, bfloat16, bool
    def cast(self, x: Tensor, dtype: str) -> Tensor: ...  # to nearest even; to an integer: towards 0; may be a view
    def bitcast(self, x: Tensor, dtype: str) -> Tensor: ...  # uint8 [..., n] -> [..., n / new bytes]; may be a view

    # ---- shape
    def reshape(self, x: Tensor, shape: Shape) -> Tensor: ...  # row-major order kept; one -1 allowed; may be a view
    def permute(self, x: Tensor, axes: Sequence[int]) -> Tensor: ...  # axis i of the result is axes[i] of x; a view
    def broadcast_to(self, x: Tensor, shape: Shape) -> Tensor: ...  # a view, never written
    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor: ...  # joins along an existing axis
    def split(self, x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]: ...  # views, never written
    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor: ...  # the shape of indices replaces the axis
    def take_along(self, x: Tensor, indices: Tensor) -> Tensor: ...  # [..., n], int64 [..., k] -> [..., k]
    def put(self, x: Tensor, indices: Sequence[Tensor], values: Tensor) -> None: ...  # in place: x[i0, i1, …] = values

    # ---- arithmetic
    def add(self, x: Tensor, y: Tensor) -> Tensor: ...
    def sub(self, x: Tensor, y: Tensor) -> Tensor: ...
    def mul(self, x: Tensor, y: Tensor) -> Tensor: ...  # unsigned integers wrap, as in add and sub
    def div(self, x: Tensor, y: Tensor) -> Tensor: ...  # floats only
    def floor_divide(self, x: Tensor, y: Tensor) -> Tensor: ...  # integers only; rounds down
    def maximum(self, x: Tensor, y: Tensor) -> Tensor: ...  # NaN if either is NaN
    def matmul(self, x: Tensor, y: Tensor) -> Tensor: ...  # [..., m, k], [..., k, n] -> [..., m, n]
    def exp(self, x: Tensor) -> Tensor: ...
    def log(self, x: Tensor) -> Tensor: ...  # log 0 = -inf, without a warning
    def rsqrt(self, x: Tensor) -> Tensor: ...  # 1 / sqrt(x); inf for 0
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
    def sum(self, x: Tensor, axis: int) -> Tensor: ...  # keeps the axis, with length 1; same type
    def max(self, x: Tensor, axis: int) -> Tensor: ...  # keeps the axis, with length 1
    def argmax(self, x: Tensor, axis: int) -> Tensor: ...  # removes the axis; int64; the lowest index on a tie
    def cumsum(self, x: Tensor, axis: int) -> Tensor: ...  # inclusive running sum
    def argsort(self, x: Tensor) -> Tensor: ...  # [..., n] -> int64, largest first, equal elements by lowest index


PRIMITIVES: tuple[str, ...] = tuple(
    name for name, value in vars(Primitives).items() if callable(value) and not name.startswith("_")
)
"""Names of all primitives. A test checks that every backend has them."""
