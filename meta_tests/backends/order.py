"""Faults in order: argmax, max and argsort with ties, NaN, zeros and infinities."""

from __future__ import annotations

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.ops import Tensor
from meta_tests.backends.fault import caught_by


@caught_by("test_the_lowest_index_wins_a_tie")
@caught_by("test_argmax_along_any_axis")
class LastOnATie(NumpyOps):
    """Gives the last of equal elements (as in pytorch #22853)."""

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return x.shape[axis] - 1 - np.argmax(np.flip(x, axis), axis)


@caught_by("test_a_vocabulary_is_searched_and_sorted_whole", count=49152)
class LastTileOnATie(NumpyOps):
    """Joins the results of tiles of 256 so that the last of equal ones wins."""

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        if x.shape[axis] <= 256 or axis % x.ndim != x.ndim - 1:
            return super().argmax(x, axis)
        starts = range(0, x.shape[-1], 256)
        best = np.stack([np.argmax(x[..., start : start + 256], -1) + start for start in starts], -1)
        values = np.take_along_axis(x, best, -1)
        last = len(starts) - 1 - np.argmax(values[..., ::-1], -1)
        return np.take_along_axis(best, last[..., None], -1)[..., 0]


@caught_by("test_the_lowest_index_wins_a_tie")
class UnstableOrder(NumpyOps):
    """Sorts equal elements in the order of their last index (as in pytorch #120874)."""

    def argsort(self, x: Tensor) -> Tensor:
        return np.argsort(x, -1, kind="stable")[..., ::-1]


@caught_by("test_rows_longer_than_a_block_of_threads", count=1023)
class UnstableLongOrder(NumpyOps):
    """Changes to a sort that is not stable where a row is longer than 512."""

    def argsort(self, x: Tensor) -> Tensor:
        return np.argsort(x, -1, kind="stable")[..., ::-1] if x.shape[-1] > 512 else super().argsort(x)


@caught_by("test_nan_is_found_wherever_it_is", count=5)
class PassesOverNaN(NumpyOps):
    """Gives the largest number where there is a NaN (as in mlx #4274): a damaged model answers."""

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return np.argmax(np.where(np.isnan(x), -np.inf, x), axis)


@caught_by("test_nan_is_found_wherever_it_is", count=5)
class MaximumOfNumbers(NumpyOps):
    """Drops NaN from max, as the shuffles of a GPU do (as in mlx #577)."""

    def max(self, x: Tensor, axis: int) -> Tensor:
        return np.fmax.reduce(x, axis, keepdims=True)


@caught_by("test_nan_is_found_wherever_it_is", count=700)
class NaNLast(NumpyOps):
    """Sorts NaN behind every number, as most libraries do."""

    def argsort(self, x: Tensor) -> Tensor:
        return np.argsort(-x, -1, kind="stable")


@caught_by("test_reductions_keep_the_axis", name="max")
class MaximumStartsAtZero(NumpyOps):
    """Begins the search for the largest element with 0."""

    def max(self, x: Tensor, axis: int) -> Tensor:
        return np.maximum(super().max(x, axis), x.dtype.type(0))


@caught_by("test_a_row_of_nothing_but_minus_infinity")
class MaximumStartsAtLowest(NumpyOps):
    """Begins the search with the least finite number: a row of -inf has another maximum."""

    def max(self, x: Tensor, axis: int) -> Tensor:
        largest = super().max(x, axis)
        return np.maximum(largest, np.finfo(x.dtype).min) if x.dtype.kind == "f" else largest


@caught_by("test_a_row_of_nothing_but_minus_infinity")
class ArgmaxStartsAtLowest(NumpyOps):
    """Begins the search with the least finite number and no index: a row of -inf has index -1."""

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        best = super().argmax(x, axis)
        return np.where((x == -np.inf).all(axis), -1, best) if x.dtype.kind == "f" else best


@caught_by("test_argmax_along_any_axis")
class ArgmaxOfRows(NumpyOps):
    """Looks along the last axis, whichever was asked for (as in mxnet #20842)."""

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return super().argmax(np.swapaxes(x, axis, -1).reshape(x.shape) if x.ndim > 1 else x, axis)


@caught_by("test_argmax_along_any_axis")
class IndicesOf32Bits(NumpyOps):
    """Gives indices as int32."""

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return super().argmax(x, axis).astype(np.int32)


@caught_by("test_what_a_wide_type_tells_apart_is_told_apart", name="float64")
class OrderInFloat32(NumpyOps):
    """Sorts float64 by what float32 keeps of it."""

    def argsort(self, x: Tensor) -> Tensor:
        return super().argsort(x.astype(np.float32) if x.dtype == np.float64 else x)


@caught_by("test_what_a_wide_type_tells_apart_is_told_apart", name="int64")
class OrderOfIntegersInFloat32(NumpyOps):
    """Sorts integers by what float32 keeps of them."""

    def argsort(self, x: Tensor) -> Tensor:
        return super().argsort(x.astype(np.float32) if x.dtype.kind == "i" else x)


@caught_by("test_the_lowest_index_wins_a_tie")
class MinusZeroBelowZero(NumpyOps):
    """Sorts by bits, as a radix sort does: -0 comes after 0."""

    def argsort(self, x: Tensor) -> Tensor:
        if x.dtype.kind != "f":
            return super().argsort(x)
        return super().argsort(np.where((x == 0) & np.signbit(x), -np.finfo(x.dtype).tiny, x))


@caught_by("test_choose_draws_what_the_settings_leave")
class NegativeByBits(NumpyOps):
    """Sorts floats by their bits as integers: negative ones stand in the wrong order."""

    def argsort(self, x: Tensor) -> Tensor:
        if x.dtype != np.float64:
            return super().argsort(x)
        return super().argsort(np.where(x < 0, -1 - 1 / np.where(x < 0, x, 1), x))


@caught_by("test_a_row_of_nothing_but_minus_infinity")
class PadsWithLowest(NumpyOps):
    """Pads a row to a power of two with the least finite number, so that the padding comes before -inf."""

    def argsort(self, x: Tensor) -> Tensor:
        if x.dtype.kind != "f":
            return super().argsort(x)
        width = 1 << max(x.shape[-1] - 1, 0).bit_length()
        pad = np.full((*x.shape[:-1], width - x.shape[-1]), np.finfo(x.dtype).min, x.dtype)
        return super().argsort(np.concatenate([x, pad], -1))[..., : x.shape[-1]]


@caught_by("test_the_lowest_index_wins_a_tie")
class TopKUnsorted(NumpyOps):
    """Finds the k largest and leaves them in the order of their indices."""

    def top_k(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        indices = np.sort(super().top_k(x, k)[1], -1)
        return self.take_along(x, indices), indices
