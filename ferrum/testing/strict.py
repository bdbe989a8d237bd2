"""A backend with opaque tensors that checks the protocol and counts calls.

Owns: `StrictOps`, around the primitives of any backend. Its tensors have `.shape` and `.dtype` and nothing else. Host
arrays are copied in both directions, as to and from a device; an array that is changed while it may still be read is an
error. A primitive accepts only the types that every backend must support. So code that relies on more than the protocol
fails here. Every composition is the definition. Refuses to know: what is computed.
Specs: OPS-66. Next: `ferrum.testing.cuda_shim.compiler`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.compositions import Compositions, TensorOps
from ferrum.tensor.ops import NEEDED, PRIMITIVES, Tensor, host_dtype

_OPERATORS = """
abs add and array bool bytes call complex contains copy deepcopy delitem divmod eq float
floordiv ge getitem gt hash iadd iand ifloordiv imatmul imul index int invert ior isub iter itruediv ixor le len
length_hint lshift lt matmul mod mul ne neg next or pos pow radd rand reduce_ex reversed rfloordiv rlshift rmatmul rmod
rmul ror round rpow rrshift rshift rsub rtruediv rxor setitem sub truediv xor
"""


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("a tensor can be used by its backend only")


class Opaque:
    """An object that has only the attributes of its subclass."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a tensor has .shape and .dtype, whose str() is a name, and no {name}")


for _name in _OPERATORS.split():
    setattr(Opaque, f"__{_name}__", _refuse)


class StrictType(Opaque):
    """The type of a tensor's elements: its `str` is the protocol's name for it."""

    __slots__ = ("_own_name",)

    def __init__(self, name: str) -> None:
        self._own_name = name

    def __str__(self) -> str:
        return self._own_name


class StrictTensor(Opaque):
    """A tensor of which only the backend knows more than its shape and type."""

    __slots__ = ("_inner", "dtype", "shape")

    def __init__(self, inner: Tensor) -> None:
        self._inner = inner
        self.shape = tuple(int(length) for length in inner.shape)
        self.dtype = StrictType(str(inner.dtype))


@dataclass
class Counts:
    """The calls of a backend. `calls`: the number of calls of each primitive."""

    calls: Counter[str] = field(default_factory=Counter)
    bytes_down: int = 0
    bytes_up: int = 0

    @property
    def synchronisations(self) -> int:
        return self.calls["to_numpy"]

    @property
    def uploads(self) -> int:
        return self.calls["asarray"]


class StrictOps(Compositions):
    """The primitives of `inner`, by default those of the oracle, on opaque tensors."""

    def __init__(self, inner: TensorOps | None = None, on_host: bool = False) -> None:
        """on_host: True to report that tensors lie in the host's memory, so that the host may choose tokens."""
        self._inner = NumpyOps() if inner is None else inner
        self.on_host = on_host
        self.name, self.float_dtype = self._inner.name, self._inner.float_dtype
        self.deterministic, self.compute = self._inner.deterministic, self._inner.compute
        self._counts = Counts()
        self._being_read: list[tuple[np.ndarray, int]] = []  # host arrays, and a hash of their bytes

    def counted(self) -> Counts:
        """The counts since the last call."""
        counts, self._counts = self._counts, Counts()
        return counts

    def asarray(self, values: Any, dtype: str) -> Tensor:
        """A copy, which may be made as late as the next `to_numpy`."""
        self._counts.calls["asarray"] += 1
        if isinstance(values, np.ndarray):
            self._being_read.append((values, hash(values.tobytes())))
        tensor = StrictTensor(self._inner.asarray(np.array(values, host_dtype(dtype)), dtype))
        self._counts.bytes_up += math.prod(tensor.shape) * host_dtype(dtype).itemsize
        return tensor

    def to_numpy(self, x: Tensor) -> np.ndarray:
        """A read-only copy."""
        self._counts.calls["to_numpy"] += 1
        if any(hash(values.tobytes()) != before for values, before in self._being_read):
            raise TypeError("a host array was changed while asarray could still read it")
        self._being_read.clear()
        array = np.array(self._inner.to_numpy(_inner_of(x)))
        array.flags.writeable = False
        self._counts.bytes_down += array.nbytes
        return array


def _inner_of(argument: Any) -> Any:
    """The argument for the inner backend: its own tensors, alone or in a list or tuple; numbers as they are."""
    if isinstance(argument, StrictTensor):
        return argument._inner
    if isinstance(argument, (list, tuple)):
        return type(argument)(map(_inner_of, argument))
    if isinstance(argument, (np.ndarray, Opaque)):
        raise TypeError(f"{type(argument).__name__} in place of a tensor")
    return argument


_INDEX_TYPES = {"take": {"int32", "int64"}, "take_along": {"int64"}, "put": {"int32", "int64"}, "where": {"bool"}}
"""The types of indices and conditions."""


def _check_types(name: str, arguments: Sequence[Any]) -> None:
    """Raises TypeError for a type for which a backend need not have the primitive, and for mixed types."""
    operands, indices = list(arguments), []
    if name in _INDEX_TYPES:
        indices = _tensors(operands.pop(0 if name == "where" else 1))
    kinds, places = ({str(tensor.dtype) for tensor in _tensors(each)} for each in (operands, indices))
    if len(kinds) > 1 or not kinds <= set(NEEDED.get(name, kinds)):
        raise TypeError(f"no backend needs {name} of {', '.join(sorted(kinds))}")
    if not places <= _INDEX_TYPES.get(name, set()):
        raise TypeError(f"no backend needs {name} by {', '.join(sorted(places))}")


def _tensors(argument: Any) -> list[StrictTensor]:
    """Every tensor in an argument: itself, or those in a list or tuple."""
    if isinstance(argument, (list, tuple)):
        return [tensor for each in argument for tensor in _tensors(each)]
    return [argument] if isinstance(argument, StrictTensor) else []


def _strict(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(map(StrictTensor, result))
    return None if result is None else StrictTensor(result)


def _counting(name: str) -> Callable[..., Any]:
    """The primitive of this name."""

    def run(self: StrictOps, *arguments: Any, **options: Any) -> Any:
        self._counts.calls[name] += 1
        _check_types(name, [*arguments, *options.values()])
        keywords = {key: _inner_of(value) for key, value in options.items()}
        return _strict(getattr(self._inner, name)(*map(_inner_of, arguments), **keywords))

    return run


for _name in PRIMITIVES:
    if _name not in vars(StrictOps):
        setattr(StrictOps, _name, _counting(_name))
