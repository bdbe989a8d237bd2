"""One node of ONNX, as the operators here see it: its inputs on a backend, its attributes, its result's type.

Owns: what is refused whatever the operator: types that tensors do not have, and primitives for types that no backend
has to offer. Types of 16 bits are computed in the backend's float type, as the engine does with what it stores in them.
Refuses to know: operators. Specs: SUITE-13. Next: `benchmarks/suites/onnx_elementwise.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import DTYPES, NEEDED, Tensor

Host = np.ndarray[Any, np.dtype[Any]]
HALVES = ("float16", "bfloat16")
FLOATS = (*HALVES, "float32", "float64")


class Refused(Exception):
    """What the operations of a backend do not do, in a few words."""


class Promised:
    """A backend of which nothing is asked that its contract does not have: a primitive for another type than those in
    NEEDED is Refused."""

    def __init__(self, ops: TensorOps) -> None:
        self.ops = ops

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.ops, name)
        if name not in NEEDED:
            return method

        def call(*operands: Any) -> Tensor:
            for operand in operands[1:] if name == "where" else operands:
                if hasattr(operand, "dtype") and str(operand.dtype) not in NEEDED[name]:
                    raise Refused(f"{name} of {operand.dtype}")
            return method(*operands)

        return call


@dataclass(frozen=True)
class Node:
    """`inputs` are host arrays, None where one is left out; `outputs` the names of results, "" where one is not
    wanted."""

    operator: str
    attributes: Mapping[str, Any]
    inputs: Sequence[Host | None]
    outputs: Sequence[str]

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def host(self, index: int) -> Host:
        """An input that says what to do, not with what: axes, shapes, counts."""
        found = self.inputs[index]
        assert found is not None, f"{self.operator} has no input {index}"
        return found

    def integers(self, index: int, attribute: str) -> list[int] | None:
        """What newer versions of an operator have as an input, and older ones as an attribute."""
        if self.has(index):
            return [int(value) for value in self.host(index).reshape(-1)]
        return self.attributes.get(attribute)

    def get(self, attribute: str, default: Any) -> Any:
        found = self.attributes.get(attribute, default)
        return found.decode() if isinstance(found, bytes) else found

    def wants(self, index: int) -> bool:
        return index < len(self.outputs) and bool(self.outputs[index])

    def refuse(self, what: str) -> Refused:
        return Refused(f"{self.operator}: {what}")


def place(ops: TensorOps, values: Host) -> Tensor:
    """A host array on the backend, in its own type."""
    if values.dtype.name not in DTYPES:
        raise Refused(f"type {'string' if values.dtype.kind in 'OSU' else values.dtype.name}")
    return ops.asarray(values, values.dtype.name)


def number(ops: TensorOps, values: Host) -> Tensor:
    """In the type that it is computed in."""
    placed = place(ops, values)
    return ops.cast(placed, ops.float_dtype) if values.dtype.name in HALVES else placed


def real(ops: TensorOps, values: Host) -> Tensor:
    """In the backend's float type, which compositions are for."""
    if values.dtype.name not in FLOATS:
        raise Refused(f"an operation of floats, for {values.dtype.name}")
    return ops.cast(place(ops, values), ops.float_dtype)


def constant(ops: TensorOps, value: float, like: Tensor) -> Tensor:
    return ops.constant(value, str(like.dtype))


def flipped(ops: TensorOps, x: Tensor, axis: int) -> Tensor:
    return ops.take(x, ops.asarray(np.arange(x.shape[axis])[::-1].copy(), "int64"), axis)


def on_last_axis(ops: TensorOps, function: Callable[[Tensor], Tensor], x: Tensor, axis: int) -> Tensor:
    """What works along the last axis, along another one."""
    order = [each for each in range(len(x.shape)) if each != axis % len(x.shape)] + [axis % len(x.shape)]
    return ops.permute(function(ops.permute(x, order)), [int(each) for each in np.argsort(order)])
