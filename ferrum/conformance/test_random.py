"""Properties of the random numbers: Philox, uniform, normal.

Owns: the promises OPS-20 to OPS-22. Refuses to know: who draws. Paper: Salmon et al., SC'11. Next: `specs/OPS.md`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.conformance import oracles
from ferrum.conformance.harness import host, variants
from ferrum.conformance.strategies import shapes
from ferrum.conformance.tolerances import assert_same
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.random import philox

keys = st.one_of(st.integers(0, 3), st.integers(-(2**64) + 1, 2**64 - 1))


@pytest.mark.clause("OPS-20")
@pytest.mark.parametrize(("counter", "key", "words"), oracles.KNOWN_ANSWERS)
def test_philox_gives_the_published_words(ops: TensorOps, counter: Any, key: Any, words: Any) -> None:
    assert oracles.philox4x32(counter, key) == words
    counter_tensors = [ops.asarray([word], "uint64") for word in counter]
    key_tensors = [ops.asarray([word], "uint64") for word in key]
    result = philox(ops, tuple(counter_tensors), tuple(key_tensors))
    assert [int(host(ops, word)[0]) for word in result] == list(words)


@pytest.mark.clause("OPS-21")
@given(shape=shapes(0, 3), key=keys, stream=keys)
@example(shape=(2,), key=0, stream=0)
@example(shape=(2,), key=-1, stream=2**64 - 1)
def test_uniform_is_a_function_of_key_stream_and_index(ops: TensorOps, shape: Any, key: int, stream: int) -> None:
    count = math.prod(shape)
    expected = np.array([oracles.uniform(i, key, stream) for i in range(count)], np.float32).reshape(shape)
    for draw in variants(ops, "uniform"):
        numbers = draw(shape, key, stream)
        assert str(numbers.dtype) == "float32"
        assert_same(host(ops, numbers), expected)
        assert np.all((expected >= 0) & (expected < 1))


@pytest.mark.clause("OPS-21")
@pytest.mark.parametrize(("key", "first"), [(12121362, 0.0), (16390493, 1 - 2.0**-24)])
def test_uniform_reaches_its_ends_and_not_1(ops: TensorOps, key: int, first: float) -> None:
    for draw in variants(ops, "uniform"):
        assert host(ops, draw((1,), key, 0)).tolist() == [first]


@pytest.mark.clause("OPS-21")
def test_streams_and_keys_do_not_repeat_each_other(ops: TensorOps) -> None:
    pairs = [(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (2**32, 0), (0, 2**32)]
    drawn = [tuple(host(ops, ops.uniform((4,), key, stream)).tolist()) for key, stream in pairs]
    assert len(set(drawn)) == len(pairs)


@pytest.mark.clause("OPS-22")
@given(shape=shapes(0, 3), key=keys, stream=keys)
def test_normal_is_box_muller_of_two_words(ops: TensorOps, shape: Any, key: int, stream: int) -> None:
    count = math.prod(shape)
    expected = np.array([oracles.normal(i, key, stream) for i in range(count)]).reshape(shape)
    for draw in variants(ops, "normal"):
        numbers = draw(shape, key, stream)
        assert str(numbers.dtype) == "float32"
        np.testing.assert_allclose(host(ops, numbers), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.clause("OPS-22")
@pytest.mark.parametrize("key", [0, 1, 12345])
def test_normal_has_the_moments_of_a_normal(ops: TensorOps, key: int) -> None:
    x = host(ops, ops.normal((20000,), key)).astype(np.float64)
    # standard errors of the first four moments over 20000 draws are 0.007, 0.010, 0.027 and 0.069
    moments = [float(np.mean(x**power)) for power in (1, 2, 3, 4)]
    assert np.allclose(moments, [0, 1, 0, 3], atol=[0.03, 0.04, 0.11, 0.28])
