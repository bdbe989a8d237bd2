"""The tables of cosines and sines."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import RopeConfig, RopeScaling
from ferrum.model.rope import POSITIONS, attention_factor, rope_frequencies, rope_tables

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


DYNAMIC = RopeConfig(10000.0, 16, RopeScaling.DYNAMIC, factor=2.0, original_max_positions=32)
LONG = RopeConfig(
    10000.0, 16, RopeScaling.LONGROPE, factor=4.0, original_max_positions=32,
    factors=(1.0,) * 8, long_factors=tuple(range(2, 10)),
)  # fmt: skip


@pytest.mark.clause("MODEL-15")
@pytest.mark.parametrize("rope", [DYNAMIC, LONG], ids=["dynamic", "longrope"])
def test_frequencies_are_those_of_the_longest_context_for_every_token(rope: RopeConfig) -> None:
    plain = rope_frequencies(ROPE)
    for positions in (1, 31, 32):  # nothing is stretched within the original context
        np.testing.assert_array_equal(rope_frequencies(rope, positions), plain)
    longer = rope_frequencies(rope, 100)
    assert longer[-1] < plain[-1]
    tables = rope_tables(NumpyOps("float64"), rope, 100)
    angles = np.outer(np.arange(100), longer)
    np.testing.assert_allclose(tables.cos, attention_factor(rope) * np.cos(angles), atol=1e-12)


@pytest.mark.clause("MODEL-15")
def test_a_larger_base_slows_the_slowest_pair_by_what_exceeds_the_original_context() -> None:
    """The base of NTK-aware scaling follows from this rule: in a context three times the original one, with a factor of
    2, the slowest pair turns a fifth as fast."""
    stretched, plain = rope_frequencies(DYNAMIC, 96), rope_frequencies(ROPE)
    np.testing.assert_allclose(plain[-1] / stretched[-1], 2 * 96 / 32 - 1)
    assert stretched[0] == plain[0] == 1
