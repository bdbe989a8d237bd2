"""Every primitive of ferrum in the words of the array API standard.

Owns: `ArrayApiOps`. Attention, norms, sampling and all else follow from the primitives: a backend inherits them.
Refuses to know: any one array library.

What the standard does not say:
- float16 and bfloat16; a library may also lack uint32 and uint64, and a device float64. Tensors of such a type hold its
  bits in signed integers. They are moved as they are; to be computed with they go to the host, where NumPy knows all.
- To see bytes as another type, and the error function: both are done on the host.
- To write at places that an array names: done by one plain assignment for each place.
- Whether a permuted array is a view. Here it must be: ferrum writes keys and values through one.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from itertools import accumulate
from types import ModuleType
from typing import Any

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.errors import DeviceError, Unsupported
from ferrum.tensor.compositions import Compositions
from ferrum.tensor.ops import DTYPES, Shape, host_dtype
from ferrum_array_api.tensor import Tensor, pattern

DEVICE = "FERRUM_ARRAY_API_DEVICE"
"""The environment variable that names a device of the library; without it the library chooses."""


def namespace(module: str) -> ModuleType:
    """The library as the standard has it: as array-api-compat completes it, or as it is."""
    try:
        return importlib.import_module(f"array_api_compat.{module}")
    except ModuleNotFoundError:
        return importlib.import_module(module)


def _standard(function: str, result: str | None = None) -> Callable[..., Tensor]:
    """The primitive that is the standard's function of that name. result: as for `_call`."""

    def primitive(self: ArrayApiOps, *xs: Tensor) -> Tensor:
        return self._call(function, *xs, result=result)

    return primitive


class ArrayApiOps(Compositions):
    """For another library: a subclass with its own `name` and `module`."""

    name = "array-api"
    module = "array_api_strict"

    def __init__(self, float_dtype: str = "float32") -> None:
        self.float_dtype = float_dtype
        self.xp = namespace(self.module)
        self.device = self.find_device(os.environ.get(DEVICE))
        try:
            self.xp.empty((1,), dtype=self.xp.float32, device=self.device)
        except Exception as error:
            reason = str(error).partition(". ")[0]
            raise DeviceError(f"{self.module} cannot use device {self.device}: {reason}") from error
        known = self.xp.__array_namespace_info__().dtypes(device=self.device)
        self.patterns = {dtype: pattern(dtype) for dtype in DTYPES if dtype not in known}
        if needed := {float_dtype, "int32", "int64", "uint8", "bool"} & self.patterns.keys():
            raise Unsupported(f"{self.module} has no {', '.join(sorted(needed))} on device {self.device}")

    def find_device(self, name: str | None) -> Any:
        """The library's own object for a device: the first that is printed with that name. None is the default one."""
        if name is None:
            return None
        devices = self.xp.__array_namespace_info__().devices()
        for device in devices:
            if name in str(device):
                return device
        raise DeviceError(f"{self.module} has no device {name!r}, but {', '.join(map(str, devices))}")

    # ---- factory
    def asarray(self, values: Any, dtype: str) -> Tensor:
        host = np.array(values, host_dtype(dtype))  # a copy, so that the caller may change theirs
        return Tensor(self.xp.asarray(host.view(self._stored(dtype)), device=self.device), dtype)

    def to_numpy(self, x: Tensor) -> np.ndarray:
        return np.from_dlpack(x.array, device="cpu").view(host_dtype(x.dtype))

    def empty(self, shape: Shape, dtype: str) -> Tensor:
        return Tensor(self.xp.empty(shape, dtype=self._type(dtype), device=self.device), dtype)

    def full(self, shape: Shape, value: float, dtype: str) -> Tensor:
        number = np.array(value, host_dtype(dtype)).view(self._stored(dtype)).item()
        return Tensor(self.xp.full(shape, number, dtype=self._type(dtype), device=self.device), dtype)

    def arange(self, count: int, dtype: str) -> Tensor:
        return self.cast(Tensor(self.xp.arange(count, dtype=self.xp.int64, device=self.device), "int64"), dtype)

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        if {x.dtype, dtype} & self.patterns.keys():
            return self.asarray(self.to_numpy(x).astype(host_dtype(dtype)), dtype)
        return Tensor(self.xp.astype(x.array, self._type(dtype)), dtype)

    def bitcast(self, x: Tensor, dtype: str) -> Tensor:
        return self.asarray(np.array(self.to_numpy(x), order="C").view(host_dtype(dtype)), dtype)

    # ---- shape
    def reshape(self, x: Tensor, shape: Shape) -> Tensor:
        return Tensor(self.xp.reshape(x.array, shape), x.dtype)

    def permute(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return Tensor(self.xp.permute_dims(x.array, tuple(axes)), x.dtype)

    def broadcast_to(self, x: Tensor, shape: Shape) -> Tensor:
        return Tensor(self.xp.broadcast_to(x.array, shape), x.dtype)

    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        return Tensor(self.xp.concat([x.array for x in xs], axis=axis), xs[0].dtype)

    def split(self, x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]:
        before = (slice(None),) * (axis % len(x.shape))
        ranges = (slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True))
        return tuple(Tensor(x.array[(*before, each, ...)], x.dtype) for each in ranges)

    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
        axis %= len(x.shape)
        taken = self.xp.take(x.array, self.xp.reshape(indices.array, (-1,)), axis=axis)  # the standard takes a list
        return Tensor(self.xp.reshape(taken, x.shape[:axis] + indices.shape + x.shape[axis + 1 :]), x.dtype)

    def take_along(self, x: Tensor, indices: Tensor) -> Tensor:
        return Tensor(self.xp.take_along_axis(x.array, indices.array, axis=-1), x.dtype)

    def put(self, x: Tensor, indices: Sequence[Tensor], values: Tensor) -> None:
        places = zip(*(self.to_numpy(each).tolist() for each in indices), strict=True)
        for row, place in enumerate(places):
            x.array[(*place, ...)] = values.array[row, ...]

    # ---- arithmetic
    add = _standard("add")
    sub = _standard("subtract")
    mul = _standard("multiply")
    div = _standard("divide")
    floor_divide = _standard("floor_divide")
    maximum = _standard("maximum")
    matmul = _standard("matmul")
    exp = _standard("exp")
    log = _standard("log")
    tanh = _standard("tanh")
    cos = _standard("cos")
    sin = _standard("sin")
    less = _standard("less", "bool")
    equal = _standard("equal", "bool")
    bitwise_and = _standard("bitwise_and")
    bitwise_xor = _standard("bitwise_xor")
    right_shift = _standard("bitwise_right_shift")

    def rsqrt(self, x: Tensor) -> Tensor:
        return self._call("reciprocal", self._call("sqrt", x))

    def erf(self, x: Tensor) -> Tensor:
        return self.asarray(NumpyOps().erf(self.to_numpy(x)), x.dtype)

    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return Tensor(self.xp.where(condition.array, x.array, y.array), x.dtype)

    # ---- reductions
    def sum(self, x: Tensor, axis: int) -> Tensor:
        return self._call("sum", x, axis=axis, keepdims=True)

    def max(self, x: Tensor, axis: int) -> Tensor:
        return self._call("max", x, axis=axis, keepdims=True)

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return self._call("argmax", x, axis=axis, result="int64")

    def cumsum(self, x: Tensor, axis: int) -> Tensor:
        return self._call("cumulative_sum", x, axis=axis)

    def argsort(self, x: Tensor) -> Tensor:
        if x.dtype in self.patterns:  # NumPy sorts in one direction only
            return self.asarray(NumpyOps().argsort(self.to_numpy(x)), "int64")
        return self._call("argsort", x, axis=-1, descending=True, stable=True, result="int64")

    # ---- how types are stored, and what is done with those that the library lacks
    def _stored(self, dtype: str) -> str:
        return self.patterns.get(dtype, dtype)

    def _type(self, dtype: str) -> Any:
        return getattr(self.xp, self._stored(dtype))

    def _call(self, function: str, *xs: Tensor, result: str | None = None, **options: Any) -> Tensor:
        """The standard's function of that name. result: its type, where that is not the operands'."""
        dtype = result or xs[0].dtype
        with np.errstate(all="ignore"):  # a library built on NumPy would warn of infinities that are meant
            if xs[0].dtype in self.patterns:
                return self.asarray(getattr(np, function)(*map(self.to_numpy, xs), **options), dtype)
            made = getattr(self.xp, function)(*(x.array for x in xs), **options)
            return Tensor(self.xp.astype(made, self._type(dtype), copy=False), dtype)  # int32 adds up to int64
