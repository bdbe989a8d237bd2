"""Backends with one fault each, where contracts end: the suite finds every one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.conformance import test_edges, test_primitives, test_random, test_shapes
from ferrum.tensor.ops import Shape, Tensor
from tests.conformance.test_broken_backends import survives


class PassesOverNaN(NumpyOps):
    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return np.argmax(np.where(np.isnan(x), -np.inf, x), axis)


class MaximumOfNumbers(NumpyOps):
    def max(self, x: Tensor, axis: int) -> Tensor:
        return np.fmax.reduce(x, axis, keepdims=True)


class NaNLast(NumpyOps):
    def argsort(self, x: Tensor) -> Tensor:
        return np.argsort(-x, -1, kind="stable")


class CutsTo32Bits(NumpyOps):
    def add(self, x: Tensor, y: Tensor) -> Tensor:
        total = np.add(x, y)
        return total.astype(np.int32).astype(np.int64) if total.dtype == np.int64 else total


class ComparesThroughFloat32(NumpyOps):
    def less(self, x: Tensor, y: Tensor) -> Tensor:
        return np.less(x.astype(np.float32), y.astype(np.float32))


class Saturates(NumpyOps):
    def sub(self, x: Tensor, y: Tensor) -> Tensor:
        return np.where(x < y, x.dtype.type(0), x - y) if x.dtype.kind == "u" else x - y


class RoundsToAnInteger(NumpyOps):
    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return super().cast(np.rint(x) if dtype.startswith("int") and x.dtype.kind == "f" else x, dtype)


class OneBlockOfThreads(NumpyOps):
    def sum(self, x: Tensor, axis: int) -> Tensor:
        return super().sum(np.take(x, range(min(x.shape[axis], 1024)), axis), axis)


class ScansInTwoPieces(NumpyOps):
    def cumsum(self, x: Tensor, axis: int) -> Tensor:
        running = np.cumsum(x, axis, dtype=x.dtype)
        if axis == -1 and x.shape[-1] > 4096:
            running[..., 4096:] -= running[..., 4095:4096]
        return running


class EpsilonUnderTheRoot(NumpyOps):
    def rsqrt(self, x: Tensor) -> Tensor:
        return super().rsqrt(x + np.finfo(x.dtype).tiny)


class SinglePrecision(NumpyOps):
    def log(self, x: Tensor) -> Tensor:
        return super().log(x.astype(np.float32)).astype(x.dtype)


class OneWorkspace(NumpyOps):
    """Has the memory of a result again at the next call."""

    def __init__(self) -> None:
        super().__init__()
        self._results: dict[Any, Tensor] = {}

    def exp(self, x: Tensor) -> Tensor:
        result = self._results.setdefault((x.shape, x.dtype), np.empty_like(x))
        result[...] = super().exp(x)
        return result


class NeedsRows(NumpyOps):
    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        if not x.size:
            raise ValueError("an empty grid")
        return super().matmul(x, y)


class ZeroIsZero(NumpyOps):
    """Keeps constants by their value alone."""

    def constant(self, value: float, dtype: str) -> Tensor:
        return vars(self).setdefault("kept", {}).setdefault((value, dtype), self.full((), value, dtype))


class ReachesOne(NumpyOps):
    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        drawn = super().uniform(shape, key, stream)
        return np.where(drawn > 1 - 2.0**-23, np.float32(1), drawn)


BROKEN: list[tuple[type[NumpyOps], Callable[..., None], dict[str, Any]]] = [
    (PassesOverNaN, test_edges.test_nan_is_found_wherever_it_is, {"count": 5}),
    (MaximumOfNumbers, test_edges.test_nan_is_found_wherever_it_is, {"count": 5}),
    (NaNLast, test_edges.test_nan_is_found_wherever_it_is, {"count": 700}),
    (CutsTo32Bits, test_edges.test_int64_is_not_cut_to_32_bits, {}),
    (ComparesThroughFloat32, test_edges.test_int64_is_not_cut_to_32_bits, {}),
    (Saturates, test_edges.test_unsigned_integers_wrap_at_both_ends, {"dtype": "uint64"}),
    (RoundsToAnInteger, test_edges.test_a_cast_to_an_integer_cuts_off_the_fraction, {"dtype": "int32"}),
    (OneBlockOfThreads, test_edges.test_rows_longer_than_a_block_of_threads, {"count": 1025}),
    (ScansInTwoPieces, test_edges.test_rows_longer_than_a_block_of_threads, {"count": 4097}),
    (EpsilonUnderTheRoot, test_primitives.test_elementary_functions_at_their_ends, {"name": "rsqrt"}),
    (SinglePrecision, test_edges.test_functions_have_the_precision_of_their_operand,
     {"name": "log", "dtype": "float64"}),
    (OneWorkspace, test_edges.test_a_second_call_leaves_the_first_result_alone, {"name": "exp"}),
    (NeedsRows, test_edges.test_no_rows_are_rows_too, {"name": "logits"}),
    (ZeroIsZero, test_shapes.test_a_constant_is_the_number_that_was_asked_for, {}),
    (ReachesOne, test_random.test_uniform_reaches_its_ends_and_not_1, {"key": 16390493, "first": 1 - 2.0**-24}),
]  # fmt: skip


@pytest.mark.clause("OPS-01", "OPS-02", "OPS-03", "OPS-04", "OPS-05", "OPS-07", "OPS-09", "OPS-21", "OPS-65", "OPS-68")
@pytest.mark.parametrize(("broken", "prove", "arguments"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_broken_backend_is_caught(
    broken: type[NumpyOps], prove: Callable[..., None], arguments: dict[str, Any]
) -> None:
    assert survives(NumpyOps(), prove, arguments)
    assert not survives(broken(), prove, arguments)
