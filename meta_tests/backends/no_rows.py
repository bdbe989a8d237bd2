"""Faults in operands without rows, which a chunk of a prompt makes."""

from __future__ import annotations

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.ops import Tensor
from meta_tests.backends.fault import caught_by


@caught_by("test_no_rows_are_rows_too", name="logits")
class NeedsRows(NumpyOps):
    """Launches a product over no blocks, which is an error."""

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        if not x.size:
            raise ValueError("an empty grid")
        return super().matmul(x, y)


@caught_by("test_no_rows_are_rows_too", name="take")
class NeedsIndices(NumpyOps):
    """Launches a look-up over no blocks, which is an error."""

    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
        if not indices.size:
            raise ValueError("an empty grid")
        return super().take(x, indices, axis)


@caught_by("test_no_rows_are_rows_too", name="add")
class NeedsElements(NumpyOps):
    """Launches an elementwise kernel over no blocks, which is an error."""

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        total = super().add(x, y)
        if not total.size:
            raise ValueError("an empty grid")
        return total


@caught_by("test_nothing_is_put_nowhere")
class SumOfNothing(NumpyOps):
    """Leaves the sum of no rows unwritten, where it is 0."""

    def sum(self, x: Tensor, axis: int) -> Tensor:
        total = super().sum(x, axis)
        return total if x.shape[axis] else np.full_like(total, 7)
