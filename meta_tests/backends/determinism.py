"""Faults in the deterministic mode: bits that depend on other rows, on chunks, or on the order of threads."""

from __future__ import annotations

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.batch import KvLayer, StepBatch
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention
from ferrum.tensor.weights import Linear
from meta_tests.backends.fault import caught_by


@caught_by("test_a_row_of_a_product_has_the_bits_that_it_has_alone", name="linear", kind="float32")
class ProductsOfTheBatch(NumpyOps):
    """Says that it is deterministic, and multiplies with a library that adds many rows up in another order."""

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return np.matmul(x, y)


@caught_by("test_a_row_has_the_bits_that_it_has_alone", name="softmax", width=70)
class SplitsByTheCrowd(NumpyOps):
    """Splits a row's sum into more parts where there are fewer rows."""

    def sum(self, x: Tensor, axis: int) -> Tensor:
        if not self.deterministic or x.shape[axis] < 8 or axis % x.ndim != x.ndim - 1:
            return super().sum(x, axis)
        parts = 2 if x.size > 4 * x.shape[axis] else 4
        cuts = np.array_split(x, parts, axis)
        total = super().sum(cuts[0], axis)
        for each in cuts[1:]:
            total = total + super().sum(each, axis)
        return total


@caught_by("test_a_second_call_gives_the_same_bits", name="softmax")
class AddsAsTheyCome(NumpyOps):
    """Adds parts of a sum up in the order in which threads end: another one at every call."""

    calls = 0

    def sum(self, x: Tensor, axis: int) -> Tensor:
        if not self.deterministic:
            return super().sum(x, axis)
        self.calls += 1
        return super().sum(np.roll(x, self.calls, axis), axis)


@caught_by("test_a_second_call_gives_the_same_bits", name="norm_activated")
class ProductsAsTheyCome(NumpyOps):
    """Adds parts of a product up in the order in which threads end: another one at every call."""

    calls = 0

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        if not self.deterministic:
            return super().linear(x, linear)
        self.calls += 1
        weight = np.roll(self.dequantize(linear.weight), self.calls, -1)
        y = self.matmul(np.roll(x, self.calls, -1), weight.T)
        return y if linear.bias is None else y + linear.bias


@caught_by("test_a_row_of_a_product_has_the_bits_that_it_has_alone", name="linear", kind="float32")
class ManyTokensAnotherKernel(NumpyOps):
    """Changes to another order of additions where a step has more than 8 tokens."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        if not self.deterministic or len(x) <= 8:
            return super().linear(x, linear)
        y = self.matmul(x[:, ::-1], self.dequantize(linear.weight)[:, ::-1].T)
        return y if linear.bias is None else y + linear.bias


@caught_by("test_attention_has_the_same_bits_however_a_text_is_cut", features="plain")
class ChunksAttendTogether(NumpyOps):
    """Multiplies all queries of a chunk at once, over the positions that the last of them sees."""

    def paged_attention(self, query: Tensor, attention: Attention, layer: KvLayer, batch: StepBatch) -> Tensor:
        mode, self.deterministic = self.deterministic, False
        try:
            return super().paged_attention(query, attention, layer, batch)
        finally:
            self.deterministic = mode


@caught_by("test_a_row_has_the_bits_that_it_has_alone", name="rms_norm", width=256)
class NormsOfManyRows(NumpyOps):
    """Adds the squares of a row up from the other end where there is more than one row."""

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        if not self.deterministic or len(x) <= 1:
            return super().rms_norm(x, weight, epsilon)
        return super().rms_norm(x[..., ::-1], weight[..., ::-1], epsilon)[..., ::-1]


@caught_by("test_a_row_has_the_bits_that_it_has_alone", name="exp", width=70)
class TailOfTheStep(NumpyOps):
    """Computes the last rows of a step, which fill no register, with another exponential."""

    def exp(self, x: Tensor) -> Tensor:
        y = super().exp(x)
        if self.deterministic and y.ndim > 1 and y.size % 8:
            y[-1] = np.nextafter(y[-1], np.inf)
        return y
