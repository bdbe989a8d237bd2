"""Faults in norms and softmax."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Norm
from meta_tests.backends.fault import caught_by


@caught_by("test_norms_add_epsilon_under_the_root")
class NoEpsilon(NumpyOps):
    """Forgets epsilon."""

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        return super().rms_norm(x, weight, 0.0)


@caught_by("test_norms_add_epsilon_under_the_root")
class EpsilonOutsideTheRoot(NumpyOps):
    """Adds epsilon to the root."""

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        return x / (np.sqrt(np.mean(x * x, -1, keepdims=True)) + x.dtype.type(epsilon)) * weight


@caught_by("test_norms_add_epsilon_under_the_root")
class WeightPlusOne(NumpyOps):
    """Adds 1 to the weight of a norm, as one family's files want it."""

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        return super().rms_norm(x, weight + weight.dtype.type(1), epsilon)


@caught_by("test_norms_add_epsilon_under_the_root")
class OneLessInTheVariance(NumpyOps):
    """Divides by n - 1, as statistics do."""

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
        n = x.shape[-1]
        y = super().layer_norm(x, weight, None, epsilon) * x.dtype.type(np.sqrt(max(n - 1, 1) / n))
        return y if bias is None else y + bias


@caught_by("test_layer_norm_of_numbers_that_are_nearly_one", width=6)
class VarianceInOnePass(NumpyOps):
    """Takes the mean of squares less the square of the mean, which cancel."""

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
        mean = self.mean(x, -1)
        variance = np.maximum(self.mean(x * x, -1) - mean * mean, x.dtype.type(0))
        y = (x - mean) * self.rsqrt(variance + self.scalar(epsilon)) * weight
        return y if bias is None else y + bias


@caught_by("test_norms_add_epsilon_under_the_root")
class NormInHalf(NumpyOps):
    """Squares in float16: large activations overflow."""

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        with np.errstate(over="ignore", invalid="ignore"):
            squares = (x.astype(np.float16) * x.astype(np.float16)).astype(x.dtype)
        return x * self.rsqrt(self.mean(squares, -1) + self.scalar(epsilon)) * weight


@caught_by("test_norms_add_epsilon_under_the_root")
class BiasBeforeTheWeight(NumpyOps):
    """Adds the bias of a norm before it multiplies with the weight."""

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
        one = np.ones_like(weight)
        y = super().layer_norm(x, one, bias, epsilon)
        return y * weight


@caught_by("test_each_head_is_normed_by_its_own_numbers", head_dim=6, centred=True)
class HeadsShareAWeight(NumpyOps):
    """Norms every head by the first head's numbers."""

    def head_norm(self, x: Tensor, norm: Norm | None, head_dim: int) -> Tensor:
        if norm is None or norm.weight.ndim == 1:
            return super().head_norm(x, norm, head_dim)
        own = replace(norm, weight=norm.weight[0], bias=None if norm.bias is None else norm.bias[0])
        return super().head_norm(x, own, head_dim)


@caught_by("test_a_norm_of_heads_is_one_for_each_or_one_for_all_together")
class HeadsAreNormedTogether(NumpyOps):
    """Takes one mean over all heads, where each has its own."""

    def head_norm(self, x: Tensor, norm: Norm | None, head_dim: int) -> Tensor:
        if norm is None or norm.weight.ndim > 1:
            return super().head_norm(x, norm, head_dim)
        whole = replace(norm, weight=np.resize(norm.weight, x.shape[1]),
                        bias=None if norm.bias is None else np.resize(norm.bias, x.shape[1]))  # fmt: skip
        return super().head_norm(x, whole, head_dim)


@caught_by("test_softmax_of_any_row_with_a_survivor")
class UnshiftedSoftmax(NumpyOps):
    """Does not shift a row by its maximum."""

    def softmax(self, x: Tensor) -> Tensor:
        e = self.exp(x)
        return self.div(e, self.sum(e, -1))


@caught_by("test_softmax_of_an_empty_choice_is_nan")
class GuardedSoftmax(NumpyOps):
    """Adds a tiny number to the sum: a row of nothing but -inf is 0, and not NaN."""

    def softmax(self, x: Tensor) -> Tensor:
        largest = np.where(np.isfinite(self.max(x, -1)), self.max(x, -1), x.dtype.type(0))
        e = self.exp(x - largest)
        return e / (self.sum(e, -1) + np.finfo(x.dtype).tiny)
