"""Runs one operation, with the checks that every property needs.

Owns: calling an operation and, if a backend overrides a composition, the composition itself; checking that no input was
changed; recording what was checked, and telling Hypothesis which examples came closest to failing. Refuses to know:
which operations there are.
Specs: OPS-09, OPS-11. Next: `ferrum.conformance.plugin`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from hypothesis import currently_in_test_context, target
from hypothesis.errors import InvalidArgument

from ferrum.conformance.named import overrides
from ferrum.conformance.oracles import Expected
from ferrum.conformance.record import note_check
from ferrum.conformance.strategies import Host
from ferrum.conformance.tolerances import assert_same, closeness
from ferrum.tensor.compositions import COMPOSITIONS, Compositions, TensorOps
from ferrum.tensor.ops import Tensor


def tensors_in(argument: Any) -> Iterator[Tensor]:
    """Every tensor in an argument: itself, or those in a tuple, list, weight, batch or layer."""
    if isinstance(argument, (tuple, list)):
        for item in argument:
            yield from tensors_in(item)
    elif is_dataclass(argument):
        for field in fields(argument):
            yield from tensors_in(getattr(argument, field.name))
    elif argument is not None and not isinstance(argument, (int, float, str)):
        yield argument


def host(ops: TensorOps, x: Tensor) -> Host:
    """A copy on the host. Later changes of the tensor do not change it."""
    return np.array(ops.to_numpy(x))


def variants(ops: TensorOps, name: str) -> list[Callable[..., Any]]:
    """The operation of the backend, and, if that is an override, the composition."""
    note_check(name)
    functions = [getattr(ops, name)]
    if name in COMPOSITIONS and overrides(ops, name):
        functions.append(functools.partial(getattr(Compositions, name), ops))
    return functions


def call_unchanged(ops: TensorOps, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """The result; fails if a tensor among the arguments has changed."""
    inputs = list(tensors_in(arguments))
    before = [host(ops, x) for x in inputs]
    result = function(*arguments)
    for x, copy in zip(inputs, before, strict=True):
        assert_same(host(ops, x), copy)
    return result


def note_closeness(name: str, share: float) -> None:
    """The error of an answer is this share of the tolerance. Hypothesis searches for examples that make it larger, up
    to 1."""
    note_check(name, share)
    if share <= 1 and currently_in_test_context():
        with suppress(InvalidArgument):  # Hypothesis accepts one number for each operation and example: the first
            target(share, label=name)


@contextmanager
def beyond_measure(name: str) -> Iterator[None]:
    """An error in the block has no size."""
    try:
        yield
    except AssertionError:
        note_check(name, math.inf)
        raise


def check(ops: TensorOps, name: str, arguments: tuple[Any, ...], *expected: Expected | Host) -> None:
    """Checks that every variant of the operation gives the oracle's result, in the backend's float type."""
    for function in variants(ops, name):
        with beyond_measure(name):
            result = call_unchanged(ops, function, arguments)
            results = result if isinstance(result, tuple) else (result,)
            assert len(results) == len(expected), f"{name} gave {len(results)} results, expected {len(expected)}"
            for tensor in results:
                assert str(tensor.dtype) == ops.float_dtype, f"{name} gave {tensor.dtype}, expected {ops.float_dtype}"
        for tensor, reference in zip(results, expected, strict=True):
            measure = closeness(host(ops, tensor), reference, ops.float_dtype)
            note_closeness(name, measure.share)
            measure.check()


def check_same(ops: TensorOps, name: str, arguments: tuple[Any, ...], expected: Host, dtype: str) -> None:
    """Checks that every variant of the operation gives exactly these elements in this type."""
    for function in variants(ops, name):
        with beyond_measure(name):
            result = call_unchanged(ops, function, arguments)
            assert str(result.dtype) == dtype, f"{name} gave {result.dtype}, expected {dtype}"
            assert_same(host(ops, result), expected)
