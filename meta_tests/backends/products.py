"""Faults in products with stored weights: tiles that do not fit, biases, and what is rounded on the way."""

from __future__ import annotations

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.weights import BlockWeight, Linear
from meta_tests.backends.fault import caught_by


@caught_by("test_linear_with_every_kind_of_weight", kind="float32")
class DropsTheRest(NumpyOps):
    """Works in tiles of four rows."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        y = super().linear(x, linear)
        y[:, y.shape[1] // 4 * 4 :] = 0
        return y


@caught_by("test_linear_with_every_kind_of_weight", kind="float32")
class ColumnsInSixteens(NumpyOps):
    """Multiplies whole sixteens of columns."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        whole = np.array(x)
        whole[:, x.shape[1] // 16 * 16 :] = 0
        return super().linear(whole, linear)


@caught_by("test_linear_with_every_kind_of_weight", kind="float32")
class OddTokens(NumpyOps):
    """Computes tokens in pairs, and forgets the last of an odd number above 64."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        y = super().linear(x, linear)
        if len(y) > 64 and len(y) % 2:
            y[-1] = 0
        return y


@caught_by("test_linear_with_every_kind_of_weight", kind="bfloat16")
class ForgetsTheBias(NumpyOps):
    """Forgets the bias."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        return super().linear(x, Linear(linear.weight))


@caught_by("test_linear_with_every_kind_of_weight", kind="float32")
class BiasOfOneToken(NumpyOps):
    """Adds the bias to the first token only."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        y = super().linear(x, Linear(linear.weight))
        if linear.bias is not None:
            y[:1] += linear.bias
        return y


@caught_by("test_linear_with_every_kind_of_weight", kind="q4_k")
class BiasForEveryPart(NumpyOps):
    """Splits a product in two halves and adds the bias to each."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        y = super().linear(x, linear)
        return y + linear.bias if linear.bias is not None and x.shape[1] >= 256 else y


@caught_by("test_linear_with_every_kind_of_weight", kind="q8_0")
class HalfPrecision(NumpyOps):
    """Rounds activations to float16 before it multiplies blocks."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        rounded = x.astype(np.float16).astype(x.dtype) if isinstance(linear.weight, BlockWeight) else x
        return super().linear(rounded, linear)


@caught_by("test_linear_with_every_kind_of_weight", kind="q8_0")
class ActivationsOf8Bits(NumpyOps):
    """Rounds every 32 activations to 8 bits of the largest, as quick products of blocks do."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        if not isinstance(linear.weight, BlockWeight):
            return super().linear(x, linear)
        groups = np.array(x).reshape(len(x), -1, 32)
        step = np.abs(groups).max(-1, keepdims=True) / 127 + 1e-30
        return super().linear((np.round(groups / step) * step).reshape(x.shape).astype(x.dtype), linear)


@caught_by("test_a_row_of_a_batch_is_the_row_alone")
class ScalesByTheBatch(NumpyOps):
    """Rounds activations to 8 bits of the largest in the batch."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        step = np.abs(x).max() / 127 + 1e-9 if x.size else 1
        return super().linear((np.round(x / step) * step).astype(x.dtype), linear)


@caught_by("test_linear_with_every_kind_of_weight", kind="float32")
class SumsInBfloat16(NumpyOps):
    """Rounds what it has added up to bfloat16."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        return self.cast(self.cast(super().linear(x, linear), "bfloat16"), self.float_dtype)
