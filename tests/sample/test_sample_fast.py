"""SAMPLE-03, -12: the selection of the largest numbers without a full sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.sample.fast import GROUP, largest


@pytest.mark.clause("SAMPLE-03", "SAMPLE-12")
@given(data=st.data(), size=st.integers(1, 40 * GROUP), seed=st.integers(0), steps=st.sampled_from([1, 4, 10**6]))
def test_the_largest_are_those_that_a_sort_puts_first(data: st.DataObject, size: int, seed: int, steps: int) -> None:
    """Selects few or most of the numbers; many of them are equal, and some are -inf."""
    count = data.draw(st.one_of(st.integers(1, size), st.integers(1, max(1, size // GROUP))))
    random = np.random.default_rng(seed)
    values = random.integers(-steps, steps + 1, size).astype(data.draw(st.sampled_from([np.float32, np.float64])))
    values[random.random(size) < data.draw(st.sampled_from([0.0, 0.7]))] = -np.inf
    expected = np.sort(np.argsort(-values, kind="stable")[:count])
    assert largest(values, count).tolist() == expected.tolist()
