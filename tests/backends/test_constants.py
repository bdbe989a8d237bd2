"""OPS-65: every backend makes a constant once, and a recording keeps its own constants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import MOST_CONSTANTS, TensorOps
from ferrum.tensor.ops import Tensor
from tests.backends.test_step_replay import batch_of


class Plain(NumpyOps):
    """A backend whose `__init__` does not call that of its base class."""

    float_dtype = "float32"

    def __init__(self) -> None:
        self.made: list[tuple[float, str]] = []

    def full(self, shape: Any, value: float, dtype: str) -> Tensor:
        self.made.append((value, dtype))
        return super().full(shape, value, dtype)


@pytest.mark.clause("OPS-65")
def test_a_constant_is_made_once() -> None:
    ops = Plain()
    for value in (0.0, -0.0, math.nan, float("nan"), math.inf, 1, 1.0, np.float32(1)):
        assert ops.constant(value, "float64") is ops.constant(value, "float64")
    assert len(ops.made) == 5
    assert ops.constant(1, "float64") is not ops.constant(1, "float32")
    assert Plain().constant(1, "float64") is not ops.constant(1, "float64")


@pytest.mark.clause("OPS-65")
def test_those_beyond_the_most_are_right_and_those_kept_stay() -> None:
    ops = Plain()
    first = ops.constant(0, "int64")
    asked = [*range(MOST_CONSTANTS + 2), MOST_CONSTANTS + 1]
    assert [int(ops.constant(value, "int64")) for value in asked] == asked
    assert ops.constant(0, "int64") is first
    assert ops.constant(MOST_CONSTANTS, "int64") is not ops.constant(MOST_CONSTANTS, "int64")


@pytest.mark.clause("OPS-61", "OPS-65")
def test_a_constant_in_a_recorded_step() -> None:
    """Constants and the results that are computed from them are in memory at every replay."""
    table = np.random.default_rng(0).random((9, 32), np.float32)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        factor = ops.exp(ops.mul(ops.scalar(2), ops.constant(0.25, "float32")))
        return ops.add(ops.mul(ops.take(table, batch.token_ids), factor), ops.constant(-3, "float32"))

    ops = NumbaOps(1)
    for token in (1, 5, 8):
        batch = batch_of([token], [1], np.arange(10, dtype=np.int32)[None])
        ops.scalar(token)  # of the backend itself: a recording has its own
        np.testing.assert_array_equal(ops.run_step(step, batch), step(ops, batch))
    assert ops.decode_steps(step).replayed == 3
