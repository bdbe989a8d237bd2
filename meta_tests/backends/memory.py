"""Faults in memory: results that do not last, inputs that change, caches that outlive what they know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.batch import KvLayer
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Norm
from ferrum.tensor.weights import Linear, Weight
from meta_tests.backends.fault import caught_by, permitted


@caught_by("test_a_second_call_leaves_the_first_result_alone", name="exp")
class OneWorkspace(NumpyOps):
    """Has the memory of a result again at the next call."""

    buffers = 1

    def __init__(self, float_dtype: str = "float32", deterministic: bool = False) -> None:
        super().__init__(float_dtype, deterministic)
        self._results: dict[Any, list[Tensor]] = {}

    def exp(self, x: Tensor) -> Tensor:
        return self.lent("exp", super().exp(x))

    def lent(self, name: str, result: Tensor) -> Tensor:
        """The result in memory of the ring."""
        ring = self._results.setdefault((name, result.shape, result.dtype), [])
        place = ring.pop(0) if len(ring) == self.buffers else np.empty_like(result)
        place[...] = result
        ring.append(place)
        return place


@caught_by("test_results_outlast_later_calls", name="exp")
class RingOfTwo(OneWorkspace):
    """Has two buffers for its results: the third is written over the first."""

    buffers = 2


@caught_by("test_results_outlast_later_calls", name="exp")
class RingOfFour(OneWorkspace):
    """Has four buffers for its results: the fifth is written over the first."""

    buffers = 4


@caught_by("test_results_outlast_later_calls", name="linear, float32")
class WorkspaceOfProducts(OneWorkspace):
    """Writes every product into the same memory."""

    def exp(self, x: Tensor) -> Tensor:
        return NumpyOps.exp(self, x)

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        return self.lent("linear", super().linear(x, linear))


@caught_by("test_results_outlast_later_calls", name="paged_attention")
class WorkspaceOfAttention(OneWorkspace):
    """Writes what every layer's attention gives into the same memory."""

    def exp(self, x: Tensor) -> Tensor:
        return NumpyOps.exp(self, x)

    def paged_attention(self, query: Tensor, *rest: Any) -> Tensor:
        return self.lent("attention", super().paged_attention(query, *rest))


@caught_by("test_results_outlast_later_calls", name="rms_norm")
class WorkspaceOfNorms(OneWorkspace):
    """Writes every norm into the same memory."""

    def exp(self, x: Tensor) -> Tensor:
        return NumpyOps.exp(self, x)

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        return self.lent("norm", super().rms_norm(x, weight, epsilon))


@caught_by("test_rope_attention_normalises_rotates_writes_and_then_attends")
class WorkspaceOfIndices(OneWorkspace):
    """Writes what it takes by indices into the same memory."""

    def exp(self, x: Tensor) -> Tensor:
        return NumpyOps.exp(self, x)

    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
        return self.lent("take", super().take(x, indices, axis))


@caught_by("test_a_constant_is_the_number_that_was_asked_for")
class ZeroIsZero(NumpyOps):
    """Keeps constants by their value alone: -0 is found where 0 was made."""

    def constant(self, value: float, dtype: str) -> Tensor:
        return vars(self).setdefault("kept", {}).setdefault((value, dtype), self.full((), value, dtype))


@caught_by("test_a_constant_is_the_number_that_was_asked_for")
class ConstantsOfAnyType(NumpyOps):
    """Keeps constants by their value and forgets that a type belongs to it."""

    def constant(self, value: float, dtype: str) -> Tensor:
        kept = vars(self).setdefault("kept", {})
        return super().constant(value, dtype) if value != 1 else kept.setdefault(dtype[0], super().constant(1, dtype))


@caught_by("test_a_weight_at_the_place_of_another_is_another", kind="float32")
class WeightsByIdentity(NumpyOps):
    """Keeps dequantised weights by the address of their object, which the next model's weight may have."""

    def dequantize(self, weight: Weight) -> Tensor:
        kept = vars(self).setdefault("kept", {})
        return kept.setdefault((id(weight), weight.shape), super().dequantize(weight))


@caught_by("test_a_weight_is_what_its_bytes_are_now", kind="float16")
class WeightsByAddress(NumpyOps):
    """Keeps dequantised weights by where their bytes lie, whatever stands there now."""

    def dequantize(self, weight: Weight) -> Tensor:
        kept = vars(self).setdefault("kept", {})
        place = weight.data.__array_interface__["data"][0]
        return kept.setdefault((place, weight.kind, weight.shape), super().dequantize(weight))


@caught_by("test_a_norm_at_the_place_of_another_is_another")
class NormsByIdentity(NumpyOps):
    """Keeps what it knows of a norm by the address of its object, which the next norm may have."""

    def normed(self, x: Tensor, norm: Norm | None) -> Tensor:
        kept = vars(self).setdefault("kept", {})
        if norm is None:
            return x
        return super().normed(x, Norm(*kept.setdefault(
            (id(norm), norm.weight.shape), (norm.weight, norm.epsilon, norm.bias, norm.centred))))  # fmt: skip


@caught_by("test_linear_add_is_linear_then_norm_then_add")
class ChangesItsInput(NumpyOps):
    """Adds to the residual stream in place."""

    def linear_add(
        self, x: Tensor, linear: Linear, residual: Tensor, after: Norm | None = None, scale: float = 1.0
    ) -> Tensor:
        result = super().linear_add(x, linear, residual, after, scale)
        if residual.flags.writeable:
            residual[...] = result
        return result


@caught_by("test_the_lowest_index_wins_a_tie")
class SortsInPlace(NumpyOps):
    """Sorts the row itself on the way to its order."""

    def argsort(self, x: Tensor) -> Tensor:
        order = super().argsort(x)
        if x.flags.writeable:
            x[...] = np.take_along_axis(x, order, -1)
        return order


@caught_by("test_softmax_of_any_row_with_a_survivor")
class MasksInPlace(NumpyOps):
    """Writes exponentials over the scores of a softmax."""

    def softmax(self, x: Tensor) -> Tensor:
        result = super().softmax(x)
        if x.ndim > 1 and x.flags.writeable and x.flags.c_contiguous:
            x[...] = result
        return result


@caught_by("test_a_result_is_a_new_tensor", name="relu")
class ReturnsItsInput(NumpyOps):
    """Gives its operand back where there is nothing to do."""

    def relu(self, x: Tensor) -> Tensor:
        return x if (x >= 0).all() else super().relu(x)


@caught_by("test_a_result_is_a_new_tensor", name="concat")
class JoinsOne(NumpyOps):
    """Gives its operand back where one tensor is joined with none."""

    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        return xs[0] if len(xs) == 1 else super().concat(xs, axis)


@caught_by("test_activations", name="silu")
class AssumesContiguity(NumpyOps):
    """Reads an operand in the order of its memory."""

    def silu(self, x: Tensor) -> Tensor:
        return super().silu(np.reshape(x, -1, order="K").reshape(np.shape(x)))


@caught_by("test_softmax_of_any_row_with_a_survivor")
class ReadsWideRows(NumpyOps):
    """Reads the rows of a part of a wider tensor without the distance between them."""

    def softmax(self, x: Tensor) -> Tensor:
        if x.base is not None and x.base.dtype == x.dtype and x.ndim > 1 and not x.flags.c_contiguous:
            x = np.ascontiguousarray(x.base).reshape(-1)[: x.size].reshape(x.shape)
        return super().softmax(x)


@caught_by("test_put_writes_through_views")
class WritesToACopy(NumpyOps):
    """Makes a permuted view contiguous before it writes to it: the pool never changes."""

    def put(self, x: Tensor, indices: Sequence[Tensor], values: Tensor) -> None:
        super().put(np.ascontiguousarray(x), indices, values)


@caught_by("test_put_writes_through_views")
class PermutesACopy(NumpyOps):
    """Copies where a view is asked for: what is written to it is lost."""

    def permute(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return super().permute(x, axes).copy()


@caught_by("test_put_writes_through_views")
class SharedZeros(NumpyOps):
    """Returns the same memory for every request of zeros of one shape."""

    def full(self, shape: tuple[int, ...], value: float, dtype: str) -> Tensor:
        made = super().full(shape, value, dtype)
        return vars(self).setdefault("kept", {}).setdefault((shape, dtype), made) if value == 0 and shape else made


@caught_by("test_one_tensor_read_leaves_another_alone")
class AliasesWhatItReads(NumpyOps):
    """Gives the host an array that later calls write to."""

    def to_numpy(self, x: Tensor) -> np.ndarray:
        kept = vars(self).setdefault("kept", {}).setdefault((x.shape, x.dtype), np.empty(x.shape, x.dtype))
        kept[...] = x
        return kept


@permitted(
    "split gives views that are never written, and a view may be a copy: no caller sees a difference",
    "test_shape_operations_move_values",
)
class SplitIsCopied(NumpyOps):
    """Copies the parts of a split."""

    def split(self, x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]:
        return tuple(part.copy() for part in super().split(x, sizes, axis))


@permitted("reshape may be a view, and it may be a copy", "test_shape_operations_move_values")
class ReshapeIsCopied(NumpyOps):
    """Copies whatever it reshapes."""

    def reshape(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return super().reshape(x, shape).copy()


@caught_by("test_kv_write_touches_its_slots_and_no_others")
class PoolOfOneLayer(NumpyOps):
    """Keeps the pool that it saw first and writes every layer's keys to it."""

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        kept = vars(self).setdefault("kept", {}).setdefault((layer.keys.shape, layer.keys.dtype), layer)
        super().kv_write(kept, key, value, slots)
