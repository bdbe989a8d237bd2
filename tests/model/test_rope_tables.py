"""The tables of cosines and sines, which are made piece by piece."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import RopeConfig
from ferrum.model.rope import POSITIONS, rope_frequencies, rope_tables

ROPE = RopeConfig(10000.0, 16)


@pytest.mark.clause("MODEL-13")
@pytest.mark.parametrize("positions", [1, POSITIONS - 1, POSITIONS, POSITIONS + 1, 3 * POSITIONS + 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_depends_on_its_position_alone(positions: int, dtype: str) -> None:
    tables = rope_tables(NumpyOps(dtype), ROPE, positions)
    angles = np.outer(np.arange(positions, dtype=np.float64), rope_frequencies(ROPE))
    np.testing.assert_array_equal(tables.cos, np.cos(angles).astype(dtype), strict=True)
    np.testing.assert_array_equal(tables.sin, np.sin(angles).astype(dtype), strict=True)


@pytest.mark.clause("MODEL-13")
def test_long_tables_are_made_in_little_memory() -> None:
    tracemalloc.start()
    tables = rope_tables(NumpyOps(), ROPE, 64 * POSITIONS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * (tables.cos.nbytes + tables.sin.nbytes)
